"""Candidates behind the best that a list cannot do without: for a floor by category, and for pins by attribute."""

from typing import Final

import numpy as np

from models.arrays import Float32, Int32
from models.recommenders.top_k import top_k
from models.rerank.diversity import Floor
from serving.catalogue.domain import Aligned

ROUNDS: Final = 8
"""How often at most the whole catalogue is gone through again for what a floor lacks."""

Found = dict[int, float]
"""Scores by index."""


def beyond(
    aligned: Aligned, holding: frozenset[int], n: int, floor: Floor, row: Float32, places: list[int]
) -> list[tuple[int, float]]:
    """Indices and scores, best first, of items that are not among `places` and yet needed.

    `row` float32 [items] are the scores, `places` the indices of the best, `holding` the rules that hold for the user.
    """
    found = _for_pins(aligned, holding, row)
    if floor != Floor():
        found |= _categories(aligned.category, floor, row, places)
        found |= _room(aligned.category, floor, n, row, [*places, *found])
    have = set(places)
    return sorted(((top, value) for top, value in found.items() if top not in have), key=lambda pair: -pair[1])


def _for_pins(aligned: Aligned, holding: frozenset[int], row: Float32) -> Found:
    """The best item that each pin by attribute is about."""
    found: Found = {}
    rules = aligned.rules
    for number in sorted(holding) if rules is not None else ():
        if rules is not None and rules.source[number].action == "pin" and not rules.source[number].items:
            about = rules.places(number)
            if len(about) and row[top := int(about[np.argmax(row[about])])] > -np.inf:
                found[top] = float(row[top])
    return found


def _categories(codes: Int32, floor: Floor, row: Float32, places: list[int]) -> Found:
    """The best item of each further category, until there are enough of them."""
    here = np.unique(codes[places])
    lacking = (floor.categories or 0) - int((here >= 0).sum())
    found: Found = {}
    if lacking <= 0:
        return found
    rest = row.copy()
    rest[np.isin(codes, here) | (codes < 0)] = -np.inf
    while lacking > 0 and rest[top := int(np.argmax(rest))] > -np.inf:
        found[top] = float(row[top])
        rest[codes == codes[top]] = -np.inf
        lacking -= 1
    return found


def _room(codes: Int32, floor: Floor, n: int, row: Float32, places: list[int]) -> Found:
    """Further items, best first, of categories of which a list may still take some, until `n` can stand in it."""
    most = floor.per_category
    found: Found = {}
    if most is None:
        return found
    rest: Float32 | None = None
    for _ in range(ROUNDS):
        here = codes[[*places, *found]]
        kinds, counts = np.unique(here[here >= 0], return_counts=True)
        if int((here < 0).sum() + np.minimum(counts, most).sum()) >= n:
            break
        if rest is None:
            rest = row.copy()
            rest[places] = -np.inf
        rest[np.isin(codes, kinds[counts >= most])] = -np.inf
        top, values = top_k(rest[None], n)
        fresh = [(place, value) for place, value in zip(top[0].tolist(), values[0].tolist(), strict=True) if place >= 0]
        if not fresh:
            break
        found |= fresh
        rest[[place for place, _ in fresh]] = -np.inf
    return found
