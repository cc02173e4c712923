"""What a network of events is trained on: stretches of histories, in both directions, with what is known of them."""

from itertools import pairwise
from typing import Final

import msgspec
import numpy as np

from models.arrays import AnyArray, Bool, Float32, Int32, Int64
from models.data.profiles import time_features
from models.synthesizers.details import gap_classes
from models.synthesizers.histories import Histories
from models.synthesizers.neural.params import SequenceParams

ELSEWHERE: Final = 20
"""At most this many events in another department or domain are read."""
NOTHING: Final = -1
START: Final = -2
"""Stands for the start token in a stretch of events."""
WANTED_SHARE: Final = 0.4
"""Share of stretches that are learned from with a preferred category or text, and with events elsewhere."""
MOVED_SHARE: Final = 0.3
"""Of a stretch's events, those that count as events elsewhere."""


class SequenceData(msgspec.Struct, frozen=True):
    """Events of users and what is known of items and users. Numbers of items begin at 1; `size` + 1 is the start token.

    `categories` int32 [items + 2] and `texts` float32 [items + 2, d] or None: of each number. `profiles` int32 [events,
    fields]: codes of the user's profile at each event.
    """

    histories: Histories
    size: int
    categories: Int32
    profiles: Int32
    texts: Float32 | None = None

    def take(self, users: Int64) -> "SequenceData":
        """The users of the given rows."""
        starts = self.histories.starts
        events = np.concatenate([np.arange(0), *(np.arange(starts[user], starts[user + 1]) for user in users.tolist())])
        return msgspec.structs.replace(self, histories=self.histories.take(users), profiles=self.profiles[events])

    def inputs(self, width: int) -> dict[str, AnyArray]:
        """One history of nothing of which nothing is known, by the names of the network's inputs."""
        inputs: dict[str, AnyArray] = {
            name: np.zeros((1, width), np.int32)
            for name in ("items", "kinds", "gaps", "next_gaps", "hours", "weekdays")
        }
        inputs |= {name: np.zeros(1, np.int32) for name in ("direction", "category")}
        inputs["elsewhere"] = np.zeros((1, ELSEWHERE), np.int32)
        if self.profiles.shape[1]:
            inputs["profile"] = np.zeros((1, self.profiles.shape[1]), np.int32)
        if self.texts is not None:
            inputs["text"] = np.zeros((1, self.texts.shape[1]), np.float32)
        return inputs


class Stretches(msgspec.Struct, frozen=True):
    """Stretches of users' events: `first` and `end` (exclusive) int64 [stretches], events of one user each.

    `scored` int64 [stretches]: how many of its last places count; those before are only read.
    """

    first: Int64
    end: Int64
    scored: Int64

    def __len__(self) -> int:
        return len(self.first)

    def take(self, rows: Int64) -> "Stretches":
        """The stretches of the given rows."""
        return Stretches(self.first[rows], self.end[rows], self.scored[rows])


def training_stretches(starts: Int64, window: int, rng: np.random.Generator) -> Stretches:
    """Histories cut into stretches of at most `window` events, long ones from a place drawn again for each epoch."""
    parts = []
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if end - begin <= window:
            cuts = [begin, end]
        else:
            cuts = sorted({begin, *range(begin + int(rng.integers(1, window + 1)), end, window), end})
        parts += list(pairwise(cuts))
    bounds = np.array([part for part in parts if part[1] > part[0]], np.int64).reshape(-1, 2)
    return Stretches(bounds[:, 0], bounds[:, 1], bounds[:, 1] - bounds[:, 0])


def scoring_stretches(starts: Int64, window: int) -> Stretches:
    """Histories cut so that every event counts once, those of long histories after at least half a window."""
    half, rows = max(1, window // 2), []
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        stop = min(end, begin + window)
        if stop > begin:
            rows.append((begin, stop, stop - begin))
        while stop < end:
            after = min(end, stop + half)
            rows.append((after - window, after, after - stop))
            stop = after
    columns = np.array(rows, np.int64).reshape(-1, 3)
    return Stretches(columns[:, 0], columns[:, 1], columns[:, 2])


def events_in_order(data: SequenceData, stretches: Stretches, backward: Bool) -> Int64:
    """int64 [stretches, 1 + longest]: events in the order of drawing, after the one before them or START; -1: none."""
    starts = data.histories.starts
    user = np.searchsorted(starts, stretches.first, side="right") - 1
    lengths = stretches.end - stretches.first
    places = np.arange(-1, int(lengths.max(initial=1)))[None]
    forward = stretches.first[:, None] + places
    reverse = stretches.end[:, None] - 1 - places
    events = np.where(backward[:, None], reverse, forward)
    outside = (events < starts[user][:, None]) | (events >= starts[user + 1][:, None])
    events = np.where(outside & (places == -1), START, events)
    ordered: Int64 = np.where(places < lengths[:, None], events, NOTHING)
    return ordered


def network_inputs(data: SequenceData, events: Int64, backward: Bool, width: int) -> tuple[dict[str, AnyArray], Int32]:
    """Inputs of the network and the events that follow them, int32 [rows, width], -1 for none.

    Stretches stand on the right, padding on the left. Nothing is said of profile, preferences and events elsewhere.
    """
    histories, rows = data.histories, len(events)
    lengths = (events[:, 1:] != NOTHING).sum(axis=1)
    order = np.arange(1, width + 1)[None] - (width - lengths)[:, None]
    padded = np.pad(events, ((0, 0), (0, max(0, width + 1 - events.shape[1]))), constant_values=NOTHING)
    aligned = np.take_along_axis(padded, np.clip(order, 0, padded.shape[1] - 1), axis=1)
    targets = np.where(order >= 1, aligned, NOTHING)
    before = np.where(
        order >= 1, np.take_along_axis(padded, np.clip(order - 1, 0, padded.shape[1] - 1), axis=1), NOTHING
    )
    earlier = np.where(order >= 2, np.take_along_axis(padded, np.clip(order - 2, 0, None), axis=1), NOTHING)
    codes = {
        "items": np.where(before >= 0, histories.items[before] + 1, np.where(before == START, data.size + 1, 0)),
        "kinds": np.where(before >= 0, histories.kinds[before] + 1, 0),
        "gaps": gap_codes(histories.at, before, earlier),
        "next_gaps": gap_codes(histories.at, targets, before),
    }
    moments = np.where((targets >= 0)[:, :, None], time_features(histories.at)[targets], 0)
    inputs: dict[str, AnyArray] = {name: column.astype(np.int32) for name, column in codes.items()}
    inputs["hours"], inputs["weekdays"] = moments[:, :, 0], moments[:, :, 1]
    inputs["direction"] = backward.astype(np.int32)
    for name, empty in data.inputs(width).items():
        inputs.setdefault(name, np.repeat(empty, rows, axis=0))
    return inputs, targets.astype(np.int32)


def gap_codes(at: Int64, events: Int64, earlier: Int64) -> Int32:
    """int32 like `events`: 1 + the class of the time since the `earlier` events; 0 where one of them is none."""
    both = (events >= 0) & (earlier >= 0)
    classes = gap_classes(np.abs(at[events] - at[earlier])) + 1
    return np.where(both, classes, 0).astype(np.int32)


def with_conditions(
    data: SequenceData, events: Int64, params: SequenceParams, rng: np.random.Generator
) -> tuple[Int64, dict[str, AnyArray]]:
    """Stretches less what counts as elsewhere, and the conditions of each, drawn: profile, preference, elsewhere.

    A preference is the category, or the text, of one of the stretch's own events. Events elsewhere are those of one
    of its categories, or any: they no longer stand in the stretch.
    """
    rows = np.arange(len(events))
    events, elsewhere = _without_elsewhere(data, events, rng)
    lengths = (events[:, 1:] != NOTHING).sum(axis=1)
    some = events[rows, 1 + (rng.random(len(rows)) * lengths).astype(np.int64)]
    item = data.histories.items[some] + 1
    last = events[rows, lengths]
    shown = rng.random((2, len(rows))) < WANTED_SHARE * (1 - params.condition_dropout)
    conditions: dict[str, AnyArray] = {"elsewhere": elsewhere}
    conditions["category"] = np.where(shown[0], data.categories[item], 0).astype(np.int32)
    if data.texts is not None:
        conditions["text"] = (data.texts[item] * shown[1][:, None]).astype(np.float32)
    if data.profiles.shape[1]:
        kept = rng.random((len(rows), 1)) >= params.condition_dropout
        conditions["profile"] = np.where(kept, data.profiles[last], 0).astype(np.int32)
    return events, conditions


def _without_elsewhere(data: SequenceData, events: Int64, rng: np.random.Generator) -> tuple[Int64, Int32]:
    own = events[:, 1:]
    real = own != NOTHING
    rows = np.arange(len(events))
    categories = np.where(real, data.categories[data.histories.items[own] + 1], -1)
    some = categories[rows, (rng.random(len(rows)) * real.sum(axis=1)).astype(np.int64)]
    by_category = (rng.random(len(rows)) < 0.5) & (some > 0)
    drawn = rng.random(own.shape)
    moved = real & np.where(by_category[:, None], categories == some[:, None], drawn < MOVED_SHARE)
    chosen = rng.random(len(rows)) < WANTED_SHARE
    moved &= (chosen & ((real & ~moved).sum(axis=1) > 0))[:, None]
    order = np.argsort(~moved, axis=1, kind="stable")[:, :ELSEWHERE]
    there = np.take_along_axis(np.where(moved, own, NOTHING), order, axis=1)
    elsewhere = np.zeros((len(rows), ELSEWHERE), np.int32)
    elsewhere[:, : there.shape[1]] = np.where(there >= 0, data.histories.items[there] + 1, 0)
    left = np.where(moved, NOTHING, own)
    kept = np.take_along_axis(left, np.argsort(left == NOTHING, axis=1, kind="stable"), axis=1)
    return np.column_stack([events[:, :1], kept]), elsewhere
