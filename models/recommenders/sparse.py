"""Scorers whose scores are a popularity prior plus what a history's events add to a few items."""

from abc import abstractmethod
from typing import Any, Final

import numpy as np

from models.arrays import Float32, Int32
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.recommenders.base import ArrayRecommender, SparseScores

PRIOR_SHARE: Final = 1e-6
"""Scale of the popularity prior: it only orders items that the history does not distinguish."""


class SparseScorer(SparseScores, ArrayRecommender):
    """Scores are `prior` float32 [items], which is not negative, plus the scores of a history's events.

    An event weighs `params.decay` times what the event after it weighs. `prior` follows from the `popularity` that was
    set last; `prior_sum` is its sum.
    """

    def __init__(self, params: Any) -> None:
        self.params = params
        self.popularity = np.zeros(0, np.float32)

    @property
    def popularity(self) -> Float32:
        """float32 [items]."""
        return self._popularity

    @popularity.setter
    def popularity(self, counts: Float32) -> None:
        self._popularity, self.prior = counts, popularity_prior(counts)
        self.prior_sum = float(self.prior.sum())

    @abstractmethod
    def event_scores(self, items: Int32, weights: Float32) -> tuple[Int32, Float32]:
        """What a history's events add: item indices int32 [n], which may repeat, and scores float32 [n].

        `items` int32 [length]: item numbers, 0 for padding; `weights` float32 [length].
        """

    def score(self, batch: Batch) -> Float32:
        scores = np.tile(self.prior, (len(batch), 1))
        weights = batch.event_weights(self.params.decay)
        for row in range(len(batch)):
            np.add.at(scores[row], *self.event_scores(batch.items[row], weights[row]))
        return scores

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        add_prior(out, self.prior, self.add_event_scores(out, batch, weights))

    def add_event_scores(self, out: Float32, batch: Batch, weights: Float32) -> Float32:
        factors = np.zeros(len(batch), np.float32)
        event_weights = batch.event_weights(self.params.decay)
        for row in np.flatnonzero(weights):
            items, scores = self.event_scores(batch.items[row], event_weights[row])
            if scores.min(initial=0.0) >= 0:
                factors[row] = weights[row] / max(self.prior_sum + float(scores.sum()), 1e-12)
                np.add.at(out[row], items, factors[row] * scores)
                continue
            dense = self.prior.copy()  # sums of negative event scores may have to be cut off at zero
            np.add.at(dense, items, scores)
            np.maximum(dense, 0.0, out=dense)
            dense *= np.float32(weights[row] / max(float(dense.sum()), 1e-12))
            out[row] += dense
        return factors


def popularity_of(interactions: Interactions, half_life_ms: float | None) -> Float32:
    """float32 [items]: sums of kind weights, decayed from the newest event where a half-life (ms) is given."""
    weights = interactions.event_weights(half_life_ms)
    return np.bincount(interactions.items, weights, len(interactions.vocabulary)).astype(np.float32)


def popularity_prior(popularity: Float32) -> Float32:
    """float32 [items]: popularity float32 [items] scaled so that it only orders items of equal score.

    >>> (1e6 * popularity_prior(np.array([4.0, 1.0], np.float32))).round(3).tolist()
    [1.0, 0.25]
    """
    prior: Float32 = popularity * np.float32(PRIOR_SHARE / max(float(popularity.max(initial=0.0)), 1e-12))
    return prior


def add_prior(out: Float32, prior: Float32, factors: Float32) -> None:
    """Add in place to `out` float32 [batch, items] `factors` float32 [batch] times `prior` float32 [items]."""
    for row in np.flatnonzero(factors):
        out[row] += factors[row] * prior
