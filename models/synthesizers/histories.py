"""Users' histories as ragged arrays: what a synthesizer learns from and what it generates."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import pandas as pd

from features.activity import History
from models.arrays import Float32, Int32, Int64
from models.data.interactions import Interactions
from models.data.profiles import Profile
from models.data.vocabulary import Vocabulary
from stream.events import KINDS


class Histories(msgspec.Struct, frozen=True):
    """Events of users, each user's together and in time order.

    Row `u` has the events `starts[u]` to `starts[u + 1]` (exclusive), `starts` int64 [users + 1]. Per event: `items`
    int32 (indices of the vocabulary), `kinds` int32 (event codes), `at` int64 (epoch ms), `values` float32 (nan where
    there is none), `sessions` int32 (number of the user's session, from 0). `profiles`: attributes per user, or empty.
    """

    starts: Int64
    items: Int32
    kinds: Int32
    at: Int64
    values: Float32
    sessions: Int32
    profiles: tuple[Profile | None, ...] = ()

    @classmethod
    def from_interactions(cls, interactions: Interactions, session_gap_ms: int = 30 * 60 * 1000) -> "Histories":
        """The users of `interactions`, in the order of their codes, without profiles."""
        starts = np.searchsorted(interactions.users, np.arange(interactions.user_count + 1)).astype(np.int64)
        values = interactions.values
        if values is None:
            values = np.full(len(interactions), np.nan, np.float32)
        sessions = session_numbers(starts, interactions.at, session_gap_ms)
        return cls(starts, interactions.items, interactions.kinds, interactions.at, values, sessions)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Int64:
        """int64 [users]: events of each user."""
        result: Int64 = np.diff(self.starts)
        return result

    @property
    def users(self) -> Int64:
        """int64 [events]: the row of each event's user."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, rows: Int64) -> "Histories":
        """The users of the given rows (int64 [n]), in that order."""
        lengths = self.lengths[rows]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        events = np.repeat(self.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])
        columns = (self.items, self.kinds, self.at, self.values, self.sessions)
        items, kinds, at, values, sessions = (column[events] for column in columns)
        profiles = tuple(self.profiles[row] for row in rows.tolist()) if self.profiles else ()
        return Histories(starts, items, kinds, at, values, sessions, profiles)

    def history(self, row: int, vocabulary: Vocabulary) -> History:
        """One user's events with item ids."""
        events = slice(int(self.starts[row]), int(self.starts[row + 1]))
        values = [None if np.isnan(value) else float(value) for value in self.values[events]]
        items = [vocabulary.item_ids[item] for item in self.items[events].tolist()]
        return History(items, self.kinds[events].tolist(), self.at[events].tolist(), values)

    def frame(self, vocabulary: Vocabulary, prefix: str = "synthetic-") -> pd.DataFrame:
        """Columns user_id, item_id, kind, value, at, session_id, users one after another; ids begin with `prefix`."""
        users = self.users
        names = [f"{prefix}{user}" for user in users.tolist()]
        return pd.DataFrame(
            {
                "user_id": names,
                "item_id": [vocabulary.item_ids[item] for item in self.items.tolist()],
                "kind": [KINDS[kind] for kind in self.kinds.tolist()],
                "value": self.values.astype(np.float64),
                "at": self.at,
                "session_id": [f"{name}-{session}" for name, session in zip(names, self.sessions, strict=True)],
            }
        )


NONE: Final = Histories(
    np.zeros(1, np.int64),
    np.zeros(0, np.int32),
    np.zeros(0, np.int32),
    np.zeros(0, np.int64),
    np.zeros(0, np.float32),
    np.zeros(0, np.int32),
)
"""No users."""


def joined(parts: Sequence[Histories]) -> Histories:
    """The users of several histories, one after another; none where there are no parts."""
    parts = [NONE, *parts]
    offsets = np.cumsum([0, *(len(part.items) for part in parts[:-1])])
    starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=True)]
    end = np.array([sum(len(part.items) for part in parts)], np.int64)
    return Histories(
        np.concatenate([*starts, end]).astype(np.int64),
        np.concatenate([part.items for part in parts]),
        np.concatenate([part.kinds for part in parts]),
        np.concatenate([part.at for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.sessions for part in parts]),
        tuple(profile for part in parts for profile in part.profiles),
    )


def session_numbers(starts: Int64, at: Int64, session_gap_ms: int) -> Int32:
    """int32 [events]: the number of each event's session within its user, from 0.

    A session ends where the next event comes more than `session_gap_ms` later.

    >>> session_numbers(np.array([0, 3]), np.array([0, 1_000, 9_000_000]), 1_800_000).tolist()
    [0, 0, 1]
    """
    breaks = np.zeros(len(at), np.int64)
    breaks[1:] = np.diff(at) > session_gap_ms
    total = np.cumsum(breaks)
    firsts = starts[:-1][np.diff(starts) > 0]
    lengths = np.diff(starts)[np.diff(starts) > 0]
    numbers: Int32 = (total - np.repeat(total[firsts], lengths)).astype(np.int32)
    return numbers
