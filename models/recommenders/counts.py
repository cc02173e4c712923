"""Recommenders that only count: what is popular, and what a user took before."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from models.recommenders.base import Floats, Vocabulary, add_dense, add_offered, shares, write_arrays
from models.recommenders.sequences import Batch, Log

TIE: Final = 1e-6
"""Weight of popularity beside what a history says: it orders what the history says nothing of."""
DAY_MS: Final = 24 * 60 * 60 * 1000


class Tied:
    """What popularity orders where a history says nothing: `tie` float32 [items], `tie_of` the popularity set last, and
    its sum `total`."""

    def __init__(self) -> None:
        self.popularity = np.zeros(0, np.float32)

    @property
    def popularity(self) -> Floats:
        """float32 [items]."""
        return self._popularity

    @popularity.setter
    def popularity(self, counts: Floats) -> None:
        self._popularity, self.tie = counts, tie_of(counts)
        self.total = float(self.tie.sum())


class Popularity:
    """Weighted events per item, each counting 2^(-age / half-life); the same answer for everyone."""

    name = "popularity"

    def __init__(self, half_life_ms: float | None = 28 * DAY_MS) -> None:
        self.half_life_ms = half_life_ms
        self.vocabulary = Vocabulary.of([])
        self.popularity: Floats = np.zeros(0, np.float32)

    def fit(self, log: Log) -> None:
        self.vocabulary = log.vocabulary
        self.popularity = popularity_of(log, self.half_life_ms)

    def score(self, batch: Batch) -> Floats:
        return np.tile(self.popularity, (len(batch), 1))

    def probabilities(self, batch: Batch) -> Floats:
        return shares(self.score(batch))

    def add(self, out: Floats, batch: Batch, weights: Floats) -> None:
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
        self.vocabulary = Vocabulary.of([])

    def fit(self, log: Log) -> None:
        self.vocabulary = log.vocabulary
        self.popularity = popularity_of(log, self.half_life_ms)

    def score(self, batch: Batch) -> Floats:
        scores = np.tile(self.tie, (len(batch), 1))
        add_own(scores, batch, batch.weights(self.decay))
        return scores

    def probabilities(self, batch: Batch) -> Floats:
        return shares(self.score(batch))

    def add(self, out: Floats, batch: Batch, weights: Floats) -> None:
        own = batch.weights(self.decay)
        for row in np.flatnonzero(weights):
            kept = batch.items[row] > 0
            offered = (batch.items[row][kept] - 1, own[row][kept])
            add_offered(out[row], self.tie, self.total, *offered, float(weights[row]))

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        return write_arrays(folder, prefix, {"popularity": self.popularity})

    def describe(self) -> dict[str, Any]:
        return {"decay": self.decay, "half_life_ms": self.half_life_ms}


def popularity_of(log: Log, half_life_ms: float | None) -> Floats:
    """float32 [items]: kind-weighted counts, decayed towards the newest event where a half-life is given."""
    return np.bincount(log.items, log.weights(half_life_ms), len(log.vocabulary)).astype(np.float32)


def tie_of(popularity: Floats) -> Floats:
    """float32 [items]: popularity scaled so small that it only orders what else is equal."""
    scaled: Floats = popularity * np.float32(TIE / max(float(popularity.max(initial=0.0)), 1e-12))
    return scaled


def add_own(scores: Floats, batch: Batch, weights: Floats) -> None:
    """Add in place `weights` [batch, length] to the scores [batch, items] of the history's own items."""
    rows, columns = np.nonzero(batch.items)
    np.add.at(scores, (rows, batch.items[rows, columns] - 1), weights[rows, columns])
