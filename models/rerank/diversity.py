"""Diverse lists from scored candidates: maximal marginal relevance, determinantal point processes, category limits.

All functions are pure: arrays in, positions of candidates out. Categories are codes; -1 (no category) is never limited.
"""

from typing import Final

import msgspec
import numpy as np

from models.arrays import Bool, Float32, Int32, Int64

SAME_CATEGORY: Final = 0.5
"""The minimum similarity of two items of a category; the nearest neighbor has 1."""


class CategoryLimits(msgspec.Struct, frozen=True):
    """Category limits of a list: at most `per_category` items of a category, at least `categories` different ones."""

    per_category: int | None = None
    categories: int | None = None

    def met(self, codes: Int32) -> bool:
        """Whether a list with these categories, int32 [n], satisfies the limits."""
        kinds, counts = np.unique(codes[codes >= 0], return_counts=True)
        few = self.per_category is None or counts.max(initial=0) <= self.per_category
        return bool(few and len(kinds) >= (self.categories or 0))


def similarity(neighbors: Int32, similarities: Float32, places: Int64, codes: Int32, scratch: Int32) -> Float32:
    """float32 [m, m] in 0..1: the similarity of candidates, by the release's neighbors and by category.

    Args:
        neighbors: int32 [items, neighbors], padded with -1.
        similarities: float32 [items, neighbors], of the same layout.
        places: int64 [m], the candidates' indices; -1, or the number of items, for items that the release lacks.
        codes: int32 [m], their categories.
        scratch: int32 [items + 1], all -1, restored before returning; it saves an allocation of all items per list.

    The nearest neighbor of an item has similarity 1, the others are in proportion; of two directions the larger counts.
    """
    m = len(places)
    alike = np.zeros((m, m), np.float32)
    known = np.flatnonzero((places >= 0) & (places < len(neighbors))).astype(np.int32)
    if len(known) and neighbors.shape[1]:
        candidate_items = places[known]
        scratch[candidate_items] = known
        neighbor_rows = scratch[neighbors[candidate_items]]  # padding (-1) reads the last element, which is always -1
        scratch[candidate_items] = -1
        rows, columns = np.nonzero(neighbor_rows >= 0)
        values = similarities[candidate_items]
        values = values / np.maximum(values.max(axis=1, keepdims=True), np.float32(1e-12))
        alike[known[rows], neighbor_rows[rows, columns]] = values[rows, columns]
        np.maximum(alike, alike.T.copy(), out=alike)
    same = codes[:, None] == np.where(codes < 0, -2, codes)
    np.maximum(alike, np.float32(SAME_CATEGORY) * same, out=alike)
    np.fill_diagonal(alike, 1.0)
    return alike


def by_relevance(values: Float32) -> Float32:
    """float32 [m] in 0..1: scores scaled between the worst and the best candidate; all 1 if they are equal."""
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
    """Positions of at most `n` candidates, in display order, by maximal marginal relevance.

    Each step selects the candidate with the highest (1 - diversity) * relevance - diversity * (its largest similarity
    to a selected item) (Carbonell & Goldstein, SIGIR 1998, eq. 1, with lambda = 1 - diversity); ties go to the earlier
    candidate. A candidate that would exceed `per_category` is never selected, so the list may be shorter than `n`.

    Args:
        relevance: float32 [m].
        alike: float32 [m, m] of `similarity`; None: relevance alone.
        codes: int32 [m], categories.
        floor: category limits; `categories` is met as far as the candidates allow.
        taken: int32, categories of items that are already in the list.
    """
    limits = floor or CategoryLimits()
    value = (1 - diversity) * relevance.astype(np.float64)
    worst = np.zeros(len(relevance))
    counts: dict[int, int] = {}
    chosen: list[int] = []
    available = np.ones(len(relevance), np.bool_)
    spread = None if alike is None or not diversity else (diversity * alike).astype(np.float64)
    for code in taken.tolist() if taken is not None else ():
        _count(counts, int(code), limits.per_category, codes, available)
    while len(chosen) < n:
        gains = np.where(available, value - worst, -np.inf)
        lacking = (limits.categories or 0) - len(counts)
        if lacking > 0 and n - len(chosen) <= lacking:
            fresh = available & (codes >= 0) & ~np.isin(codes, list(counts))
            gains = np.where(fresh, gains, -np.inf) if fresh.any() else gains
        place = int(gains.argmax()) if len(gains) else -1
        if place < 0 or not available[place]:
            break
        chosen.append(place)
        available[place] = False
        _count(counts, int(codes[place]), limits.per_category, codes, available)
        if spread is not None:
            np.maximum(worst, spread[place], out=worst)
    return chosen


def dpp(relevance: Float32, alike: Float32, n: int, diversity: float) -> list[int]:
    """Positions of at most `n` candidates by greedy MAP inference of a determinantal point process.

    The kernel is q_i * S_ij * q_j with q = exp(a * relevance) and a = (1 - diversity) / (2 * diversity); Cholesky rows
    are updated with each step (Chen, Zhang & Zhou, NeurIPS 2018, algorithm 1 and section 4.2). S is `alike`; it need
    not be positive semidefinite: candidates without a positive residual go to the end, by relevance.
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
            rest = [
                candidate
                for candidate in np.argsort(-relevance, kind="stable").tolist()
                if candidate not in set(chosen)
            ]
            return chosen + rest[: n - len(chosen)]
        step = len(chosen)
        row = (kernel[place] - rows[:step, place] @ rows[:step]) / np.sqrt(residual[place])
        rows[step] = row
        residual -= row**2
        chosen.append(place)
        residual[chosen] = -np.inf
    return chosen


def _count(counts: dict[int, int], code: int, most: int | None, codes: Int32, available: Bool) -> None:
    if code < 0:
        return
    counts[code] = counts.get(code, 0) + 1
    if most is not None and counts[code] >= most:
        available[codes == code] = False
