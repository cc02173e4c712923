"""What an event has besides its item (kind, time since the event before, value), drawn from observed ones."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from models.arrays import AnyArray, Bool, Float32, Float64, Int32, Int64
from models.data.interactions import Interactions
from models.synthesizers.histories import Histories
from models.synthesizers.profiles import ProfileModel
from models.synthesizers.streams import RandomStreams
from stream.events import KINDS

DAY_MS: Final = 24 * 60 * 60 * 1000
GAP_CLASSES: Final = 32
"""Classes of the time between two events: 0 for the same millisecond, then powers of two of seconds."""
POOL: Final = 200_000
"""At most this many observed gaps, first times, lengths and values are kept, an even sample of all."""
BACK_OFF: Final = 5.0
"""Pseudo-events by which an item's kinds and a gap's followers are drawn towards those of all."""
KIND, GAP, CLOCK, VALUE, LENGTH, BEGIN = range(1, 7)
"""Uses of a history's random numbers."""


class EventDetails:
    """Kinds, gaps, values and lengths as observed: an empirical distribution of each, by what it depends on most.

    A kind depends on the item. A gap depends on the class of the gap before it; after a gap of a day or more the time
    of day is drawn apart, so that it stays realistic. A value is one of the item's own for that kind. All but the kinds
    are drawn from pools of observed values. `profiles` generates the profiles of users.
    """

    def __init__(self) -> None:
        self.item_kinds: Float32 = np.zeros((0, len(KINDS)), np.float32)
        self.gaps: Int64 = np.zeros(0, np.int64)
        self.gap_starts: Int64 = np.zeros(GAP_CLASSES + 2, np.int64)
        self.clock: Int64 = np.zeros(1, np.int64)
        self.begins: Int64 = np.zeros(1, np.int64)
        self.counts: Int64 = np.ones(1, np.int64)
        self.values: Float32 = np.zeros(0, np.float32)
        self.value_keys: Int64 = np.zeros(0, np.int64)
        self.profiles = ProfileModel()

    def fit(self, interactions: Interactions) -> None:
        """Learn from interactions."""
        histories = Histories.from_interactions(interactions)
        items = len(interactions.vocabulary)
        table = np.zeros((items, len(KINDS)), np.float64)
        np.add.at(table, (histories.items, histories.kinds), 1.0)
        overall = table.sum(axis=0) / max(1.0, table.sum())
        table += BACK_OFF * overall
        self.item_kinds = (table / np.maximum(table.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)
        if not len(interactions):
            return
        self._fit_times(histories)
        self.profiles.fit(interactions)
        self.counts = sampled(np.sort(histories.lengths[histories.lengths > 0]))
        self._fit_values(histories)

    def _fit_times(self, histories: Histories) -> None:
        at, starts = histories.at, histories.starts[:-1]
        first = np.zeros(len(at), np.bool_)
        first[starts[histories.lengths > 0]] = True
        gaps = np.where(first, 0, np.diff(at, prepend=at[:1]))
        before = np.where(first, GAP_CLASSES, gap_classes(np.roll(gaps, 1)))
        before[1:] = np.where(first[:-1], GAP_CLASSES, before[1:])  # the second event has no gap before its own
        before, gaps = before[~first], gaps[~first]
        kept = even(len(gaps))
        before, gaps = before[kept], gaps[kept]
        order = np.lexsort((gaps, before))
        self.gaps = gaps[order]
        self.gap_starts = np.searchsorted(before[order], np.arange(GAP_CLASSES + 2)).astype(np.int64)
        self.clock = sampled(np.sort(at % DAY_MS))
        self.begins = sampled(np.sort(at[first]))

    def _fit_values(self, histories: Histories) -> None:
        keys = histories.items.astype(np.int64) * len(KINDS) + histories.kinds
        known = np.flatnonzero(~np.isnan(histories.values))
        known = known[even(len(known))]
        order = known[np.lexsort((histories.values[known], keys[known]))]
        self.value_keys, self.values = keys[order], histories.values[order]

    def draw_lengths(self, streams: RandomStreams, known: Int64, most: int) -> Int64:
        """int64 [rows]: how many events follow `known` int64 [rows], at least 1, at most `most`.

        Drawn from users with more than `known` events; where there are none, 1.
        """
        low = np.searchsorted(self.counts, known, side="right")
        left = len(self.counts) - low
        places = low + (streams.uniform(0, LENGTH)[:, 0] * left).astype(np.int64)
        drawn = self.counts[np.minimum(places, len(self.counts) - 1)] - known
        lengths: Int64 = np.clip(np.where(left > 0, drawn, 1), 1, most)
        return lengths

    def draw_begin(self, streams: RandomStreams) -> Int64:
        """int64 [rows]: times of a first event, epoch ms."""
        begins: Int64 = self.begins[_places(streams.uniform(0, BEGIN)[:, 0], len(self.begins))]
        return begins

    def draw_gaps(self, streams: RandomStreams, step: int, before: Int32) -> Int64:
        """int64 [rows]: ms between two events, after a gap of class `before` int32 [rows] (GAP_CLASSES: none)."""
        if not len(self.gaps):
            return np.full(len(before), DAY_MS, np.int64)
        uniform = streams.uniform(step, GAP, 2)
        low, high = self.gap_starts[before], self.gap_starts[before + 1]
        own = uniform[:, 1] < (high - low) / (high - low + BACK_OFF)
        low, high = np.where(own, low, 0), np.where(own, high, len(self.gaps))
        drawn: Int64 = self.gaps[low + _places(uniform[:, 0], high - low)]
        return drawn

    def at_plausible_hour(self, streams: RandomStreams, step: int, at: Int64, gaps: Int64) -> Int64:
        """int64 [rows]: times `at` (epoch ms), those after a gap of a day or more moved to an observed time of day."""
        clock = self.clock[_places(streams.uniform(step, CLOCK)[:, 0], len(self.clock))]
        moved: Int64 = np.where(np.abs(gaps) >= DAY_MS, at - at % DAY_MS + clock, at)
        return moved

    def draw_kinds(self, streams: RandomStreams, step: int, items: Int32) -> Int32:
        """int32 [rows]: event codes, for items int32 [rows]."""
        cumulative = np.cumsum(self.item_kinds[items], axis=1, dtype=np.float64)
        uniform = streams.uniform(step, KIND) * cumulative[:, -1:]
        kinds: Int32 = (cumulative < uniform).sum(axis=1).astype(np.int32)
        return kinds

    def draw_values(self, streams: RandomStreams, step: int, items: Int32, kinds: Int32) -> Float32:
        """float32 [rows]: an observed value of each item and kind; nan where the item never had one."""
        keys = items.astype(np.int64) * len(KINDS) + kinds
        low = np.searchsorted(self.value_keys, keys)
        high = np.searchsorted(self.value_keys, keys, side="right")
        some: Bool = high > low
        if not some.any():
            return np.full(len(items), np.nan, np.float32)
        places = np.where(some, low + _places(streams.uniform(step, VALUE)[:, 0], high - low), 0)
        values: Float32 = np.where(some, self.values[places], np.nan).astype(np.float32)
        return values

    def arrays(self) -> dict[str, AnyArray]:
        """The state by name."""
        own = {name: array for name, array in vars(self).items() if name != "profiles"}
        return {**own, **{f"profiles-{name}": array for name, array in self.profiles.arrays().items()}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "EventDetails":
        """From what `arrays` returned. Raises KeyError where one is missing."""
        details = cls()
        for name in vars(cls()):
            if name != "profiles":
                setattr(details, name, arrays[name])
        details.profiles = ProfileModel.from_arrays(
            {name.removeprefix("profiles-"): array for name, array in arrays.items() if name.startswith("profiles-")}
        )
        return details


def gap_classes(gaps: Int64) -> Int32:
    """int32 [n]: the class of each gap (ms): 0 for 0, then 1 + floor(log2(1 + seconds)), at most GAP_CLASSES - 1.

    >>> gap_classes(np.array([0, 500, 3_000])).tolist()
    [0, 1, 3]
    """
    classes = 1 + np.log2(1 + np.maximum(gaps, 0) / 1000).astype(np.int32)
    result: Int32 = np.where(gaps <= 0, 0, np.minimum(classes, GAP_CLASSES - 1)).astype(np.int32)
    return result


def even(n: int, most: int = POOL) -> Int64:
    """int64 [<= most]: positions evenly spread over `n`."""
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)


def sampled(values: Int64) -> Int64:
    """An even sample of at most POOL values."""
    return values[even(len(values))]


def _places(uniform: Float64, sizes: Int64 | int) -> Int64:
    """int64 [rows]: a place below each size, for uniform numbers in (0, 1)."""
    places: Int64 = np.minimum((uniform * sizes).astype(np.int64), np.maximum(np.asarray(sizes) - 1, 0))
    return places
