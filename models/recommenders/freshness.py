"""Freshness: items lose half their score with every half-life of their age, and what is popular right now mixes in.

News age within hours, and a release knows nothing of the last minutes. All of it is relative: ages against the newest
item, live counts as shares. So the arrays stay right while time passes, until something is counted.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
import pandas as pd
from msgspec import Meta

from models.arrays import Float32, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.errors import TrainingError
from models.recommenders import tuning_space
from models.recommenders.base import Recommender, RecommenderSpec, TuningContext, checked, write_arrays
from models.recommenders.sparse import popularity_of
from models.recommenders.tuning_space import DAY_MS, MIN_DAYS

if TYPE_CHECKING:
    from optuna import Trial

FIRST_SEEN: Final = "first-seen"
"""The array of a release that says when each item was first seen, int64 [items], epoch ms."""
INSIDE: Final = ("sequential-rules", "item-knn")
"""The recommenders that freshness can be evaluated around."""
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
    scale_by_prior(probabilities, prior, np.full(len(probabilities), 1 - weight, np.float32))
    probabilities += np.float32(weight) * live
    return probabilities


def scale_by_prior(probabilities: Float32, prior: Float32 | None, sums: Float32) -> None:
    """Multiply in place `probabilities` float32 [batch, items] by `prior` [items], and scale rows to `sums` [batch]."""
    if prior is not None:
        probabilities *= prior
    totals = np.maximum(probabilities.sum(axis=1), np.float32(1e-12))
    probabilities *= (sums / totals)[:, None]


class Fresh(Recommender, RecommenderSpec):
    """A recommender with freshness, as a look-up at the end of the interactions sees it. For evaluations only: the
    look-up path applies freshness itself."""

    name = "fresh"

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """`half_life_ms` of an item's score by its age (None: no decay), `live_half_life_ms` of live popularity, and
        `live`, the share of live popularity. The defaults are those of the shipped preset for news."""

        inside: str = INSIDE[0]
        half_life_ms: Annotated[float, Meta(gt=0)] | None = 8.0 * DAY_MS
        live_half_life_ms: Annotated[float, Meta(gt=0)] = DAY_MS / 72
        live: Annotated[float, Meta(ge=0, le=1)] = 0.8

    def __init__(self, inside: Recommender, params: Params | None = None) -> None:
        self.inside, self.params = inside, params or self.Params(inside=inside.name)
        self.vocabulary = inside.vocabulary
        self.prior: Float32 | None = None
        self.popularity: Float32 = np.zeros(0, np.float32)

    def fit(self, interactions: Interactions) -> None:
        self.inside.fit(interactions)
        self.vocabulary = interactions.vocabulary
        unseen = np.iinfo(np.int64).max
        first = np.full(len(interactions.vocabulary), unseen)
        np.minimum.at(first, interactions.items, interactions.at)
        first = np.where(first == unseen, int(interactions.at.max(initial=0)), first)
        half_life_ms = self.params.half_life_ms
        self.prior = prior_of(first, half_life_ms) if half_life_ms is not None else None
        self.popularity = popularity_of(interactions, self.params.live_half_life_ms)

    def score(self, batch: Batch) -> Float32:
        live = self.popularity / np.float32(max(float(self.popularity.sum()), 1e-12))
        return mix(self.inside.probabilities(batch), self.prior, live, self.params.live)

    def probabilities(self, batch: Batch) -> Float32:
        return self.score(batch)

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        """The files of the recommender inside; freshness itself depends on the time of the look-up."""
        return self.inside.save(folder, prefix)

    def describe(self) -> dict[str, Any]:
        return {**msgspec.structs.asdict(self.params), "inside": self.inside.name}

    @classmethod
    def create(cls, params: Mapping[str, Any], context: TuningContext, seed: int = 0) -> Recommender:
        """With the recommender `inside`, which has its own defaults."""
        from models.recommenders import registry  # which names this class

        settings = checked(cls.Params, params, cls.name)
        if settings.inside not in INSIDE:
            raise TrainingError(f"fresh: inside={settings.inside!r} cannot be; give {' or '.join(INSIDE)}")
        return cls(registry.create(settings.inside, {}, context, seed), settings)

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:
        shortest, longest = MIN_DAYS, max(2 * MIN_DAYS, context.days)
        return {
            "inside": trial.suggest_categorical("inside", list(INSIDE)),
            "half_life_ms": tuning_space.half_life(trial, context),
            "live_half_life_ms": trial.suggest_float("live_half_life_days", shortest, longest, log=True) * DAY_MS,
            "live": trial.suggest_float("live", 0.0, 1.0),
        }
