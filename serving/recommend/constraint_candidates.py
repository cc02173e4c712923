"""Candidates beyond the top ones that a list needs: to keep limits by category, and for pins by attribute."""

from typing import Final

import numpy as np

from models.arrays import Float32, Int32
from models.recommenders.top_k import top_k
from models.rerank.diversity import CategoryLimits
from serving.catalogue.release_view import ReleaseView

MAX_ROUNDS: Final = 8
"""How often at most the whole catalogue is searched for items that `per_category` still allows."""

ScoresByPlace = dict[int, float]


def fallback_candidates(
    view: ReleaseView, active: frozenset[int], n: int, floor: CategoryLimits, scores: Float32, top: list[int]
) -> list[tuple[int, float]]:
    """Places and scores, best first, of items that are not among the `top` places and yet needed.

    `scores` are float32 [items], `active` the numbers of the rules that apply to the user.
    """
    needed = _for_pins(view, active, scores)
    if floor != CategoryLimits():
        categories = view.items.categories
        needed |= _for_categories(categories, floor, scores, top)
        needed |= _for_per_category(categories, floor, n, scores, [*top, *needed])
    known = set(top)
    pairs = [(place, score) for place, score in needed.items() if place not in known]
    return sorted(pairs, key=lambda pair: -pair[1])


def _for_pins(view: ReleaseView, active: frozenset[int], scores: Float32) -> ScoresByPlace:
    """The best item of each pin by attribute."""
    needed: ScoresByPlace = {}
    rules = view.rules
    for number in sorted(active) if rules is not None else ():
        if rules is not None and rules.rules[number].action == "pin" and not rules.rules[number].items:
            places = rules.places(number)
            if len(places) and scores[best := int(places[np.argmax(scores[places])])] > -np.inf:
                needed[best] = float(scores[best])
    return needed


def _for_categories(codes: Int32, floor: CategoryLimits, scores: Float32, top: list[int]) -> ScoresByPlace:
    """The best item of each further category, until there are enough of them."""
    present = np.unique(codes[top])
    missing = (floor.categories or 0) - int((present >= 0).sum())
    needed: ScoresByPlace = {}
    if missing <= 0:
        return needed
    rest = scores.copy()
    rest[np.isin(codes, present) | (codes < 0)] = -np.inf
    while missing > 0 and rest[best := int(np.argmax(rest))] > -np.inf:
        needed[best] = float(scores[best])
        rest[codes == codes[best]] = -np.inf
        missing -= 1
    return needed


def _for_per_category(codes: Int32, floor: CategoryLimits, n: int, scores: Float32, top: list[int]) -> ScoresByPlace:
    """Further items, best first, of categories that may still have some, until a list of `n` is possible."""
    limit = floor.per_category
    needed: ScoresByPlace = {}
    if limit is None:
        return needed
    rest: Float32 | None = None
    for _ in range(MAX_ROUNDS):
        present = codes[[*top, *needed]]
        categories, counts = np.unique(present[present >= 0], return_counts=True)
        if int((present < 0).sum() + np.minimum(counts, limit).sum()) >= n:
            break
        if rest is None:
            rest = scores.copy()
            rest[top] = -np.inf
        rest[np.isin(codes, categories[counts >= limit])] = -np.inf
        places, values = top_k(rest[None], n)
        pairs = zip(places[0].tolist(), values[0].tolist(), strict=True)
        further = [(place, score) for place, score in pairs if place >= 0]
        if not further:
            break
        needed |= further
        rest[[place for place, _ in further]] = -np.inf
    return needed
