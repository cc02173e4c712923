"""Recommenders that only count: what is popular, and what a user took before."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from models.arrays import Float32, Int32
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.base import add_dense, shares, write_arrays

TIE: Final = 1e-6
"""Weight of popularity beside what a history says: it orders what the history says nothing of."""
DAY_MS: Final = 24 * 60 * 60 * 1000


class Tied:
    """What popularity orders where a history says nothing: `tie` float32 [items], `tie_of` the popularity set last, and
    its sum `total`. A row of scores is `tie`, which is not negative, and what the history's events offer, each weighing
    `decay` times what the event after it does."""

    decay: float

    def __init__(self) -> None:
        self.popularity = np.zeros(0, np.float32)

    @property
    def popularity(self) -> Float32:
        """float32 [items]."""
        return self._popularity

    @popularity.setter
    def popularity(self, counts: Float32) -> None:
        self._popularity, self.tie = counts, tie_of(counts)
        self.total = float(self.tie.sum())

    def offered(self, items: Int32, weights: Float32) -> tuple[Int32, Float32]:
        """What a history's events offer, one after another: indices int32 [n] and amounts float32 [n]."""
        raise NotImplementedError

    def score(self, batch: Batch) -> Float32:
        out = np.tile(self.tie, (len(batch), 1))
        weights = batch.event_weights(self.decay)
        for row in range(len(batch)):
            np.add.at(out[row], *self.offered(batch.items[row], weights[row]))
        return out

    def probabilities(self, batch: Batch) -> Float32:
        return shares(self.score(batch))

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        add_ties(out, self.tie, self.add_offered(out, batch, weights))

    def add_offered(self, out: Float32, batch: Batch, weights: Float32) -> Float32:
        """Add in place to `out` [batch, items] the probabilities times `weights` [batch], but for what `tie` adds.

        Returns:
            float32 [batch]: how often `tie` has to be added to each row. Recommenders of one popularity do so together.
        """
        factors = np.zeros(len(batch), np.float32)
        events = batch.event_weights(self.decay)
        for row in np.flatnonzero(weights):
            places, amounts = self.offered(batch.items[row], events[row])
            if amounts.min(initial=0.0) >= 0:
                factors[row] = weights[row] / max(self.total + float(amounts.sum()), 1e-12)
                np.add.at(out[row], places, factors[row] * amounts)
                continue
            scores = self.tie.copy()  # sums of what is offered may have to be cut off at zero
            np.add.at(scores, places, amounts)
            np.maximum(scores, 0.0, out=scores)
            scores *= np.float32(weights[row] / max(float(scores.sum()), 1e-12))
            out[row] += scores
        return factors


class Popularity:
    """Weighted events per item, each counting 2^(-age / half-life); the same answer for everyone."""

    name = "popularity"

    def __init__(self, half_life_ms: float | None = 28 * DAY_MS) -> None:
        self.half_life_ms = half_life_ms
        self.vocabulary = Vocabulary.from_items([])
        self.popularity: Float32 = np.zeros(0, np.float32)

    def fit(self, log: Interactions) -> None:
        self.vocabulary = log.vocabulary
        self.popularity = popularity_of(log, self.half_life_ms)

    def score(self, batch: Batch) -> Float32:
        return np.tile(self.popularity, (len(batch), 1))

    def probabilities(self, batch: Batch) -> Float32:
        return shares(self.score(batch))

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        add_dense(out, self.probabilities(batch), weights)

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        return write_arrays(folder, prefix, {"popularity": self.popularity})

    def describe(self) -> dict[str, Any]:
        return {"half_life_ms": self.half_life_ms}


class Personal(Tied):
    """What the user took before, newer and repeated items first; then what is popular."""

    name = "personal"

    def __init__(self, decay: float = 0.9, half_life_ms: float | None = 28 * DAY_MS) -> None:
        super().__init__()
        self.decay = decay
        self.half_life_ms = half_life_ms
        self.vocabulary = Vocabulary.from_items([])

    def fit(self, log: Interactions) -> None:
        self.vocabulary = log.vocabulary
        self.popularity = popularity_of(log, self.half_life_ms)

    def offered(self, items: Int32, weights: Float32) -> tuple[Int32, Float32]:
        kept = items > 0
        return items[kept] - 1, weights[kept]

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        return write_arrays(folder, prefix, {"popularity": self.popularity})

    def describe(self) -> dict[str, Any]:
        return {"decay": self.decay, "half_life_ms": self.half_life_ms}


def popularity_of(log: Interactions, half_life_ms: float | None) -> Float32:
    """float32 [items]: kind-weighted counts, decayed towards the newest event where a half-life is given."""
    return np.bincount(log.items, log.event_weights(half_life_ms), len(log.vocabulary)).astype(np.float32)


def tie_of(popularity: Float32) -> Float32:
    """float32 [items]: popularity scaled so small that it only orders what else is equal."""
    scaled: Float32 = popularity * np.float32(TIE / max(float(popularity.max(initial=0.0)), 1e-12))
    return scaled


def add_ties(out: Float32, tie: Float32, factors: Float32) -> None:
    """Add in place to `out` [batch, items] `factors` [batch] times `tie` [items]."""
    for row in np.flatnonzero(factors):
        out[row] += factors[row] * tie
