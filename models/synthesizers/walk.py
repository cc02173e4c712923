"""A random walk over similar items: the closed form of soft injection."""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from scipy import sparse

from models.arrays import Float32, Int32
from models.data.interactions import Interactions
from models.recommenders.item_knn import ItemKNN
from models.synthesizers.chain import Chain, backing_off, row_stochastic, shares
from models.synthesizers.item_chain import ItemChain


class Walk(ItemChain):
    """From an item to one of its neighbors by item-kNN, P(j | i) proportional to their shrunk cosine.

    With v the known events as weights that sum to one, `decay` times less for every event after one, the item h steps
    away is distributed as v P^h (the two-hop smoothing v (I + w P) of a linear recommender uses h = 1). A share
    `popularity` of the steps, and every step from an item without neighbors, goes to a popular item. P is symmetric in
    time: the past is expected to look like the future.
    """

    name = "walk"

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """Parameters of the formula above; `neighbors` of an item, `shrink` added to the cosine's denominator."""

        neighbors: Annotated[int, Meta(ge=1)] = 64
        shrink: Annotated[float, Meta(ge=0)] = 5.0
        decay: Annotated[float, Meta(gt=0, le=1)] = 0.85
        popularity: Annotated[float, Meta(ge=0, le=1)] = 0.0
        smoothing: Annotated[float, Meta(ge=0)] = 0.1

    def chains(self, interactions: Interactions) -> tuple[Chain, Chain]:
        params = self.params
        knn = ItemKNN(ItemKNN.Params(neighbors=params.neighbors, shrink=params.shrink))
        size = len(interactions.vocabulary)
        matrix = neighbor_matrix(*knn.relate(interactions))
        known = np.diff(matrix.indptr) > 0
        share = np.where(known, 1 - params.popularity, 0.0).astype(np.float32)
        popularity = shares(np.bincount(interactions.items, minlength=size) + params.smoothing)
        chain = Chain(backing_off([(share, np.arange(size, dtype=np.int32), matrix)], popularity), popularity)
        return chain, chain

    def source_weights(self, items: Int32) -> Float32:
        after = np.arange(items.shape[1])[::-1]
        weights = np.where(items >= 0, np.float32(self.params.decay) ** after, 0.0).astype(np.float32)
        weights[(items < 0).all(axis=1), -1] = 1.0
        scaled: Float32 = weights / weights.sum(axis=1, keepdims=True)
        return scaled


def neighbor_matrix(neighbors: Int32, similarities: Float32) -> sparse.csr_matrix:
    """float32 [items, items]: neighbors int32 [items, k] (-1: none) by similarities [items, k], rows sum to one."""
    rows, columns = np.nonzero((neighbors >= 0) & (similarities > 0))
    entries = (similarities[rows, columns], (rows, neighbors[rows, columns]))
    return row_stochastic(sparse.csr_matrix(entries, (len(neighbors), len(neighbors))))
