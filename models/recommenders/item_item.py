"""Recommenders of item-to-item weights, a few for each item: item-kNN, EASE, sequential rules.

All answer alike: a history's items add their neighbours' weights, newer items counting more. Rows are padded arrays, so
serving holds no dense matrix, whatever the catalogue.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from models.arrays import Float32, Int32
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.base import write_arrays
from models.recommenders.popularity import Tied, popularity_of

BLOCK: Final = 2_000
EASE_ITEMS: Final = 8_000
"""EASE inverts a dense matrix of this many items: 256 MB, and seconds; the rest has no neighbours there."""


class ItemItem(Tied):
    """A history's score of item j is the sum over its events of weight(event) * amount(item of the event, j).

    `near` int32 [items, neighbours], -1 where there are fewer; `amounts` float32 alike. `decay` is what an event weighs
    against the one after it; `own` what an item gains by standing in the history itself.
    """

    name = "item-item"

    def __init__(self, neighbours: int = 50, decay: float = 0.85, own: float = 0.0) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.decay = decay
        self.own = own
        self.vocabulary = Vocabulary.from_items([])
        self.near: Int32 = np.zeros((0, neighbours), np.int32)
        self.amounts: Float32 = np.zeros((0, neighbours), np.float32)

    def fit(self, log: Interactions) -> None:
        self.vocabulary = log.vocabulary
        self.popularity = popularity_of(log, log.vocabulary.popularity_half_life_ms)
        self.near, self.amounts = self.relate(log)

    def relate(self, log: Interactions) -> tuple[Int32, Float32]:
        """`near` and `amounts` from the log: what sets one kind apart from another."""
        raise NotImplementedError

    def offered(self, items: Int32, weights: Float32) -> tuple[Int32, Float32]:
        kept = items > 0
        known, weight = items[kept] - 1, weights[kept]
        near = self.near[known].ravel()
        amounts = (self.amounts[known] * weight[:, None]).ravel()
        if len(near) and near.min() < 0:
            amounts, near = amounts[near >= 0], near[near >= 0]
        if not self.own:
            return near, amounts
        return np.concatenate([near, known]), np.concatenate([amounts, np.float32(self.own) * weight])

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        arrays = {"popularity": self.popularity, "neighbours": self.near, "similarities": self.amounts}
        return write_arrays(folder, prefix, arrays)

    def describe(self) -> dict[str, Any]:
        return {"neighbours": self.neighbours, "decay": self.decay, "own": self.own}


class ItemKNN(ItemItem):
    """Shrunk, asymmetric cosine over the users that share two items.

    amount(i, j) = c_ij / (c_i^alpha c_j^(1 - alpha) + shrink), with c_ij the users who took both, each weighing
    n_u^-user_power for the n_u items it took, and events 2^(-age / half-life) where a half-life is given (Sarwar et
    al., WWW 2001, section 3; alpha as in Aiolli, RecSys 2013; shrinkage as in Dacrema et al., RecSys 2019).
    """

    name = "item-knn"

    def __init__(
        self,
        neighbours: int = 50,
        shrink: float = 10.0,
        alpha: float = 0.5,
        user_power: float = 0.0,
        half_life_ms: float | None = None,
        decay: float = 0.85,
        own: float = 0.0,
    ) -> None:
        super().__init__(neighbours, decay, own)
        self.shrink, self.alpha, self.user_power, self.half_life_ms = shrink, alpha, user_power, half_life_ms

    def relate(self, log: Interactions) -> tuple[Int32, Float32]:
        matrix = by_user_power(log.user_item_matrix(self.half_life_ms), self.user_power)
        totals = np.asarray(matrix.power(2).sum(axis=0)).ravel()
        ours, theirs = totals**self.alpha, totals ** (1 - self.alpha)
        columns = matrix.T.tocsr()
        parts = []
        for start in range(0, matrix.shape[1], BLOCK):
            block = (columns[start : start + BLOCK] @ matrix).tocoo()
            apart = block.row + start != block.col
            row, other, shared = block.row[apart], block.col[apart], block.data[apart]
            shared = shared / (ours[row + start] * theirs[other] + self.shrink)
            parts.append(heaviest(sparse.csr_matrix((shared, (row, other)), block.shape), self.neighbours))
        return stacked(parts, self.neighbours)

    def describe(self) -> dict[str, Any]:
        mine = {"shrink": self.shrink, "alpha": self.alpha, "user_power": self.user_power}
        return {**super().describe(), **mine, "half_life_ms": self.half_life_ms}


class SequentialRules(ItemItem):
    """Which items follow which within `steps` events of a user, nearer ones counting 1 / distance.

    amount(i, j) = f_ij / (f_i + shrink) * (f_j + shrink)^-discount: f_ij is the sum over the times that j followed i
    (Ludewig & Jannach, UMUAI 2018, section 3.1), with `discount` against what follows everything.
    """

    name = "sequential-rules"

    def __init__(
        self,
        neighbours: int = 100,
        steps: int = 5,
        shrink: float = 1.0,
        discount: float = 0.2,
        half_life_ms: float | None = None,
        decay: float = 0.6,
        own: float = 0.0,
    ) -> None:
        super().__init__(neighbours, decay, own)
        self.steps, self.shrink, self.discount, self.half_life_ms = steps, shrink, discount, half_life_ms

    def relate(self, log: Interactions) -> tuple[Int32, Float32]:
        items = len(log.vocabulary)
        weights = log.event_weights(self.half_life_ms)
        total: Any = 0 * sparse.eye_array(items, dtype=np.float32, format="csr")
        for step in range(1, min(self.steps, len(log) - 1) + 1):
            same = (log.users[:-step] == log.users[step:]) & (log.items[:-step] != log.items[step:])
            pairs = (log.items[:-step][same], log.items[step:][same])
            total = total + sparse.csr_matrix(((weights[step:][same] / step).astype(np.float32), pairs), (items, items))
        given = np.asarray(total.sum(axis=1)).ravel() + self.shrink
        often = (np.asarray(total.sum(axis=0)).ravel() + self.shrink) ** -self.discount
        weighed = sparse.diags(1 / np.maximum(given, 1e-9)) @ total @ sparse.diags(often)
        return stacked([heaviest(weighed.tocsr(), self.neighbours)], self.neighbours)

    def describe(self) -> dict[str, Any]:
        mine = {"steps": self.steps, "shrink": self.shrink, "discount": self.discount}
        return {**super().describe(), **mine, "half_life_ms": self.half_life_ms}


class EASE(ItemItem):
    """Embarrassingly shallow autoencoder: B = I - P diag(P)^-1 with P = (X'X + reg I)^-1 (Steck, WWW 2019, eq. 8).

    Over the `most` most popular items; of each row the heaviest weights are kept, whatever their sign.
    """

    name = "ease"

    def __init__(
        self,
        reg: float = 100.0,
        neighbours: int = 200,
        user_power: float = 0.0,
        decay: float = 0.9,
        own: float = 0.0,
        most: int = EASE_ITEMS,
    ) -> None:
        super().__init__(neighbours, decay, own)
        self.reg, self.user_power, self.most = reg, user_power, most

    def relate(self, log: Interactions) -> tuple[Int32, Float32]:
        items = len(log.vocabulary)
        size = min(items, self.most)
        matrix = by_user_power(log.user_item_matrix(), self.user_power)[:, :size]
        gram = np.asfortranarray((matrix.T @ matrix).toarray(), np.float32)
        gram[np.diag_indices(size)] += self.reg
        inverse = _inverse(gram)
        diagonal = np.diag(inverse).copy()
        parts: list[tuple[Int32, Any]] = []
        for start in range(0, size, BLOCK):
            block = -inverse[start : start + BLOCK] / diagonal[None]
            rows = np.arange(len(block))
            block[rows, rows + start] = 0.0
            parts.append(_heaviest_dense(block, self.neighbours))
        parts.append(
            (np.full((items - size, self.neighbours), -1, np.int32), np.zeros((items - size, self.neighbours)))
        )
        return stacked(parts, self.neighbours)

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "reg": self.reg, "user_power": self.user_power, "most": self.most}


def by_user_power(matrix: sparse.csr_matrix, power: float) -> sparse.csr_matrix:
    """Rows scaled so that a user of n items adds n^-power to every pair it shares."""
    if power == 0:
        return matrix
    sizes = np.maximum(np.diff(matrix.indptr), 1).astype(np.float32)
    result: sparse.csr_matrix = (sparse.diags(sizes ** np.float32(-power / 2)) @ matrix).tocsr().astype(np.float32)
    return result


def heaviest(matrix: sparse.csr_matrix, k: int) -> tuple[Int32, Float32]:
    """The k heaviest entries of each row, heaviest first, ties by lower column; -1 where there are fewer."""
    near, amounts = np.full((matrix.shape[0], k), -1, np.int32), np.zeros((matrix.shape[0], k), np.float32)
    for row, (start, stop) in enumerate(zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)):
        columns, values = matrix.indices[start:stop], matrix.data[start:stop]
        if len(values) > k:  # few of thousands: what lies below the k-th heaviest need not be sorted
            kept = np.flatnonzero(values >= np.partition(values, len(values) - k)[len(values) - k])
            columns, values = columns[kept], values[kept]
        order = np.lexsort((columns, -values))[:k]
        near[row, : len(order)], amounts[row, : len(order)] = columns[order], values[order]
    return near, amounts


def stacked(parts: list[tuple[Int32, Any]], k: int) -> tuple[Int32, Float32]:
    """Blocks of rows as one table."""
    if not parts:
        return np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)
    near, amounts = zip(*parts, strict=True)
    return np.concatenate(near).astype(np.int32), np.concatenate(amounts).astype(np.float32)


def _heaviest_dense(block: Float32, k: int) -> tuple[Int32, Float32]:
    k_here = min(k, block.shape[1])
    found = np.argpartition(-np.abs(block), k_here - 1, axis=1)[:, :k_here]
    values = np.take_along_axis(block, found, axis=1)
    order = np.lexsort((found, -values), axis=1)
    near = np.full((len(block), k), -1, np.int32)
    amounts = np.zeros((len(block), k), np.float32)
    near[:, :k_here] = np.take_along_axis(found, order, axis=1)
    amounts[:, :k_here] = np.take_along_axis(values, order, axis=1)
    near[amounts == 0] = -1
    return near, amounts


def _inverse(gram: Float32) -> Float32:
    """The inverse of a symmetric positive definite matrix, in its place, by Cholesky."""
    factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1, clean=0)
    if failed:
        raise ValueError(f"the item matrix is not positive definite (LAPACK spotrf: {failed}); give a larger reg")
    inverse, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise ValueError(f"the item matrix cannot be inverted (LAPACK spotri: {failed}); give a larger reg")
    lower = np.tril(inverse)
    lower += np.tril(inverse, -1).T
    result: Float32 = lower
    return result
