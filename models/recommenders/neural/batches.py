"""What training is fed: windows in shuffled batches of one size, places that something follows packed."""

from typing import Any, Final

import keras
import numpy as np

from models.arrays import AnyArray, Float32, Float64, Int32
from models.data.interactions import Interactions
from models.data.profiles import time_features
from models.data.windows import Windows
from models.recommenders.item_knn import ItemKNN
from models.recommenders.neural.augmentation import augmented
from models.recommenders.neural.distillation import Lessons, add_lessons
from models.recommenders.neural.params import Params

SIMILAR: Final = 10
"""Number of similar items that may stand in for an item."""


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
    """Batches of windows, the last of an epoch filled up. A batch depends on seed, epoch and number alone.

    Each place has the profile as it was known before the event that it is to predict, and the moment of that event. A
    share of windows is learned from without a profile, so that those who have none are served well: input dropout, as
    DropoutNet (Volkovs, Yu & Poutanen, NeurIPS 2017) hides what will be missing when it counts.

    `probability` float64 [items]: chance of each item to be drawn as a negative, None where none are. `near` int32
    [items + 1, n]: similar items by number, for substitution. `lessons`: a teacher's answers; histories of them follow
    the windows in each batch.
    """

    def __init__(
        self,
        windows: Windows,
        params: Params,
        probability: Float64 | None = None,
        near: Int32 | None = None,
        lessons: Lessons | None = None,
    ) -> None:
        super().__init__(workers=max(1, params.workers))
        self.windows, self.params, self.near, self.lessons = windows, params, near, lessons
        self.cumulative = np.cumsum(probability) if probability is not None else None
        self.epoch = 0
        self.order = self._rng().permutation(len(windows))
        followed = (windows.next_stop > windows.next_start).sum(axis=1)
        most = params.batch_size * min(float(followed.max()), float(followed.mean() + 3 * followed.std() / 8))
        self.places = max(64, -(-int(most) // 64) * 64)
        self.values = windows.event_values if params.valued else None
        profiles = windows.event_profiles
        self.known = profiles if params.reads_profile and profiles and len(profiles.schema) else None
        times = windows.event_times
        self.moments = time_features(times) if params.reads_time and times is not None else None

    def __len__(self) -> int:
        return max(1, -(-len(self.windows) // self.params.batch_size))

    def __getitem__(self, number: int) -> tuple[dict[str, Any], Any]:
        size, rng = self.params.batch_size, self._rng(number + 1)
        rows = self.order[np.arange(number * size, (number + 1) * size) % len(self.order)]
        batch, drawn = self.windows.batch.take(rows), self.windows.sample_next(rows, rng)
        batch, drawn = augmented(batch, drawn, self.params, self.near, rng)
        places = np.flatnonzero(drawn.ravel() >= 0)
        if len(places) > self.places:
            places = np.sort(rng.choice(places, self.places, replace=False))
        next_events = drawn.ravel()[places]
        x: dict[str, Any] = {"items": batch.items, "kinds": batch.kinds, "gaps": batch.gaps}
        x["places"] = self._packed(places.astype(np.int32))
        if self.cumulative is not None:
            chosen = np.searchsorted(self.cumulative, rng.random(self.params.negatives)).astype(np.int32) + 1
            x["negatives"] = np.minimum(chosen, len(self.cumulative)).astype(np.int32)
        if self.values is not None:
            values = self._packed(self.values[next_events])
            x["values"], x["valued"] = np.nan_to_num(values), (~np.isnan(values)).astype(np.float32)
        there = (drawn >= 0)[:, :, None]
        if self.known is not None:
            known = there & (rng.random((len(drawn), 1, 1)) >= self.params.profile_dropout)
            x["profile"] = np.where(known, self.known.table[self.known.rows[drawn]], 0)
        if self.moments is not None:
            x["time_features"] = np.where(there, self.moments[drawn], 0)
        if self.lessons is not None:
            add_lessons(x, self.lessons, self.params, rng)
        return x, self._packed(self.windows.event_items[next_events])

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self.order = self._rng().permutation(len(self.windows))

    def _packed(self, column: AnyArray) -> AnyArray:
        return np.pad(column, (0, self.places - len(column)))

    def _rng(self, number: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.params.seed, self.epoch, number])


def standard(log: Interactions) -> tuple[Float32, tuple[float, float]]:
    """Values float32 [events] in deviations from their kind's mean, nan where there is none; and one kind's scale.

    The scale is the mean and the standard deviation of the kind that most values are of; 0 and 1 without any.
    """
    values = log.values if log.values is not None else np.full(len(log), np.nan, np.float32)
    scaled, scale, most = np.full(len(log), np.nan, np.float32), (0.0, 1.0), 0
    for kind in np.unique(log.kinds[~np.isnan(values)]):
        rows = np.flatnonzero((log.kinds == kind) & ~np.isnan(values))
        mean, deviation = float(values[rows].mean()), float(values[rows].std()) or 1.0
        scaled[rows] = (values[rows] - mean) / deviation
        if len(rows) > most:
            scale, most = (mean, deviation), len(rows)
    return scaled, scale


def similar(log: Interactions) -> Int32:
    """int32 [items + 1, n]: numbers of the items that are taken together most, 0 where there are fewer."""
    near = ItemKNN(ItemKNN.Params(neighbors=SIMILAR)).relate(log)[0]
    return np.concatenate([np.zeros((1, near.shape[1]), np.int32), near + 1]).astype(np.int32)
