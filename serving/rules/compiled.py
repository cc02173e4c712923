"""Compiled rules: arrays over a release's items, so that a look-up multiplies and masks, whatever the rules say.

When rules change, the items that each is about are found attribute by attribute, in another thread; when one item
changes, the rules are checked for that item alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
import numpy as np

from models.arrays import Bool, Float32, Int64
from serving.rules.rule import Condition, Rule, Value

CACHED_USERS: Final = 64
"""A look-up asks several times which rules apply to its user."""
SCORING_ACTIONS: Final = frozenset({"boost", "bury"})
_NO_PLACES: Final = np.zeros(0, np.int64)


class RuleSubject(Protocol):
    """An item whose values rules test."""

    def value_of(self, name: str) -> Value:
        """Its category, title or an attribute; None where it has none."""


class ConditionMatcher:
    """A condition, ready to be tested: the values of `in` are found by hash, however many there are."""

    __slots__ = ("_keys", "_rest", "named")

    def __init__(self, condition: Condition) -> None:
        self.named = condition.named
        self._rest = msgspec.structs.replace(condition, one_of=None)
        one_of = condition.one_of
        self._keys = frozenset(map(_key, one_of)) if one_of is not None else None

    def holds(self, value: Value) -> bool:
        """Whether an attribute's value passes; None is the value of an item without it."""
        if self._keys is not None:
            values = value if isinstance(value, list) else [] if value is None else [value]
            if not any(_key(entry) in self._keys for entry in values):
                return False
        return self._rest.holds(value)


def _key(value: object) -> tuple[bool, object]:
    return isinstance(value, bool), value  # 1 is not true


class RuleMatcher(msgspec.Struct, frozen=True):
    """A rule, ready to be matched with items."""

    rule: Rule
    items: frozenset[str] | None
    tests: tuple[tuple[str, ConditionMatcher], ...]

    @classmethod
    def of(cls, rule: Rule) -> "RuleMatcher":
        """The matcher of a rule."""
        tests = tuple((name, ConditionMatcher(test)) for name, test in rule.tests().items())
        return cls(rule, frozenset(rule.items) if rule.items else None, tests)

    def matches(self, item_id: str, entry: RuleSubject | None) -> bool:
        """Whether the rule is about an item; `entry` is None for one that is not in the catalogue."""
        if self.items is not None and item_id not in self.items:
            return False
        return all(test.holds(entry.value_of(name) if entry is not None else None) for name, test in self.tests)


class RuleIndex:
    """Rules by item id, to find the rules about a single item."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.matchers = tuple(RuleMatcher.of(rule) for rule in rules)
        self._by_item: dict[str, list[int]] = {}
        self._without_ids: list[int] = []
        for number, matcher in enumerate(self.matchers):
            if matcher.items is None:
                self._without_ids.append(number)
            for item_id in matcher.items or ():
                self._by_item.setdefault(item_id, []).append(number)

    def matching(self, item_id: str, entry: RuleSubject | None) -> list[int]:
        """The numbers of the rules that are about an item, ascending."""
        by_id = self._by_item.get(item_id)
        numbers = sorted([*by_id, *self._without_ids]) if by_id else self._without_ids
        return [number for number in numbers if self.matchers[number].matches(item_id, entry)]


class CompiledRules:
    """The rules of a domain over the items of a release, or over none.

    `rules` are numbered in their order; `active` are the numbers of those that apply now to anyone. `factor`, float32
    [items], and `excluded`, int64 (indices), combine those that apply now to everyone; None where there are none.
    `index` may grow into places that exist already. Changed on the event loop; read from any thread.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        item_ids: Sequence[str],
        index: Mapping[str, int],
        entries: Mapping[str, RuleSubject],
        now_ms: int,
    ) -> None:
        self.rules = tuple(rules)
        self.index = index
        self.active: frozenset[int] = frozenset()
        self.factor: Float32 | None = None
        self.excluded: Int64 | None = None
        self.changes_scores = False
        self._by_id = RuleIndex(rules)
        self._log_factor: Float32 | None = None
        self._conditional: tuple[int, ...] = ()
        self._is_excluded: Bool = np.zeros(len(item_ids), np.bool_)
        self._bits = np.zeros(((len(rules) + 7) // 8, len(item_ids)), np.uint8)
        self._places: dict[int, tuple[int, Int64]] = {}
        self._by_user: dict[tuple[str | None, str], tuple[frozenset[int], frozenset[int]]] = {}
        self._spans = np.array([rule.span() for rule in rules], np.int64).reshape(-1, 2)
        self._is_active: Bool = np.zeros(len(rules), np.bool_)
        self._version = 0
        columns = AttributeColumns(item_ids, entries)
        for number, matcher in enumerate(self._by_id.matchers):
            self._bits[number >> 3, columns.matching(matcher, index)] |= np.uint8(1 << (number & 7))
        self.tick(now_ms)

    def tick(self, now_ms: int) -> bool:
        """Let rules begin and end; whether any did."""
        is_active = (self._spans[:, 0] <= now_ms) & (now_ms < self._spans[:, 1])
        if np.array_equal(is_active, self._is_active):
            return False
        self._is_active, self.active = is_active, frozenset(np.flatnonzero(is_active).tolist())
        self._combine()
        return True

    def update_item(self, item_id: str, entry: RuleSubject | None) -> None:
        """Match an item that changed again."""
        place = self.index.get(item_id)
        if place is None:
            return
        column = np.zeros(len(self._bits), np.uint8)
        for number in self._by_id.matching(item_id, entry):
            column[number >> 3] |= np.uint8(1 << (number & 7))
        if (column == self._bits[:, place]).all():
            return
        self._bits[:, place] = column
        self._version += 1
        self._combine_item(place)

    def places(self, number: int) -> Int64:
        """int64: the indices of the items that a rule is about, ascending."""
        version, (cached, places) = self._version, self._places.get(number, (-1, _NO_PLACES))
        if cached != version:
            places = np.flatnonzero(self._bits[number >> 3] & (1 << (number & 7)))
            self._places[number] = (version, places)
        return places

    def matching(self, item_id: str, entry: RuleSubject | None) -> list[int]:
        """The numbers of the rules that are about an item, ascending, active or not."""
        place = self.index.get(item_id)
        if place is None:
            return self._by_id.matching(item_id, entry)
        bits = self._bits[:, place]
        if not bits.any():
            return []
        return np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist()

    def matches(self, number: int, item_id: str, entry: RuleSubject | None) -> bool:
        """Whether a rule is about an item."""
        place = self.index.get(item_id)
        if place is None:
            return self._by_id.matchers[number].matches(item_id, entry)
        return bool(self._bits[number >> 3, place] & (1 << (number & 7)))

    def matching_each(self, item_ids: Sequence[str], entries: Mapping[str, RuleSubject]) -> list[list[int]]:
        """`matching` for several items at once."""
        places = [self.index.get(item_id, -1) for item_id in item_ids]
        numbers: list[list[int]] = [[] for _ in places]
        known = [position for position, place in enumerate(places) if place >= 0]
        bits = self._bits[:, [places[position] for position in known]]
        if bits.any():
            rows, columns = np.nonzero(np.unpackbits(bits, axis=0, bitorder="little").T)
            for row, number in zip(rows.tolist(), columns.tolist(), strict=True):
                numbers[known[row]].append(number)
        for position, place in enumerate(places):
            if place < 0:
                item_id = item_ids[position]
                numbers[position] = self._by_id.matching(item_id, entries.get(item_id))
        return numbers

    def active_for(self, segment: str | None, subject: str) -> frozenset[int]:
        """The numbers of the rules that apply now to a user of a segment; `subject` names the user or the request."""
        if not self._conditional:
            return self.active
        active, cached = self.active, self._by_user.get((segment, subject))
        if cached is None or cached[0] is not active:
            others = {number for number in self._conditional if not self.rules[number].meant_for(segment, subject)}
            cached = (active, active - others)
            if len(self._by_user) >= CACHED_USERS:
                self._by_user = {}
            self._by_user[segment, subject] = cached
        return cached[1]

    def apply(self, scores: Float32, active: frozenset[int], logits: bool) -> None:
        """Weight the scores, float32 [items], in place, for a user to whom the rules `active` apply."""
        if self.factor is not None and self._log_factor is not None:
            multiply_scores(scores, self.factor, self._log_factor, logits)
        if self.excluded is not None:
            scores[self.excluded] = -np.inf
        for number in self._conditional:
            if number in active:
                rule = self.rules[number]
                if rule.action in SCORING_ACTIONS:
                    places, factor = self.places(number), np.float32(rule.factor or 1.0)
                    weighted = scores[places]
                    multiply_scores(weighted, factor, np.log(factor), logits)
                    scores[places] = weighted
                elif rule.action == "exclude":
                    scores[self.places(number)] = -np.inf

    def _combine(self) -> None:
        """Combine the rules that apply to everyone."""
        items = self._bits.shape[1]
        self._conditional = tuple(sorted(number for number in self.active if self.rules[number].conditional))
        for_everyone = [number for number in self.active if not self.rules[number].conditional]
        self.changes_scores = any(self.rules[number].action in SCORING_ACTIONS for number in self.active)
        factor: Float32 | None = None
        is_excluded = np.zeros(items, np.bool_)
        for number in for_everyone:
            rule = self.rules[number]
            if rule.action in SCORING_ACTIONS:
                factor = np.ones(items, np.float32) if factor is None else factor
                factor[self.places(number)] *= np.float32(rule.factor or 1.0)
            elif rule.action == "exclude":
                is_excluded[self.places(number)] = True
        self.factor, self._log_factor = factor, np.log(factor) if factor is not None else None
        self._is_excluded = is_excluded
        self.excluded = np.flatnonzero(is_excluded) if is_excluded.any() else None

    def _combine_item(self, place: int) -> None:
        numbers = np.flatnonzero(np.unpackbits(self._bits[:, place], bitorder="little")).tolist()
        rules = [self.rules[number] for number in numbers if number in self.active]
        rules = [rule for rule in rules if not rule.conditional]
        factors = [rule.factor or 1.0 for rule in rules if rule.action in SCORING_ACTIONS]
        items = self._bits.shape[1]
        if factors and self.factor is None:
            self.factor, self._log_factor = np.ones(items, np.float32), np.zeros(items, np.float32)
        if self.factor is not None and self._log_factor is not None:
            self.factor[place] = np.prod(factors, dtype=np.float32)
            self._log_factor[place] = np.log(self.factor[place])
        is_excluded = any(rule.action == "exclude" for rule in rules)
        if is_excluded != bool(self._is_excluded[place]):
            self._is_excluded[place] = is_excluded
            self.excluded = np.flatnonzero(self._is_excluded) if self._is_excluded.any() else None


class AttributeColumn:
    """An attribute of every item: `codes` int32 [items] into its different `values`."""

    def __init__(self, entries: Sequence[RuleSubject | None], name: str) -> None:
        self._code_of: dict[object, int] = {}
        self.values: list[Value] = []
        self.codes = np.zeros(len(entries), np.int32)
        self._lists: list[int] = []
        for place, entry in enumerate(entries):
            value = entry.value_of(name) if entry is not None else None
            key = value if isinstance(value, str) else (type(value), tuple(value) if isinstance(value, list) else value)
            code = self._code_of.get(key)
            if code is None:
                code = self._code_of[key] = len(self.values)
                self.values.append(value)
                if isinstance(value, list):
                    self._lists.append(code)
            self.codes[place] = code

    def matching(self, test: ConditionMatcher) -> Bool:
        """bool [items]: where a condition holds. Each different value is tested once; of a condition that names texts,
        only those texts and the lists are."""
        holds = np.zeros(len(self.values), np.bool_)
        named = test.named
        codes: Iterable[int] = range(len(self.values))
        if named is not None and all(isinstance(value, str) for value in named):
            codes = [*(self._code_of[value] for value in named if value in self._code_of), *self._lists]
        for code in codes:
            holds[code] = test.holds(self.values[code])
        return holds[self.codes]


class AttributeColumns:
    """The attributes of items as columns, each built when a rule asks for it."""

    def __init__(self, item_ids: Sequence[str], entries: Mapping[str, RuleSubject]) -> None:
        self._entries = [entries.get(item_id) for item_id in item_ids]
        self._columns: dict[str, AttributeColumn] = {}

    def matching(self, matcher: RuleMatcher, index: Mapping[str, int]) -> Int64:
        """int64: the indices of the items that a rule is about."""
        if matcher.items is not None:
            places = sorted(index[item_id] for item_id in matcher.items if item_id in index)
            return np.array([place for place in places if self._all_hold(matcher, place)], np.int64)
        mask = np.ones(len(self._entries), np.bool_)
        for name, test in matcher.tests:
            if name not in self._columns:
                self._columns[name] = AttributeColumn(self._entries, name)
            mask &= self._columns[name].matching(test)
        return np.flatnonzero(mask)

    def _all_hold(self, matcher: RuleMatcher, place: int) -> bool:
        entry = self._entries[place]
        return all(test.holds(entry.value_of(name) if entry is not None else None) for name, test in matcher.tests)


def multiply_scores(
    scores: Float32, factor: Float32 | np.float32, log_factor: Float32 | np.float32, logits: bool
) -> None:
    """Multiply in place what scores stand for, by a factor with its logarithm.

    Logits get the logarithm added, so that shares are multiplied; another score below zero is divided, so that a boost
    never lowers.
    """
    if logits:
        scores += log_factor
        return
    below = np.isfinite(scores) & (scores < 0) if scores.min(initial=0.0) < 0 else None
    if below is not None and below.any():
        factor = np.where(below, 1 / factor, factor)
    scores *= factor
