"""Exact top k over the whole catalogue, in float32."""

from typing import Final

import numpy as np

from models.arrays import Float32, Int64

BLOCK: Final = 64


def top_k(scores: Float32, k: int) -> tuple[Int64, Float32]:
    """The k best columns of each row, best first, ties by lower index; -inf marks what must not appear.

    Args:
        scores: float32 [batch, items].
        k: how many; fewer come back where fewer exist, the rest is padded with index -1 and score -inf.

    Returns:
        indices int64 [batch, k] and scores float32 [batch, k].

    A row is dealt out to blocks of 64 items. Only blocks whose maximum reaches the k-th best block maximum can hold one
    of the k best, so a row of 100,000 is sorted among a few hundred candidates. The answer is exact.
    """
    batch, items = scores.shape
    indices = np.full((batch, k), -1, np.int64)
    best = np.full((batch, k), -np.inf, np.float32)
    for row in range(batch):
        chosen = _top_of_row(scores[row], min(k, items))
        indices[row, : len(chosen)] = chosen
        best[row, : len(chosen)] = scores[row, chosen]
    return indices, best


def _top_of_row(row: Float32, k: int) -> Int64:
    columns = candidates(row, k)
    values = row[columns]
    finite = values > -np.inf
    columns, values = columns[finite], values[finite]
    order = np.lexsort((columns, -values))[:k]
    return columns[order]


def candidates(row: Float32, k: int) -> Int64:
    """The places of the k best of a row and a few more, in no order; all places where the row is short."""
    items = len(row)
    blocks = items // BLOCK
    if blocks <= 2 * k:
        return np.arange(items)
    whole = blocks * BLOCK
    maxima = row[:whole].reshape(BLOCK, blocks).max(axis=0)  # down the columns: whole vectors at a time
    floor = np.partition(maxima, blocks - k)[blocks - k]
    kept = np.flatnonzero(maxima >= floor)
    if len(kept) > 4 * k:  # many equal maxima: compare the elements instead
        return np.flatnonzero(row >= floor)
    inside = (kept[:, None] + blocks * np.arange(BLOCK)).ravel()
    places = np.concatenate([inside, np.arange(whole, items)])
    result: Int64 = places[row[places] >= floor]
    return result
