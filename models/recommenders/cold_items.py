"""Vectors for items without events, from similar items that have events."""

import msgspec
import numpy as np
from scipy import sparse

from models.arrays import Float32, Int32, Int64

NEIGHBORS = 20
BLOCK = 512
"""Items compared at a time, which bounds memory."""


class ColdItemInitializer(msgspec.Struct, frozen=True):
    """For each cold item the warm items whose mean it begins with.

    `shares` float64 [rows, warm items], rows summing to one; `rows` int64 [cold items]: each item's row of `shares`.
    """

    shares: sparse.csr_matrix
    rows: Int64

    @classmethod
    def fit(
        cls,
        warm_items: int,
        categories: Int32,
        texts: Float32 | None,
        neighbors: int = NEIGHBORS,
        block: int = BLOCK,
    ) -> "ColdItemInitializer":
        """For each item after the first `warm_items`: the warm items that it resembles, in equal shares.

        `categories` int32 [items], 0 for none; `texts` float32 [items, size] or None. An item resembles the `neighbors`
        warm items with the nearest texts (cosine above zero), within its category where that has warm items; without
        texts all warm items of its category; else all warm items.
        """
        warm, cold = categories[:warm_items], categories[warm_items:]
        groups: list[Int64] = []
        rows = np.zeros(len(cold), np.int64)
        for code in np.unique(cold):
            inside = np.flatnonzero(warm == code) if code else np.arange(warm_items)
            inside = inside if len(inside) else np.arange(warm_items)
            members = np.flatnonzero(cold == code)
            rows[members] = len(groups)
            groups.append(inside)
            for start in range(0, len(members) if texts is not None else 0, block):
                assert texts is not None
                part = members[start : start + block]
                cosines = _unit(texts[warm_items + part]) @ _unit(texts[inside]).T
                nearest = np.argpartition(-cosines, min(neighbors, len(inside)) - 1, axis=1)[:, :neighbors]
                for item, candidates, cosine in zip(part, nearest, cosines, strict=True):
                    similar = candidates[cosine[candidates] > 0]
                    if len(similar):
                        rows[item] = len(groups)
                        groups.append(inside[similar])
        return cls(_equal_shares(groups, warm_items), rows)

    def initialize(self, vectors: Float32) -> Float32:
        """float32 [cold items, size]: means of the warm items' `vectors` float32 [warm items, size]."""
        means: Float32 = (self.shares @ vectors).astype(np.float32)[self.rows]
        return means


def _equal_shares(groups: list[Int64], columns: int) -> sparse.csr_matrix:
    """float64 [groups, columns]: each group's columns in equal shares."""
    sizes = np.array([len(group) for group in groups], np.int64)
    indices = np.concatenate(groups) if groups else np.zeros(0, np.int64)
    shares = np.repeat(1 / np.maximum(sizes, 1), sizes)
    return sparse.csr_matrix((shares, indices, np.append(0, np.cumsum(sizes))), (len(groups), columns))


def _unit(vectors: Float32) -> Float32:
    """float32 [n, size]: rows of length one."""
    scaled: Float32 = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled
