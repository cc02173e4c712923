"""Users' histories as rows of numbers: an item's number is its index plus one, 0 is padding on the left."""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from features.activity import Recent
from models.recommenders.base import KIND_WEIGHTS, Vocabulary, positive

Numbers = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]


class Windows(msgspec.Struct, frozen=True):
    """Stretches of histories, and for each place the range of events that may come next.

    `items` int32 [n, length]; `first` and `last` int64 [n, length]: what follows a place is drawn from
    `flow[first:last]`, nothing where both are equal. `flow` int32 [events]: every user's numbers, one after another.
    """

    items: Numbers
    first: Places
    last: Places
    flow: Numbers

    def __len__(self) -> int:
        return len(self.items)

    def targets(self, rows: Places, rng: np.random.Generator) -> Numbers:
        """int32 [rows, length]: one draw of what follows each place, 0 where nothing does."""
        first, last = self.first[rows], self.last[rows]
        drawn = first + (rng.random(first.shape) * (last - first)).astype(np.int64)
        found: Numbers = np.where(last > first, self.flow[np.minimum(drawn, len(self.flow) - 1)], 0).astype(np.int32)
        return found

    def counts(self, items: int) -> npt.NDArray[np.float64]:
        """float64 [items]: how often each item occurs, plus one."""
        return np.bincount(self.flow - 1, minlength=items).astype(np.float64) + 1.0


def windows_of(frame: pd.DataFrame, vocabulary: Vocabulary, length: int, windows_per_user: int) -> Windows:
    """Each user's newest `windows_per_user * length` events, cut from the newest backwards.

    Events of one user at one time (a basket, an import by day) have no order among themselves: what follows any of
    them is an event of the next time, drawn anew in every epoch. Where times differ this is simply the next event.
    """
    users, flow, times = _flow(frame, vocabulary)
    n = len(flow)
    if n == 0:
        empty = np.zeros((0, length), np.int64)
        return Windows(empty.astype(np.int32), empty, empty, flow)
    place = np.arange(n)
    ends = np.append(np.flatnonzero(np.diff(users)) + 1, n)
    end = np.repeat(ends, np.diff(np.append(0, ends)))
    groups = np.append(np.flatnonzero((np.diff(users) != 0) | (np.diff(times) != 0)) + 1, n)
    first = np.repeat(groups, np.diff(np.append(0, groups)))
    after = np.minimum(np.searchsorted(groups, first, side="right"), len(groups) - 1)
    last = np.where(first < end, groups[after], first)
    back = end - 1 - place
    kept = back < length * windows_per_user
    place, first, last, back, end = place[kept], first[kept], last[kept], back[kept], end[kept]
    _, row = np.unique(end * (windows_per_user + 1) - back // length, return_inverse=True)
    column = length - 1 - back % length
    shape = (int(row.max()) + 1, length)
    items, starts, stops = np.zeros(shape, np.int32), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    items[row, column], starts[row, column], stops[row, column] = flow[place], first, last
    useful = (stops > starts).any(axis=1)
    return Windows(items[useful], starts[useful], stops[useful], flow)


def numbers_of(histories: Sequence[Recent], vocabulary: Vocabulary, length: int) -> Numbers:
    """int32 [batch, length]: known items, newest on the right, 0 on the left where there are fewer."""
    out = np.zeros((len(histories), length), np.int32)
    for row, history in enumerate(histories):
        known = positive(history, vocabulary)[0][-length:]
        if known:
            out[row, -len(known) :] = np.asarray(known) + 1
    return out


def add_repeats(scores: npt.NDArray[np.float32], numbers: Numbers, repeats: npt.NDArray[np.float32]) -> None:
    """Add in place to float32 [batch, items] what items gain by standing in the history: `repeats` [length] by age."""
    rows, columns = np.nonzero(numbers)
    np.add.at(scores, (rows, numbers[rows, columns] - 1), repeats[numbers.shape[1] - 1 - columns])


def _flow(frame: pd.DataFrame, vocabulary: Vocabulary) -> tuple[Places, Numbers, Places]:
    weighty = frame[frame["kind"].map(KIND_WEIGHTS).fillna(0.0) > 0]
    numbers = weighty["item_id"].map(vocabulary.index).to_numpy(np.float64, na_value=-1.0).astype(np.int32) + 1
    users = pd.factorize(weighty["user_id"])[0]
    times = weighty["at"].to_numpy(np.int64)
    known = numbers > 0
    users, numbers, times = users[known], numbers[known], times[known]
    order = np.argsort(users, kind="stable")
    return users[order], numbers[order], times[order]
