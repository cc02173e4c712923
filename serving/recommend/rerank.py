"""From ranked candidates to a list: pins, floors and diversity, fills, exploration."""

from collections.abc import Callable, Iterator, Sequence
from math import log, nan, prod
from typing import Final

import msgspec
import numpy as np

from models.arrays import Int32
from models.rerank.diversity import Floor, by_relevance, dpp, mmr, similarity
from models.rerank.exploration import explore, seed_of
from serving.catalogue.domain import Aligned, Domain
from serving.rules.compiled import SCORED, Plan
from serving.rules.rule import Rule

Ranked = Sequence[tuple[str, float]]
Offered = Iterator[tuple[str, str]]
"""Items with the reason for which they fill a list, best first."""

_NO_NEAR: Final = np.zeros((0, 0), np.int32)
_NO_AMOUNTS: Final = np.zeros((0, 0), np.float32)
NEW_SHARE: Final = 2
"""For every slot that explores, so many new items at most are among what may be drawn."""


class Chosen(msgspec.Struct, frozen=True):
    """An item on its way into the list. `rule` pinned it; `propensity` is there when the answer explores."""

    item_id: str
    value: float
    reason: str
    rule: str | None = None
    propensity: float | None = None


class Wish(msgspec.Struct, frozen=True):
    """What a list shall be like beyond its order."""

    n: int
    diversity: float = 0.0
    floor: Floor = Floor()
    explore: float = 0.0
    request_id: str = ""
    by_determinant: bool = False

    @property
    def spread(self) -> bool:
        return self.diversity > 0 or self.floor != Floor()


class House:
    """What the rules say, for one look-up: the standing ones that hold for its user, and those that came with it."""

    def __init__(
        self, domain: Domain, aligned: Aligned | None, segment: str | None, who: str, inline: Sequence[Rule] = ()
    ) -> None:
        self.domain = domain
        self.aligned = aligned
        self.compiled = domain.rules_over(aligned)
        self.holding = self.compiled.holding(segment, who) if self.compiled is not None else frozenset()
        now = domain.clock()
        self.inline = Plan([one for one in inline if one.valid_at(now) and one.meant_for(segment, who)])

    def standing(self, item_id: str) -> list[Rule]:
        """The standing rules about an item."""
        if self.compiled is None:
            return []
        found = self.compiled.matching(item_id, self.domain.entries.get(item_id))
        return [self.compiled.source[one] for one in found if one in self.holding]

    def own(self, item_id: str) -> list[Rule]:
        """The request's own rules about an item."""
        if not self.inline.rules:
            return []
        found = self.inline.matching(item_id, self.domain.entries.get(item_id))
        return [self.inline.rules[one].rule for one in found]

    def teller(self, rule: Rule) -> Callable[[str], bool]:
        """Whether one of the rules is about an item."""
        entries, compiled = self.domain.entries, self.compiled
        if compiled is not None and rule in compiled.source:
            number = compiled.source.index(rule)
            return lambda item: compiled.is_about(number, item, entries.get(item))
        readied = next(one for one in self.inline.rules if one.rule == rule)
        return lambda item: readied.about(item, entries.get(item))

    def about(self, item_ids: Sequence[str]) -> list[list[Rule]]:
        """Every rule about each of some items."""
        own = [self.own(one) for one in item_ids]
        if self.compiled is None:
            return own
        found = self.compiled.about(item_ids, self.domain.entries)
        source = self.compiled.source
        return [
            [source[one] for one in row if one in self.holding] + mine for row, mine in zip(found, own, strict=True)
        ]

    def excludes(self, item_id: str) -> bool:
        """Whether a rule keeps an item out."""
        return any(one.action == "exclude" for one in [*self.standing(item_id), *self.own(item_id)])

    def factor(self, item_id: str) -> float:
        """What all rules together multiply an item's score with, for items that no release scored."""
        return prod(one.factor for one in self.standing(item_id) + self.own(item_id) if one.factor)

    @property
    def scored(self) -> bool:
        """Whether any rule boosts or buries."""
        own = any(one.rule.action in SCORED for one in self.inline.rules)
        return own or (self.compiled is not None and self.compiled.scored)

    def reweighed(self, ranked: Ranked) -> list[tuple[str, float]]:
        """What the release ranked, in the order that the request's own rules give it; without what they exclude."""
        if not self.inline.rules:
            return list(ranked)
        logits = self.aligned is not None and self.aligned.logits
        kept: list[tuple[str, float]] = []
        for item, value in ranked:
            mine = self.own(item)
            if any(one.action == "exclude" for one in mine):
                continue
            factor = prod(one.factor for one in mine if one.factor)
            weighed = value + log(factor) if logits else value * factor if value > 0 else value / factor
            kept.append((item, weighed))
        return sorted(kept, key=lambda pair: -pair[1])

    def pins(self) -> list[Rule]:
        """The pins that hold, by position, then as they stand."""
        standing = [self.compiled.source[one] for one in sorted(self.holding)] if self.compiled is not None else []
        every = [*standing, *(one.rule for one in self.inline.rules)]
        return sorted((one for one in every if one.action == "pin"), key=lambda one: one.position or 1)

    def excluding(self) -> list[str]:
        """The ids of the exclusions that hold for this look-up and are about anything."""
        found = [one.rule.id for one in self.inline.rules if one.rule.action == "exclude"]
        compiled = self.compiled
        if compiled is None:
            return found
        acting = [one for one in sorted(self.holding) if compiled.source[one].action == "exclude"]
        return [compiled.source[one].id for one in acting if not compiled.index or len(compiled.places(one))] + found


def pinned(house: House, ranked: Ranked, allowed: "Allowed", n: int) -> dict[int, Chosen]:
    """What stands where: pins take their place in order, a taken place gives the next free one.

    A pin of named items places them one after another; one of a category or another attribute places the best ranked
    item that it is about, else the first of the catalogue.
    """
    placed: dict[int, Chosen] = {}
    there: set[str] = set()
    values = dict(ranked)
    for rule in house.pins():
        position = rule.position or 1
        for item in _pinned_by(house, rule, ranked, allowed):
            while position in placed:
                position += 1
            if position > n or item in there:
                break
            placed[position] = Chosen(item, values.get(item, 0.0), "pinned", rule.id)
            there.add(item)
            position += 1
    return placed


class Allowed:
    """Whether an item may stand in a list at all, whatever its rank."""

    def __init__(self, house: House, category: str | None, barred: frozenset[str], only: frozenset[str] | None) -> None:
        self._house, self._domain = house, house.domain
        self._category, self._barred, self._only = category, barred, only
        self._rules = house.compiled is not None or bool(house.inline.rules)

    def __call__(self, item_id: str) -> bool:
        domain = self._domain
        if item_id in self._barred or not domain.offers(item_id):
            return False
        if self._category is not None and domain.category_of(item_id) != self._category:
            return False
        if self._only is not None and item_id not in self._only:
            return False
        return not (self._rules and self._house.excludes(item_id))


def compose(
    house: House, wish: Wish, ranked: Ranked, offered: Offered, allowed: Allowed, pins: dict[int, Chosen], size: int
) -> list[Chosen]:
    """The list, best first. `size` is how many candidates it may be chosen from."""
    there = {one.item_id for one in pins.values()}
    pool = [Chosen(item, value, "personal") for item, value in house.reweighed(ranked) if item not in there]
    if len(pool) < size:
        pool += _fills(house, pool, there, offered, allowed, size - len(pool))
    free = max(0, wish.n - len(pins))
    first = _spread(house, wish, pool, pins, free) if wish.spread else pool[:free]
    listed = _laid_out(first, pins, wish.n)
    return _explored(house, wish, listed, pool, allowed) if wish.explore > 0 else listed


def broken(house: House, floor: Floor, items: Sequence[str], n: int) -> list[str]:
    """What a list does not keep: the names of floors, and `n` where keeping them left it short."""
    codes = _codes(house, items)
    single = {"per_category": Floor(per_category=floor.per_category), "categories": Floor(categories=floor.categories)}
    return [name for name, one in single.items() if not one.met(codes)] + (["n"] if len(items) < n else [])


def _pinned_by(house: House, rule: Rule, ranked: Ranked, allowed: Allowed) -> list[str]:
    about = house.teller(rule)
    if rule.items:
        return [item for item in rule.items if about(item) and allowed(item)]
    best = [item for item, _ in ranked if about(item)]
    category = rule.where.get("category")
    beside = list(house.domain.members.get(category, ())) if isinstance(category, str) else list(house.domain.entries)
    for item in best or (one for one in beside if about(one)):
        if allowed(item):
            return [item]
    return []


def _fills(
    house: House, pool: Sequence[Chosen], there: set[str], offered: Offered, allowed: Allowed, wanted: int
) -> list[Chosen]:
    have = there | {one.item_id for one in pool}
    found: list[Chosen] = []
    most = 3 * wanted if house.scored else wanted
    for item, reason in offered:
        if item not in have and allowed(item):
            have.add(item)
            found.append(Chosen(item, 0.0, reason))
            if len(found) == most:
                break
    if house.scored:
        weight = {one.item_id: house.factor(one.item_id) / (rank + 1) for rank, one in enumerate(found)}
        found.sort(key=lambda one: -weight[one.item_id])
    return found[:wanted]


def _spread(house: House, wish: Wish, pool: Sequence[Chosen], pins: dict[int, Chosen], free: int) -> list[Chosen]:
    items = [one.item_id for one in pool]
    codes, taken = _codes(house, items), _codes(house, [one.item_id for one in pins.values()])
    scored = [one.value for one in pool if one.reason == "personal"]
    rest = len(pool) - len(scored)
    below = 1 - np.arange(rest, dtype=np.float32) / max(1, rest)
    relevance = np.concatenate([by_relevance(np.array(scored, np.float32)), below - 1 if scored else below])
    alike = None
    if wish.diversity > 0:
        aligned = house.aligned
        if aligned is None:
            alike = similarity(_NO_NEAR, _NO_AMOUNTS, np.full(len(items), -1), codes, np.full(1, -1, np.int32))
        else:
            index = aligned.release.index
            places = np.array([index.get(one, -1) for one in items], np.int64)
            alike = similarity(*aligned.release.neighbours, places, codes, aligned.scratch)
    diversity = wish.diversity
    if alike is not None and wish.by_determinant:  # its order is what the floor is kept in
        first = dpp(relevance, alike, min(len(pool), 2 * free), diversity)
        relevance = np.zeros(len(pool), np.float32)
        relevance[first] = np.arange(len(first), 0, -1, dtype=np.float32)
        diversity, alike = 0.0, None
    chosen = mmr(relevance.astype(np.float32), alike, codes, free, diversity, wish.floor, taken)
    return [pool[one] for one in chosen]


def _codes(house: House, items: Sequence[str]) -> Int32:
    entries, codes = house.domain.entries, house.domain.codes
    found = [codes.get(one.category, -1) if (one := entries.get(item)) and one.category else -1 for item in items]
    return np.array(found, np.int32)


def _laid_out(first: Sequence[Chosen], pins: dict[int, Chosen], n: int) -> list[Chosen]:
    if not pins:
        return list(first)
    rest = iter(first)
    listed: list[Chosen] = []
    for position in range(1, n + 1):
        one = pins.get(position) or next(rest, None)
        if one is not None:
            listed.append(one)
    return listed


def _explored(house: House, wish: Wish, listed: list[Chosen], pool: Sequence[Chosen], allowed: Allowed) -> list[Chosen]:
    """Slots that explore show an item of their own pool instead: every k-th of what was not chosen, and of what is new.

    With a floor, only items of the category that stands in the slot anyway, so that no draw breaks it.
    """
    slots = [place for place, one in enumerate(listed) if place and one.rule is None]
    shown = {one.item_id for one in listed}
    tail = [one for one in pool if one.item_id not in shown]
    fresh = house.aligned.newest if house.aligned is not None else ()
    known = shown | {one.item_id for one in tail}
    new = [Chosen(item, 0.0, "new") for item in fresh[: NEW_SHARE * len(slots)] if item not in known and allowed(item)]
    tail += new
    pools: list[list[Chosen]] = []
    for number, place in enumerate(slots):
        mine = tail[number :: len(slots)]
        if wish.floor != Floor():
            category = house.domain.category_of(listed[place].item_id)
            mine = [one for one in mine if house.domain.category_of(one.item_id) == category]
        pools.append(mine)
    logits = house.aligned is not None and house.aligned.logits
    scores = [[one.value if one.reason == "personal" else nan for one in mine] for mine in pools]
    drawn = explore(scores, logits, wish.explore, np.random.default_rng(seed_of(wish.request_id)))
    out = [msgspec.structs.replace(one, propensity=1.0) for one in listed]
    for place, mine, one in zip(slots, pools, drawn, strict=True):
        if one.place is None:
            out[place] = msgspec.structs.replace(out[place], propensity=one.propensity)
        else:
            new_one = mine[one.place]
            out[place] = Chosen(new_one.item_id, new_one.value, "explored", None, one.propensity)
    return out
