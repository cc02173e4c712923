"""Item-to-item recommenders: each item has neighbors, and a history adds up those of its items."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from scipy import sparse

from models.arrays import AnyArray, Float32, Int32, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.sparse import SparseScorer, popularity_of

BLOCK: Final = 2_000
"""Rows of the item-item matrix that are computed at a time, which bounds memory."""
Weigh = Callable[[AnyArray, AnyArray, AnyArray], AnyArray]
"""Values of the entries of a matrix, from their rows, columns and first values."""


class ItemItem(SparseScorer):
    """The score of item j is the sum over a history's events of weight(event) * similarity(item of the event, j).

    `neighbors` int32 [items, k]: item indices, -1 where there are fewer; `similarities` float32 [items, k].
    """

    reads_imagined_events = True

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`neighbors` of an item. `decay`: weight of an event against the one after it. `own`: what an item gains by
        being in the history itself."""

        neighbors: Annotated[int, msgspec.Meta(ge=1)] = 50
        decay: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.85
        own: Annotated[float, msgspec.Meta(ge=0)] = 0.0

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params or self.Params())
        self.vocabulary = Vocabulary.from_items([])
        self.neighbors: Int32 = np.zeros((0, self.params.neighbors), np.int32)
        self.similarities: Float32 = np.zeros((0, self.params.neighbors), np.float32)

    def fit(self, interactions: Interactions) -> None:
        self.vocabulary = interactions.vocabulary
        self.popularity = popularity_of(interactions, interactions.vocabulary.popularity_half_life_ms)
        self.neighbors, self.similarities = self.relate(interactions)

    @abstractmethod
    def relate(self, interactions: Interactions) -> tuple[Int32, Float32]:
        """`neighbors` and `similarities` from interactions."""

    def event_scores(self, items: Int32, weights: Float32) -> tuple[Int32, Float32]:
        real = items > 0
        indices, weight = items[real] - 1, weights[real]
        neighbors = self.neighbors[indices].ravel()
        scores = (self.similarities[indices] * weight[:, None]).ravel()
        if len(neighbors) and neighbors.min() < 0:
            scores, neighbors = scores[neighbors >= 0], neighbors[neighbors >= 0]
        if not self.params.own:
            return neighbors, scores
        return np.concatenate([neighbors, indices]), np.concatenate([scores, np.float32(self.params.own) * weight])

    def contributions(self, batch: Batch, items: Int64) -> Float32:
        numbers, weights = batch.items[0], batch.event_weights(self.params.decay)[0]
        out = np.zeros((len(items), len(numbers)), np.float32)
        columns = np.flatnonzero(numbers > 0)
        indices = numbers[columns] - 1
        neighbors, similarities = self.neighbors[indices], self.similarities[indices]
        for row, item in enumerate(items.tolist()):
            similarity = np.where(neighbors == item, similarities, 0.0).sum(axis=1)
            out[row, columns] = weights[columns] * (similarity + self.params.own * (indices == item))
        return out

    def arrays(self) -> dict[str, AnyArray]:
        return {"popularity": self.popularity, "neighbors": self.neighbors, "similarities": self.similarities}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        self.popularity = arrays["popularity"]
        self.neighbors, self.similarities = arrays["neighbors"], arrays["similarities"]


def by_user_power(matrix: sparse.csr_matrix, power: float) -> sparse.csr_matrix:
    """float32 [users, items]: rows scaled so that a user of n items adds n^-power to every pair of its items."""
    if power == 0:
        return matrix
    sizes = np.maximum(np.diff(matrix.indptr), 1).astype(np.float32)
    scaled: sparse.csr_matrix = (sparse.diags(sizes ** np.float32(-power / 2)) @ matrix).tocsr().astype(np.float32)
    return scaled


def largest_in_rows(matrix: sparse.csr_matrix, k: int) -> tuple[Int32, Float32]:
    """The k largest entries of each row of a sparse matrix, largest first, ties by lower column.

    Returns:
        Columns int32 [rows, k], -1 where a row has fewer, and values float32 [rows, k].
    """
    columns_out, values_out = np.full((matrix.shape[0], k), -1, np.int32), np.zeros((matrix.shape[0], k), np.float32)
    for row, (start, stop) in enumerate(zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)):
        columns, values = matrix.indices[start:stop], matrix.data[start:stop]
        if len(values) > k:  # few of thousands: entries below the k-th largest need no sorting
            kept = np.flatnonzero(values >= np.partition(values, len(values) - k)[len(values) - k])
            columns, values = columns[kept], values[kept]
        order = np.lexsort((columns, -values))[:k]
        columns_out[row, : len(order)], values_out[row, : len(order)] = columns[order], values[order]
    return columns_out, values_out


def nearest_by_product(
    left: sparse.csr_matrix,
    right: sparse.csr_matrix,
    k: int,
    weigh: Weigh | None = None,
    block_size: int = BLOCK,
) -> tuple[Int32, Float32]:
    """The k largest entries of each row of `left @ right`, without the diagonal, a block of rows at a time.

    `weigh` gives entries their values from rows, columns and products, each [entries].

    Returns:
        Columns int32 [rows, k], -1 where a row has fewer, and values float32 [rows, k].
    """
    parts = []
    for start in range(0, left.shape[0], block_size):
        block = (left[start : start + block_size] @ right).tocoo()
        different = block.row + start != block.col
        rows, columns, values = block.row[different], block.col[different], block.data[different]
        if weigh is not None:
            values = weigh(rows + start, columns, values)
        parts.append(largest_in_rows(sparse.csr_matrix((values, (rows, columns)), block.shape), k))
    return stack_blocks(parts, k)


def stack_blocks(parts: list[tuple[Int32, Any]], k: int) -> tuple[Int32, Float32]:
    """Blocks of rows as one table: columns int32 [rows, k] and values float32 [rows, k]."""
    if not parts:
        return np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)
    columns, values = zip(*parts, strict=True)
    return np.concatenate(columns).astype(np.int32), np.concatenate(values).astype(np.float32)
