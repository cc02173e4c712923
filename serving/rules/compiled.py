"""Rules as arrays over a release's items: a look-up multiplies and masks, whatever the rules are about.

What a rule is about is found attribute by attribute when rules change, in another thread; one item that changes is
looked at by itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec
import numpy as np

from models.arrays import Bool, Float32, Int64
from serving.rules.rule import Condition, Rule, Value

HELD: Final = 64
SCORED: Final = frozenset({"boost", "bury"})
_NONE: Final = np.zeros(0, np.int64)


class Described(Protocol):
    """What the catalogue says of an item."""

    def value_of(self, name: str) -> Value:
        """Its category, title or an attribute; None where there is none."""


class Readied(msgspec.Struct, frozen=True):
    """A rule with its tests and its items ready to be asked."""

    rule: Rule
    items: frozenset[str] | None
    tests: tuple[tuple[str, Condition], ...]

    @classmethod
    def of(cls, rule: Rule) -> "Readied":
        return cls(rule, frozenset(rule.items) if rule.items else None, tuple(rule.tests().items()))

    def about(self, item_id: str, entry: Described | None) -> bool:
        """Whether the rule is about an item; None for one that the catalogue does not name."""
        if self.items is not None and item_id not in self.items:
            return False
        return all(test.holds(entry.value_of(name) if entry is not None else None) for name, test in self.tests)


class Plan:
    """Rules that can be held against single items: those about items by id are found at once."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(Readied.of(one) for one in rules)
        self._by_item: dict[str, list[int]] = {}
        self._general: list[int] = []
        for number, one in enumerate(self.rules):
            if one.items is None:
                self._general.append(number)
            for item in one.items or ():
                self._by_item.setdefault(item, []).append(number)

    def matching(self, item_id: str, entry: Described | None) -> list[int]:
        """The numbers of the rules that are about an item, ascending."""
        asked = self._by_item.get(item_id)
        numbers = sorted([*asked, *self._general]) if asked else self._general
        return [one for one in numbers if self.rules[one].about(item_id, entry)]


class Compiled:
    """The rules of a domain over the items of a release, or over none.

    `factor` float32 [items] and `barred` int64 (indices) are what the rules that hold now for everyone come to; None
    where there are none. `index` may grow into places that are there already. Changed on the event loop; read from any
    thread.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        item_ids: Sequence[str],
        index: Mapping[str, int],
        entries: Mapping[str, Described],
        now_ms: int,
    ) -> None:
        self.source = tuple(rules)
        self.plan = Plan(rules)
        self.index = index
        self.live: frozenset[int] = frozenset()
        self.factor: Float32 | None = None
        self._logs: Float32 | None = None
        self._conditional: tuple[int, ...] = ()
        self._barred: Bool = np.zeros(len(item_ids), np.bool_)
        self.barred: Int64 | None = None
        self.scored = False
        self._bits = np.zeros(((len(rules) + 7) // 8, len(item_ids)), np.uint8)
        self._places: dict[int, tuple[int, Int64]] = {}
        self._held: dict[tuple[str | None, str], tuple[frozenset[int], frozenset[int]]] = {}
        self._spans = np.array([one.span() for one in rules], np.int64).reshape(-1, 2)
        self._holds: Bool = np.zeros(len(rules), np.bool_)
        self._version = 0
        columns = Columns(item_ids, entries)
        for number, one in enumerate(self.plan.rules):
            self._bits[number >> 3, columns.matching(one, index)] |= np.uint8(1 << (number & 7))
        self.tick(now_ms)

    def tick(self, now_ms: int) -> bool:
        """Follow the time: rules begin and end. Whether anything did."""
        holds = (self._spans[:, 0] <= now_ms) & (now_ms < self._spans[:, 1])
        if np.array_equal(holds, self._holds):
            return False
        self._holds, self.live = holds, frozenset(np.flatnonzero(holds).tolist())
        self._combine()
        return True

    def change(self, item_id: str, entry: Described | None) -> None:
        """Follow the newest word on an item."""
        place = self.index.get(item_id)
        if place is None:
            return
        column = np.zeros(len(self._bits), np.uint8)
        for number in self.plan.matching(item_id, entry):
            column[number >> 3] |= np.uint8(1 << (number & 7))
        if (column == self._bits[:, place]).all():
            return
        self._bits[:, place] = column
        self._version += 1
        self._combine_one(place)

    def places(self, number: int) -> Int64:
        """int64: the items that a rule is about, ascending."""
        version, (kept, found) = self._version, self._places.get(number, (-1, _NONE))
        if kept != version:
            found = np.flatnonzero(self._bits[number >> 3] & (1 << (number & 7)))
            self._places[number] = (version, found)
        return found

    def matching(self, item_id: str, entry: Described | None) -> list[int]:
        """The numbers of the rules that are about an item, ascending, whether they hold now or not."""
        place = self.index.get(item_id)
        if place is None:
            return self.plan.matching(item_id, entry)
        bits = self._bits[:, place]
        if not bits.any():
            return []
        return np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist()

    def is_about(self, number: int, item_id: str, entry: Described | None) -> bool:
        """Whether a rule is about an item."""
        place = self.index.get(item_id)
        if place is None:
            return self.plan.rules[number].about(item_id, entry)
        return bool(self._bits[number >> 3, place] & (1 << (number & 7)))

    def about(self, item_ids: Sequence[str], entries: Mapping[str, Described]) -> list[list[int]]:
        """`matching` for several items at once."""
        places = [self.index.get(one, -1) for one in item_ids]
        found: list[list[int]] = [[] for _ in places]
        known = [number for number, place in enumerate(places) if place >= 0]
        bits = self._bits[:, [places[one] for one in known]]
        if bits.any():
            rows, columns = np.nonzero(np.unpackbits(bits, axis=0, bitorder="little").T)
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
                found[known[row]].append(column)
        for number, place in enumerate(places):
            if place < 0:
                found[number] = self.plan.matching(item_ids[number], entries.get(item_ids[number]))
        return found

    def holding(self, segment: str | None, who: str) -> frozenset[int]:
        """The numbers of the rules that hold now for a user."""
        if not self._conditional:
            return self.live
        live, held = self.live, self._held.get((segment, who))
        if held is None or held[0] is not live:  # a look-up asks several times
            away = {one for one in self._conditional if not self.source[one].meant_for(segment, who)}
            held = (live, live - away)
            if len(self._held) >= HELD:
                self._held = {}
            self._held[segment, who] = held
        return held[1]

    def apply(self, row: Float32, holding: frozenset[int], logits: bool) -> None:
        """Weigh scores float32 [items] in place, for a user for whom `holding` holds."""
        if self.factor is not None and self._logs is not None:
            weigh(row, self.factor, self._logs, logits)
        if self.barred is not None:
            row[self.barred] = -np.inf
        for number in self._conditional:
            if number in holding:
                rule = self.source[number]
                if rule.action in SCORED:
                    places, factor = self.places(number), np.float32(rule.factor or 1.0)
                    part = row[places]
                    weigh(part, factor, np.log(factor), logits)
                    row[places] = part
                elif rule.action == "exclude":
                    row[self.places(number)] = -np.inf

    def _combine(self) -> None:
        items = self._bits.shape[1]
        self._conditional = tuple(sorted(one for one in self.live if self.source[one].conditional))
        standing = [one for one in self.live if not self.source[one].conditional]
        self.scored = any(self.source[one].action in SCORED for one in self.live)
        factor: Float32 | None = None
        barred = np.zeros(items, np.bool_)
        for number in standing:
            rule = self.source[number]
            if rule.action in SCORED:
                factor = np.ones(items, np.float32) if factor is None else factor
                factor[self.places(number)] *= np.float32(rule.factor or 1.0)
            elif rule.action == "exclude":
                barred[self.places(number)] = True
        self.factor, self._logs = factor, np.log(factor) if factor is not None else None
        self._barred = barred
        self.barred = np.flatnonzero(barred) if barred.any() else None

    def _combine_one(self, place: int) -> None:
        found = np.flatnonzero(np.unpackbits(self._bits[:, place], bitorder="little")).tolist()
        mine = [self.source[one] for one in found if one in self.live and not self.source[one].conditional]
        factors = [one.factor or 1.0 for one in mine if one.action in SCORED]
        if factors and self.factor is None:
            self.factor, self._logs = (
                np.ones(self._bits.shape[1], np.float32),
                np.zeros(self._bits.shape[1], np.float32),
            )
        if self.factor is not None and self._logs is not None:
            self.factor[place] = np.prod(factors, dtype=np.float32)
            self._logs[place] = np.log(self.factor[place])
        out = any(one.action == "exclude" for one in mine)
        if out != bool(self._barred[place]):
            self._barred[place] = out
            self.barred = np.flatnonzero(self._barred) if self._barred.any() else None


class Column:
    """An attribute of every item: `codes` int32 [items] into its different `values`."""

    def __init__(self, entries: Sequence[Described | None], name: str) -> None:
        self._numbers: dict[object, int] = {}
        self.values: list[Value] = []
        self.codes = np.zeros(len(entries), np.int32)
        self._lists: list[int] = []
        for place, entry in enumerate(entries):
            value = entry.value_of(name) if entry is not None else None
            key = value if isinstance(value, str) else (type(value), tuple(value) if isinstance(value, list) else value)
            code = self._numbers.get(key)
            if code is None:
                code = self._numbers[key] = len(self.values)
                self.values.append(value)
                if isinstance(value, list):
                    self._lists.append(code)
            self.codes[place] = code

    def where(self, test: Condition) -> Bool:
        """bool [items]: where a condition holds. Each different value is tested once; of a condition that names texts,
        only those texts and lists."""
        holds = np.zeros(len(self.values), np.bool_)
        named = test.named
        codes: Iterable[int] = range(len(self.values))
        if named is not None and all(isinstance(one, str) for one in named):
            codes = [*(self._numbers[one] for one in named if one in self._numbers), *self._lists]
        for code in codes:
            holds[code] = test.holds(self.values[code])
        return holds[self.codes]


class Columns:
    """What the catalogue says of items, an attribute at a time."""

    def __init__(self, item_ids: Sequence[str], entries: Mapping[str, Described]) -> None:
        self._entries = [entries.get(one) for one in item_ids]
        self._columns: dict[str, Column] = {}

    def matching(self, one: Readied, index: Mapping[str, int]) -> Int64:
        """int64: the items that a rule is about."""
        if one.items is not None:
            places = sorted(index[item] for item in one.items if item in index)
            kept = [place for place in places if self._all_hold(one, place)]
            return np.array(kept, np.int64)
        mask = np.ones(len(self._entries), np.bool_)
        for name, test in one.tests:
            if name not in self._columns:
                self._columns[name] = Column(self._entries, name)
            mask &= self._columns[name].where(test)
        return np.flatnonzero(mask)

    def _all_hold(self, one: Readied, place: int) -> bool:
        entry = self._entries[place]
        return all(test.holds(entry.value_of(name) if entry is not None else None) for name, test in one.tests)


def weigh(scores: Float32, factor: Float32 | np.float32, logs: Float32 | np.float32, logits: bool) -> None:
    """Multiply in place what scores stand for; `logs` are the factor's logarithms.

    To logits the logarithm is added, so that shares are multiplied; another score below zero is divided, so that a
    boost never lowers.
    """
    if logits:
        scores += logs
        return
    below = np.isfinite(scores) & (scores < 0) if scores.min(initial=0.0) < 0 else None
    if below is not None and below.any():
        factor = np.where(below, 1 / factor, factor)
    scores *= factor
