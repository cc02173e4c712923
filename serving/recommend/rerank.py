"""Re-ranking: from ranked candidates to a list with pins, limits by category, diversity, fallbacks and exploration."""

from collections.abc import Iterator, Sequence
from math import nan
from typing import Final

import msgspec
import numpy as np

from models.arrays import Float32, Int32
from models.rerank.diversity import CategoryLimits, by_relevance, dpp, mmr, similarity
from models.rerank.exploration import explore, seed_from
from serving.catalogue.release_view import ReleaseView
from serving.recommend.active_rules import ActiveRules, Candidates, ItemFilter
from serving.rules.rule import Rule

Fallbacks = Iterator[tuple[str, str]]
"""Items that fill a list up, each with its reason, best first."""

_NO_NEIGHBORS: Final = np.zeros((0, 0), np.int32)
_NO_SIMILARITIES: Final = np.zeros((0, 0), np.float32)
NEW_ITEMS_PER_SLOT: Final = 2
"""For every slot that explores, at most so many new items may be drawn."""


class RankedItem(msgspec.Struct, frozen=True):
    """An item on its way into the list. `rule` pinned it; `propensity` is there when the answer explores."""

    item_id: str
    score: float
    reason: str
    rule: str | None = None
    propensity: float | None = None


class RerankOptions(msgspec.Struct, frozen=True):
    """How a list of `n` items is re-ranked."""

    n: int
    diversity: float = 0.0
    floor: CategoryLimits = CategoryLimits()
    explore: float = 0.0
    request_id: str = ""
    by_determinant: bool = False

    @property
    def diversifies(self) -> bool:
        """Whether the order depends on more than the scores."""
        return self.diversity > 0 or self.floor != CategoryLimits()


def pinned_items(rules: ActiveRules, candidates: Candidates, allowed: ItemFilter, n: int) -> dict[int, RankedItem]:
    """Pinned items by position: pins take their positions in order, an occupied one gives the next free one.

    A pin of named items places them one after another; one of a category or another attribute places the best
    candidate that it is about, else the first such item of the catalogue.
    """
    by_position: dict[int, RankedItem] = {}
    placed: set[str] = set()
    scores = dict(candidates)
    for rule in rules.pins():
        position = rule.position or 1
        for item_id in _items_of_pin(rules, rule, candidates, allowed):
            while position in by_position:
                position += 1
            if position > n or item_id in placed:
                break
            by_position[position] = RankedItem(item_id, scores.get(item_id, 0.0), "pinned", rule.id)
            placed.add(item_id)
            position += 1
    return by_position


def rerank(
    rules: ActiveRules,
    options: RerankOptions,
    candidates: Candidates,
    fallbacks: Fallbacks,
    allowed: ItemFilter,
    pins: dict[int, RankedItem],
    pool_size: int,
) -> list[RankedItem]:
    """The list, best first. `pool_size` is how many candidates it may be chosen from."""
    placed = {item.item_id for item in pins.values()}
    weighted = rules.reweighted(candidates)
    pool = [RankedItem(item_id, score, "personal") for item_id, score in weighted if item_id not in placed]
    if len(pool) < pool_size:
        pool += _filled(rules, pool, placed, fallbacks, allowed, pool_size - len(pool))
    free = max(0, options.n - len(pins))
    chosen = _diversified(rules, options, pool, pins, free) if options.diversifies else pool[:free]
    items = _with_pins(chosen, pins, options.n)
    return _explored(rules, options, items, pool, allowed) if options.explore > 0 else items


def unmet_limits(rules: ActiveRules, floor: CategoryLimits, item_ids: Sequence[str], n: int) -> list[str]:
    """The limits that a list does not keep, by name, and `n` where keeping them left it short."""
    codes = _category_codes(rules, item_ids)
    limits = {
        "per_category": CategoryLimits(per_category=floor.per_category),
        "categories": CategoryLimits(categories=floor.categories),
    }
    return [name for name, limit in limits.items() if not limit.met(codes)] + (["n"] if len(item_ids) < n else [])


def _items_of_pin(rules: ActiveRules, rule: Rule, candidates: Candidates, allowed: ItemFilter) -> list[str]:
    matches = rules.matcher(rule)
    if rule.items:
        return [item_id for item_id in rule.items if matches(item_id) and allowed(item_id)]
    ranked = [item_id for item_id, _ in candidates if matches(item_id)]
    category, domain = rule.where.get("category"), rules.domain
    others = list(domain.items_by_category.get(category, ())) if isinstance(category, str) else list(domain.items)
    for item_id in ranked or (other for other in others if matches(other)):
        if allowed(item_id):
            return [item_id]
    return []


def _filled(
    rules: ActiveRules,
    pool: Sequence[RankedItem],
    placed: set[str],
    fallbacks: Fallbacks,
    allowed: ItemFilter,
    missing: int,
) -> list[RankedItem]:
    """Fallbacks for the missing candidates, in the order that boosts and buries give them."""
    known = placed | {item.item_id for item in pool}
    items: list[RankedItem] = []
    limit = 3 * missing if rules.changes_scores else missing
    for item_id, reason in fallbacks:
        if item_id not in known and allowed(item_id):
            known.add(item_id)
            items.append(RankedItem(item_id, 0.0, reason))
            if len(items) == limit:
                break
    if rules.changes_scores:
        weights = {item.item_id: rules.factor(item.item_id) / (rank + 1) for rank, item in enumerate(items)}
        items.sort(key=lambda item: -weights[item.item_id])
    return items[:missing]


def _diversified(
    rules: ActiveRules, options: RerankOptions, pool: Sequence[RankedItem], pins: dict[int, RankedItem], free: int
) -> list[RankedItem]:
    item_ids = [item.item_id for item in pool]
    codes = _category_codes(rules, item_ids)
    pinned_codes = _category_codes(rules, [item.item_id for item in pins.values()])
    scores = [item.score for item in pool if item.reason == "personal"]
    unscored = len(pool) - len(scores)
    below = 1 - np.arange(unscored, dtype=np.float32) / max(1, unscored)
    relevance = np.concatenate([by_relevance(np.array(scores, np.float32)), below - 1 if scores else below])
    alike = _similarity(rules, item_ids, codes) if options.diversity > 0 else None
    diversity = options.diversity
    if alike is not None and options.by_determinant:  # the limits are then kept in its order
        order = dpp(relevance, alike, min(len(pool), 2 * free), diversity)
        relevance = np.zeros(len(pool), np.float32)
        relevance[order] = np.arange(len(order), 0, -1, dtype=np.float32)
        diversity, alike = 0.0, None
    chosen = mmr(relevance.astype(np.float32), alike, codes, free, diversity, options.floor, pinned_codes)
    return [pool[number] for number in chosen]


def _similarity(rules: ActiveRules, item_ids: Sequence[str], codes: Int32) -> Float32:
    """float32 [items, items] in 0..1."""
    view = rules.view
    if not isinstance(view, ReleaseView):
        places = np.full(len(item_ids), -1)
        return similarity(_NO_NEIGHBORS, _NO_SIMILARITIES, places, codes, np.full(1, -1, np.int32))
    index = view.release.index
    places = np.array([index.get(item_id, -1) for item_id in item_ids], np.int64)
    return similarity(*view.release.neighbors, places, codes, view.items.scratch)


def _category_codes(rules: ActiveRules, item_ids: Sequence[str]) -> Int32:
    """int32 [items], -1 without a category."""
    items, codes = rules.domain.items, rules.domain.category_codes
    known = [items.get(item_id) for item_id in item_ids]
    return np.array([codes.get(item.category, -1) if item and item.category else -1 for item in known], np.int32)


def _with_pins(chosen: Sequence[RankedItem], pins: dict[int, RankedItem], n: int) -> list[RankedItem]:
    if not pins:
        return list(chosen)
    rest = iter(chosen)
    items: list[RankedItem] = []
    for position in range(1, n + 1):
        item = pins.get(position) or next(rest, None)
        if item is not None:
            items.append(item)
    return items


def _explored(
    rules: ActiveRules,
    options: RerankOptions,
    items: list[RankedItem],
    pool: Sequence[RankedItem],
    allowed: ItemFilter,
) -> list[RankedItem]:
    """Slots that explore show an item of their own pool instead: every k-th of the candidates not chosen, and of the
    new items.

    With a limit by category, only items of the category of the slot's item, so that no draw breaks it.
    """
    slots = [slot for slot, item in enumerate(items) if slot and item.rule is None]
    shown = {item.item_id for item in items}
    rest = [item for item in pool if item.item_id not in shown]
    known = shown | {item.item_id for item in rest}
    newest = rules.view.new_items[: NEW_ITEMS_PER_SLOT * len(slots)]
    rest += [RankedItem(item_id, 0.0, "new") for item_id in newest if item_id not in known and allowed(item_id)]
    pools: list[list[RankedItem]] = []
    for number, slot in enumerate(slots):
        own = rest[number :: len(slots)]
        if options.floor != CategoryLimits():
            category = rules.domain.category_of(items[slot].item_id)
            own = [item for item in own if rules.domain.category_of(item.item_id) == category]
        pools.append(own)
    scores = [[item.score if item.reason == "personal" else nan for item in own] for own in pools]
    draws = explore(scores, rules.view.logits, options.explore, np.random.default_rng(seed_from(options.request_id)))
    explored = [msgspec.structs.replace(item, propensity=1.0) for item in items]
    for slot, own, draw in zip(slots, pools, draws, strict=True):
        if draw.place is None:
            explored[slot] = msgspec.structs.replace(explored[slot], propensity=draw.propensity)
        else:
            item = own[draw.place]
            explored[slot] = RankedItem(item.item_id, item.score, "explored", None, draw.propensity)
    return explored
