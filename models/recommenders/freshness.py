"""Freshness: items lose half their score with every half-life of their age, and what is popular right now mixes in.

News age within hours, and a release knows nothing of the last minutes. All of it is relative: ages against the newest
item, live counts as shares. So the arrays stay right while time passes, until something is counted.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from models.arrays import Float32, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.base import Recommender, write_arrays
from models.recommenders.popularity import popularity_of

FIRST_SEEN: Final = "first-seen"
"""The array of a release that says when each item was first seen, int64 [items], epoch ms."""
FLOOR: Final = 1e-6
"""What the oldest items keep: a reader of nothing but old items still gets the best of them."""


def first_seen(frame: pd.DataFrame, vocabulary: Vocabulary) -> Int64:
    """int64 [items], epoch ms: the time of each item's first event, of whatever kind.

    Items that the catalogue knows and nobody took are as new as the newest.
    """
    first = frame.groupby("item_id", sort=False)["at"].min()
    newest = int(first.max()) if len(first) else 0
    return first.reindex(vocabulary.item_ids, fill_value=newest).to_numpy(np.int64)


def save_first(folder: Path, frame: pd.DataFrame, vocabulary: Vocabulary) -> list[str]:
    """Write `first_seen` into a release's folder; the file's name."""
    return write_arrays(folder, "", {FIRST_SEEN: first_seen(frame, vocabulary)})


def prior_of(first: Int64, half_life_ms: float) -> Float32:
    """float32 [items]: 2^(-age / half-life), the newest item's age being 0; at least `FLOOR`."""
    ages = float(first.max(initial=0)) - first.astype(np.float64)
    prior: Float32 = np.maximum(np.exp2(-ages / half_life_ms), FLOOR).astype(np.float32)
    return prior


def mix(probabilities: Float32, prior: Float32 | None, live: Float32, weight: float) -> Float32:
    """float32 [batch, items]: (1 - weight) of probabilities times prior, scaled to sum to one, and weight of live.

    `probabilities` [batch, items] are written over; `prior` and `live` (shares) are [items].
    """
    if prior is not None:
        probabilities *= prior
    sums = probabilities.sum(axis=1, keepdims=True)
    probabilities *= np.float32(1 - weight) / np.maximum(sums, np.float32(1e-12))
    probabilities += np.float32(weight) * live
    return probabilities


class Fresh:
    """A recommender with freshness around it, as a look-up sees it at the end of the log that it was fitted on."""

    name = "fresh"

    def __init__(
        self, inside: Recommender, half_life_ms: float | None, live_half_life_ms: float, live: float = 0.5
    ) -> None:
        self.inside = inside
        self.half_life_ms, self.live_half_life_ms, self.live = half_life_ms, live_half_life_ms, live
        self.vocabulary = inside.vocabulary
        self.prior: Float32 | None = None
        self.popularity: Float32 = np.zeros(0, np.float32)

    def fit(self, log: Interactions) -> None:
        self.inside.fit(log)
        self.vocabulary = log.vocabulary
        unseen = np.iinfo(np.int64).max
        first = np.full(len(log.vocabulary), unseen)
        np.minimum.at(first, log.items, log.at)
        first = np.where(first == unseen, int(log.at.max(initial=0)), first)
        self.prior = prior_of(first, self.half_life_ms) if self.half_life_ms is not None else None
        self.popularity = popularity_of(log, self.live_half_life_ms)

    def score(self, batch: Batch) -> Float32:
        shares = self.popularity / np.float32(max(float(self.popularity.sum()), 1e-12))
        return mix(self.inside.probabilities(batch), self.prior, shares, self.live)

    def probabilities(self, batch: Batch) -> Float32:
        return self.score(batch)

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        out += weights[:, None] * self.score(batch)

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        """What is inside is saved; freshness itself is of the moment, and of the domain's preset."""
        return self.inside.save(folder, prefix)

    def describe(self) -> dict[str, Any]:
        """Freshness, and the name of what is inside; that has its defaults where a candidate is made of it."""
        mine = {"half_life_ms": self.half_life_ms, "live_half_life_ms": self.live_half_life_ms, "live": self.live}
        return {"inside": self.inside.name, **mine}
