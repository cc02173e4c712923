"""Training windows: stretches of users' histories, and for each position the events that may come next."""

import msgspec
import numpy as np

from models.arrays import Float32, Int32, Int64
from models.data.batch import START, Batch, gap_buckets
from models.data.interactions import Interactions
from models.data.profiles import EventProfiles


class Windows(msgspec.Struct, frozen=True):
    """Stretches of histories, and for each position the range of events that may come next.

    `batch` holds [n, length]. `next_start` and `next_stop` int64 [n, length]: the event after a position is drawn from
    `event_items[next_start:next_stop]`; there is none where both are equal. Per event, users one after another:
    `event_items` int32 (item numbers), `event_values` float32 (nan where there is none), `event_times` int64 (epoch
    ms), `event_profiles` (what was known of the user before the event), each [events].
    """

    batch: Batch
    next_start: Int64
    next_stop: Int64
    event_items: Int32
    event_values: Float32 | None = None
    event_times: Int64 | None = None
    event_profiles: EventProfiles | None = None

    def __len__(self) -> int:
        return len(self.next_start)

    def sample_next(self, rows: Int64, rng: np.random.Generator) -> Int64:
        """int64 [rows, length]: for each position one sampled next event, as an event's position; -1 for none."""
        start, stop = self.next_start[rows], self.next_stop[rows]
        sampled = start + (rng.random(start.shape) * (stop - start)).astype(np.int64)
        events: Int64 = np.where(stop > start, np.minimum(sampled, len(self.event_items) - 1), -1)
        return events


def cut_windows(
    interactions: Interactions, length: int, windows_per_user: int, *, baskets: bool = True, start_token: bool = False
) -> Windows:
    """Each user's newest `windows_per_user * length` events, cut from the newest backwards.

    With `baskets`, events of one user with the same time (a basket, an import by day) have no order among themselves:
    the next event of each of them is one of the user's next time, sampled again in every epoch. Without, it is the
    next event. With `start_token` a user's history begins with an event without an item, of kind `START`: what follows
    it are the user's first events.
    """
    if start_token:
        interactions = _with_start_tokens(interactions)
    users, event_items, times = interactions.users, (interactions.items + 1).astype(np.int32), interactions.at
    n = len(interactions)
    per_event = (event_items, interactions.values, times, interactions.profiles)
    if n == 0:
        none = np.zeros((0, length), np.int64)
        empty = none.astype(np.int32)
        return Windows(Batch(empty, empty, empty), none, none, *per_event)
    position = np.arange(n)
    user_ends = np.append(np.flatnonzero(np.diff(users)) + 1, n)
    user_end = np.repeat(user_ends, np.diff(np.append(0, user_ends)))
    new_time = np.diff(times) != 0 if baskets else np.ones(n - 1, np.bool_)
    new_time |= event_items[:-1] == 0
    group_ends = np.append(np.flatnonzero((np.diff(users) != 0) | new_time) + 1, n)
    next_start = np.repeat(group_ends, np.diff(np.append(0, group_ends)))
    next_group = np.minimum(np.searchsorted(group_ends, next_start, side="right"), len(group_ends) - 1)
    next_stop = np.where(next_start < user_end, group_ends[next_group], next_start)
    age = user_end - 1 - position
    kept = age < length * windows_per_user
    position, next_start, next_stop, age, user_end = (
        column[kept] for column in (position, next_start, next_stop, age, user_end)
    )
    _, row = np.unique(user_end * (windows_per_user + 1) - age // length, return_inverse=True)
    column = length - 1 - age % length
    shape = (int(row.max()) + 1, length)
    items, kinds, at = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int64)
    starts, stops = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    items[row, column], kinds[row, column] = event_items[position], interactions.kinds[position] + 1
    at[row, column], starts[row, column], stops[row, column] = times[position], next_start, next_stop
    useful = (stops > starts).any(axis=1)
    batch = Batch(items[useful], kinds[useful], gap_buckets(at, items)[useful])
    return Windows(batch, starts[useful], stops[useful], *per_event)


def _with_start_tokens(interactions: Interactions) -> Interactions:
    """The interactions with one more before each user's first: no item (index -1), kind `START`, the time of the first.

    It has the profile that was known before the first event, and no value.
    """
    first = np.flatnonzero(np.diff(interactions.users, prepend=-1))
    profiles, values = interactions.profiles, interactions.values
    if profiles is not None:
        rows = np.insert(profiles.rows, first, profiles.rows[first])
        profiles = msgspec.structs.replace(profiles, rows=rows.astype(np.int32))
    return msgspec.structs.replace(
        interactions,
        users=np.insert(interactions.users, first, interactions.users[first]),
        items=np.insert(interactions.items, first, -1),
        kinds=np.insert(interactions.kinds, first, START - 1),
        at=np.insert(interactions.at, first, interactions.at[first]),
        values=np.insert(values, first, np.float32(np.nan)) if values is not None else None,
        profiles=profiles,
    )
