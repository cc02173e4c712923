"""Parts of users' histories to learn from: some known events, and those that follow them or, backward, precede them."""

from typing import Any, Final

import msgspec
import numpy as np

from models.arrays import Int32, Int64
from models.data.interactions import Interactions
from models.data.profiles import ProfileSchema
from models.synthesizers.histories import Histories

EARLY: Final = 6
"""Half of the windows begin within a user's first events, so that short histories are learned best."""
HIDDEN: Final = 0.1
"""The share of backward windows in which nothing is known: what precedes an unknown end."""
PROFILE_SHOWN: Final = 0.7
CATEGORY_SHOWN: Final = 0.3
"""Shares of windows that are learned with the profile, and with the category of one of their items."""


class SequenceWindows(msgspec.Struct, frozen=True):
    """Windows as numbers of items (index + 1, 0 for padding) with what is known about each.

    `known` int32 [windows, known], padded on the left, and `events` int32 [windows, length], padded on the right, both
    in the order of drawing. `profiles` int32 [windows, attributes], `categories` int32 [windows]: codes, 0 for unknown.
    `backward` int32 [windows]: 1 where time runs backward.
    """

    known: Int32
    events: Int32
    profiles: Int32
    categories: Int32
    backward: Int32

    def __len__(self) -> int:
        return len(self.events)

    def take(self, rows: Int64) -> "SequenceWindows":
        """The windows of the given rows (int64 [n])."""
        return SequenceWindows(**{name: getattr(self, name)[rows] for name in self.__struct_fields__})

    def inputs(self) -> dict[str, Any]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


class WindowSource:
    """Draws windows of users of `interactions`; each user gives one for every `length` events, at random places."""

    def __init__(self, interactions: Interactions, length: int, known: int) -> None:
        self.histories = Histories.from_interactions(interactions)
        self.length, self.known = length, known
        self.categories = interactions.categories
        profiles = interactions.profiles
        self.schema = profiles.schema if profiles is not None else ProfileSchema()
        no_codes = np.zeros((len(interactions), 0), np.int32)
        self.codes = profiles.table[profiles.rows] if profiles is not None else no_codes

    def draw(self, users: Int64, rng: np.random.Generator) -> SequenceWindows:
        """Windows of the given users (rows of the histories), in a random order."""
        lengths = self.histories.lengths[users]
        rows = rng.permutation(np.repeat(users, -(-lengths // self.length)))
        lengths = self.histories.lengths[rows]
        early = rng.random(len(rows)) < 0.5
        places = (rng.random(len(rows)) * np.where(early, np.minimum(lengths, EARLY), lengths)).astype(np.int64)
        backward = rng.random(len(rows)) < 0.5
        places = np.where(backward, (rng.random(len(rows)) * lengths).astype(np.int64), places)
        return self._cut(rows, places, backward.astype(np.int32), rng)

    def _cut(self, rows: Int64, places: Int64, backward: Int32, rng: np.random.Generator) -> SequenceWindows:
        begin, stop = self.histories.starts[rows], self.histories.starts[rows + 1]
        at = begin + places
        sign: Int64 = np.where(backward, -1, 1).astype(np.int64)
        following: Int64 = at[:, None] + sign[:, None] * np.arange(self.length)
        before: Int64 = at[:, None] - sign[:, None] * np.arange(self.known, 0, -1)
        events, known = self._numbers(following, begin, stop), self._numbers(before, begin, stop)
        known[(backward == 1) & (rng.random(len(rows)) < HIDDEN)] = 0
        shown = rng.random((len(rows), 1)) < PROFILE_SHOWN
        profiles = np.where(shown, self.codes[at], 0).astype(np.int32)
        chosen = (rng.random(len(rows)) * (events > 0).sum(axis=1)).astype(np.int64)
        categories = self.categories[events[np.arange(len(rows)), chosen] - 1]
        categories = np.where(rng.random(len(rows)) < CATEGORY_SHOWN, categories, 0).astype(np.int32)
        return SequenceWindows(known, events, profiles, categories, backward)

    def _numbers(self, positions: Int64, begin: Int64, stop: Int64) -> Int32:
        inside = (positions >= begin[:, None]) & (positions < stop[:, None])
        items = self.histories.items[np.clip(positions, 0, len(self.histories.items) - 1)]
        numbers: Int32 = np.where(inside, items + 1, 0).astype(np.int32)
        return numbers
