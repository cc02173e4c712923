"""Diverse lists from scored candidates: maximal marginal relevance, determinantal point processes, floors by category.

Pure: arrays in, places of candidates out. Categories are codes, -1 for an item without one, which no floor limits.
"""

from typing import Final

import msgspec
import numpy as np

from models.arrays import Bool, Float32, Int32, Int64

SAME_CATEGORY: Final = 0.5
"""How alike two items of one category are at least, on the scale where a nearest neighbour is 1."""


class CategoryLimits(msgspec.Struct, frozen=True):
    """What a list has to keep: at most `per_category` items of a category, at least `categories` different ones."""

    per_category: int | None = None
    categories: int | None = None

    def met(self, codes: Int32) -> bool:
        """Whether a list with these categories keeps it."""
        kinds, counts = np.unique(codes[codes >= 0], return_counts=True)
        few = self.per_category is None or counts.max(initial=0) <= self.per_category
        return bool(few and len(kinds) >= (self.categories or 0))


def similarity(near: Int32, amounts: Float32, places: Int64, codes: Int32, scratch: Int32) -> Float32:
    """float32 [m, m] in 0..1: how alike candidates are, by the release's neighbours and by category.

    Args:
        near: int32 [items, neighbours], -1 where there are fewer; `amounts` float32 alike.
        places: int64 [m], the candidates' indices; -1, or one past `near`, for what the release does not know.
        codes: int32 [m], their categories.
        scratch: int32 [items + 1] of -1, given back as it was: no array of all items is made for each list.

    An item's nearest neighbour counts 1, the others in proportion; of two directions the larger counts.
    """
    m = len(places)
    alike = np.zeros((m, m), np.float32)
    known = np.flatnonzero((places >= 0) & (places < len(near))).astype(np.int32)
    if len(known) and near.shape[1]:
        mine = places[known]
        scratch[mine] = known
        there = scratch[near[mine]]  # padding reads the one behind the last
        scratch[mine] = -1
        rows, columns = np.nonzero(there >= 0)
        values = amounts[mine]
        values = values / np.maximum(values.max(axis=1, keepdims=True), np.float32(1e-12))
        alike[known[rows], there[rows, columns]] = values[rows, columns]
        np.maximum(alike, alike.T.copy(), out=alike)
    same = codes[:, None] == np.where(codes < 0, -2, codes)
    np.maximum(alike, np.float32(SAME_CATEGORY) * same, out=alike)
    np.fill_diagonal(alike, 1.0)
    return alike


def by_relevance(values: Float32) -> Float32:
    """float32 [m] in 0..1: scores laid out between the worst and the best of the candidates; all 1 where equal."""
    if not len(values):
        return values.astype(np.float32)
    low, spread = values.min(), np.ptp(values)
    return ((values - low) / spread if spread > 0 else np.ones_like(values)).astype(np.float32)


def mmr(
    relevance: Float32,
    alike: Float32 | None,
    codes: Int32,
    n: int,
    diversity: float = 0.0,
    floor: CategoryLimits | None = None,
    taken: Int32 | None = None,
) -> list[int]:
    """Places of at most `n` candidates in the order in which they are shown.

    Each step takes the candidate of highest (1 - diversity) * relevance - diversity * (its largest similarity to what
    was taken) (Carbonell & Goldstein, SIGIR 1998, eq. 1, with lambda = 1 - diversity); ties go to the earlier one.
    `floor` is kept wherever the candidates allow it; `taken` are the categories of items that the list has already.
    A candidate that would break `per_category` is never taken, so the list may come out shorter.
    """
    wish = floor or CategoryLimits()
    value = (1 - diversity) * relevance.astype(np.float64)
    worst = np.zeros(len(relevance))
    counts: dict[int, int] = {}
    chosen: list[int] = []
    open_ones = np.ones(len(relevance), np.bool_)
    spread = None if alike is None or not diversity else (diversity * alike).astype(np.float64)
    for code in taken.tolist() if taken is not None else ():
        _count(counts, int(code), wish.per_category, codes, open_ones)
    while len(chosen) < n:
        here = np.where(open_ones, value - worst, -np.inf)
        lacking = (wish.categories or 0) - len(counts)
        if lacking > 0 and n - len(chosen) <= lacking:
            fresh = open_ones & (codes >= 0) & ~np.isin(codes, list(counts))
            here = np.where(fresh, here, -np.inf) if fresh.any() else here
        place = int(here.argmax()) if len(here) else -1
        if place < 0 or not open_ones[place]:
            break
        chosen.append(place)
        open_ones[place] = False
        _count(counts, int(codes[place]), wish.per_category, codes, open_ones)
        if spread is not None:
            np.maximum(worst, spread[place], out=worst)
    return chosen


def dpp(relevance: Float32, alike: Float32, n: int, diversity: float) -> list[int]:
    """Places of at most `n` candidates by greedy MAP inference of a determinantal point process.

    The kernel is q_i * S_ij * q_j with q = exp(a * relevance) and a = (1 - diversity) / (2 * diversity); Cholesky rows
    are updated with each step (Chen, Zhang & Zhou, NeurIPS 2018, algorithm 1 and section 4.2). S is `alike`; it need
    not be positive semidefinite: a candidate whose residual is not positive is left for the end, in order.
    """
    m = len(relevance)
    weight = (1 - diversity) / (2 * max(diversity, 1e-6))
    quality = np.exp(np.minimum(weight, 20.0) * relevance.astype(np.float64))
    kernel = quality[:, None] * alike * quality
    residual = np.diag(kernel).copy()
    rows = np.zeros((min(n, m), m))
    chosen: list[int] = []
    while len(chosen) < min(n, m):
        place = int(np.argmax(residual))
        if residual[place] <= 1e-10:
            rest = [one for one in np.argsort(-relevance, kind="stable").tolist() if one not in set(chosen)]
            return chosen + rest[: n - len(chosen)]
        step = len(chosen)
        row = (kernel[place] - rows[:step, place] @ rows[:step]) / np.sqrt(residual[place])
        rows[step] = row
        residual -= row**2
        chosen.append(place)
        residual[chosen] = -np.inf
    return chosen


def _count(counts: dict[int, int], code: int, most: int | None, codes: Int32, open_ones: Bool) -> None:
    if code < 0:
        return
    counts[code] = counts.get(code, 0) + 1
    if most is not None and counts[code] >= most:
        open_ones[codes == code] = False
