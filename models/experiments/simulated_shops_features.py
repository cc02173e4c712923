"""Features of a history and an item that mean the same in any shop, whatever its size and density."""

from typing import Final

import numpy as np
from scipy import sparse
from scipy.stats import rankdata

from models.arrays import Float32, Float64, Int64
from models.data.interactions import Interactions
from models.recommenders.content_knn import ContentKNN
from models.recommenders.live_popularity import RequestTimePopularity
from models.synthesizers.histories import Histories
from models.synthesizers.markov import transition_counts

FEATURES: Final = (
    "popularity rank",
    "popularity",
    "recent popularity",
    "popularity of the season",
    "age",
    "cosine, sum",
    "cosine, largest",
    "lift",
    "followed the last item",
    "followed the items",
    "category match",
    "titles alike",
    "known events",
    "density",
)
RECENT: Final = (0.01, 0.1)
"""Half-lives of recent popularity, as shares of the time span."""
DECAY: Final = 0.85
"""Weight of an event against the one after it."""
SHRINK: Final = 2.0
WINDOW: Final = 5


class ShopFeatures:
    """What is counted in a shop once, and the features of any history.

    `alike` float32 [items, items]: how alike titles are, up to 1, sparse; None: by content-kNN, where there are texts.
    """

    def __init__(self, interactions: Interactions, alike: sparse.csr_matrix | None = None) -> None:
        size, matrix = len(interactions.vocabulary), interactions.user_item_matrix()
        users = np.bincount(matrix.indices, minlength=size).astype(np.float64)
        together = (matrix.T @ matrix).tocoo()
        apart = together.row != together.col
        rows, columns, counts = together.row[apart], together.col[apart], together.data[apart].astype(np.float64)
        cosines = counts / (np.sqrt(users[rows] * users[columns]) + SHRINK)
        lifts = np.log1p(counts * max(1, matrix.shape[0]) / (users[rows] * users[columns] + SHRINK))
        self._cosines = sparse.csr_matrix((cosines, (rows, columns)), (size, size))
        self._lifts = sparse.csr_matrix((lifts, (rows, columns)), (size, size))
        follows = transition_counts(Histories.from_interactions(interactions), size, WINDOW, DECAY)
        self._follows = (sparse.diags(1 / (users + SHRINK)) @ follows).tocsr()
        self._alike = (alike if alike is not None else titles_alike(interactions)).astype(np.float64)
        self.categories = interactions.categories
        events = np.bincount(interactions.items, minlength=size).astype(np.float64)
        self._ranks, self._popularity = rankdata(events) / size, _scaled(events)
        self._first = np.full(size, np.iinfo(np.int64).max)
        np.minimum.at(self._first, interactions.items, interactions.at)
        self._begin = int(interactions.at.min())
        self._span = max(1, int(interactions.at.max()) - self._begin)
        self._density = float(np.log10(len(interactions) / size + 1e-3)) / 3
        self._recent = [
            RequestTimePopularity(RequestTimePopularity.Params(half_life_ms=share * self._span)) for share in RECENT
        ]
        for recent in self._recent:
            recent.fit(interactions)

    def recent(self, times: Int64) -> list[Float32]:
        """For each half-life float32 [times, items]: popularity at each time (epoch ms)."""
        return [recent.counts_at(times) for recent in self._recent]

    def of(self, history: Int64, at: int, recent: list[Float32]) -> Float32:
        """float32 [items, features]: for the items of a history (indices, oldest first) at a time (epoch ms).

        `recent`: for each half-life float32 [items], popularity at that time.
        """
        weights: Float64 = np.power(DECAY, np.arange(len(history))[::-1], dtype=np.float64)
        own = [matrix[history] for matrix in (self._cosines, self._lifts, self._follows, self._alike)]
        cosine, lift, followed, alike = (part.T @ weights for part in own)
        size = len(self._ranks)
        largest = own[0].max(axis=0).toarray().ravel() if len(history) else np.zeros(size)
        last = own[2][-1].toarray().ravel() if len(history) else np.zeros(size)
        known = self._first <= at
        age = np.where(known, np.minimum((at - np.minimum(self._first, at)) / self._span, 2.0), 0.0)
        columns = [
            self._ranks,
            self._popularity,
            *(_scaled(counts.astype(np.float64)) for counts in recent),
            age,
            cosine,
            largest,
            lift,
            last,
            followed,
            self._category_match(history, weights),
            alike,
            np.full(size, 1 / (1 + len(history))),
            np.full(size, self._density),
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def _category_match(self, history: Int64, weights: Float64) -> Float64:
        """float64 [items]: the share of the history that is in each item's category."""
        amounts = np.bincount(self.categories[history], weights, int(self.categories.max(initial=0)) + 1)
        amounts[0] = 0.0
        match: Float64 = (amounts / max(float(weights.sum()), 1e-9))[self.categories]
        return match


def titles_alike(interactions: Interactions) -> sparse.csr_matrix:
    """float32 [items, items]: cosines of titles and categories, each row up to 1; empty where there are neither."""
    size = len(interactions.vocabulary)
    if not interactions.has_item_text:
        return sparse.csr_matrix(([], ([], [])), (size, size), np.float32)
    neighbors, similarities = ContentKNN(ContentKNN.Params(power=0.0)).relate(interactions)
    rows, columns = np.nonzero(neighbors >= 0)
    largest = np.maximum(similarities.max(axis=1), 1e-9)
    values = similarities[rows, columns] / largest[rows]
    return sparse.csr_matrix((values, (rows, neighbors[rows, columns])), (size, size))


def _scaled(counts: Float64) -> Float64:
    """float64 [items]: logarithms of counts from 0 to 1."""
    logs = np.log1p(counts)
    scaled: Float64 = logs / max(float(logs.max(initial=0.0)), 1e-9)
    return scaled
