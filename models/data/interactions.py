"""Interactions and histories as arrays of numbers: an item's number is its index plus one, 0 is padding on the left."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
import pandas as pd
from scipy import sparse

from features.activity import History
from models.arrays import Bool, Float32, Float64, Int32, Int64
from models.data.item_features import Catalogue
from models.data.profiles import NOBODY, Asking, Fields, Known, Profiles, moments_of
from models.recommenders.base import RECENCY_MS, WEIGHTS, Vocabulary
from stream.events import KIND_CODES

GAPS: Final = 33
"""Buckets of time between events: 0 is padding, 1 to 31 are powers of two of seconds, 32 a stretch's first event."""
FIRST: Final = GAPS - 1


class Log(msgspec.Struct, frozen=True):
    """Interactions that speak for known items: each user's together, in time order, ties as they came.

    `users` int64 (codes, ascending), `items` int32 (indices of the vocabulary), `kinds` int32 (event codes), `at` int64
    (epoch ms), each [events]. `categories` int32 [items]: codes from 1, 0 for none.

    `values` float32 [events] are what events carry (stars, seconds, a price), nan where nothing. `texts` float32
    [items, d] or None. The first `trained` items have events here; those after them are known from a catalogue alone.
    `known`: what was known of the users at each event, or None.
    """

    vocabulary: Vocabulary
    users: Int64
    items: Int32
    kinds: Int32
    at: Int64
    categories: Int32
    values: Float32 | None = None
    texts: Float32 | None = None
    trained: int | None = None
    known: Known | None = None

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        vocabulary: Vocabulary | None = None,
        *,
        min_count: int = 1,
        most: int = 1_000_000,
        categories: Mapping[str, str] | None = None,
        catalogue: Catalogue | None = None,
        profiles: Profiles | None = None,
        weights: tuple[float, ...] = WEIGHTS,
        recency_ms: float = RECENCY_MS,
    ) -> "Log":
        """From a frame [user_id, item_id, kind, at] in time order; items of fewer than `min_count` events are left out.

        `categories` names items' categories; without it the frame's column `category`, where there is one, does. With
        a `catalogue` its items without events stand behind the others in the vocabulary, and its categories and texts
        are those of the items; with a `vocabulary` given, that is not added to. `profiles` are read as they were known
        before each event. `weights` and `recency_ms` are the domain's (`Vocabulary`); a `vocabulary` that is given
        brings its own.
        """
        codes = frame["kind"].map(KIND_CODES).to_numpy(np.int64)
        speaks = np.array(vocabulary.weights if vocabulary is not None else weights)[codes] > 0
        frame, codes = frame[speaks], codes[speaks]
        named = {**(categories if categories is not None else _categories_in(frame))}
        learned = Vocabulary.fit(frame, min_count, most, weights, recency_ms) if vocabulary is None else vocabulary
        trained = len(learned) if vocabulary is None else _with_events(frame, vocabulary)
        if vocabulary is None:
            vocabulary = catalogue.added(learned, most) if catalogue is not None else learned
        if catalogue is not None:
            named = {**named, **catalogue.categories}
        places = frame["item_id"].map(vocabulary.index).to_numpy(np.float64, na_value=-1.0).astype(np.int32)
        kept = np.flatnonzero((places >= 0) & (places < trained))  # a rare item of the catalogue is one without events
        named_users = frame["user_id"].to_numpy()[kept]
        users = pd.factorize(named_users)[0]
        order = np.argsort(users, kind="stable")
        kept, at = kept[order], frame["at"].to_numpy(np.int64)[kept[order]]
        return cls(
            vocabulary,
            users[order].astype(np.int64),
            places[kept],
            codes[kept].astype(np.int32),
            at,
            _category_codes(vocabulary, named),
            frame["value"].to_numpy(np.float32, na_value=np.nan)[kept] if "value" in frame else None,
            catalogue.texts_of(vocabulary) if catalogue is not None else None,
            trained,
            profiles.known(named_users[order], at) if profiles is not None and len(profiles) else None,
        )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def user_count(self) -> int:
        return int(self.users[-1]) + 1 if len(self) else 0

    def weights(self, half_life_ms: float | None = None) -> Float64:
        """float64 [events]: the kind's weight, halved every `half_life_ms` back from the newest event."""
        weights = np.array(self.vocabulary.weights)[self.kinds]
        if half_life_ms is not None and len(self):
            weights = weights * np.exp2(-(self.at.max() - self.at) / half_life_ms)
        return weights

    def matrix(self, half_life_ms: float | None = None, most_per_user: int = 500) -> sparse.csr_matrix:
        """float32 [users, items]: 1 where a user took an item, or the newest event's 2^(-age / half-life)."""
        n = len(self)
        ends = np.searchsorted(self.users, np.arange(self.user_count), side="right")
        kept = np.flatnonzero(ends[self.users] - 1 - np.arange(n) < most_per_user)
        keys = self.users[kept] * max(1, len(self.vocabulary)) + self.items[kept]
        _, last = np.unique(keys[::-1], return_index=True)
        chosen = kept[len(kept) - 1 - last]
        values = np.ones(len(chosen), np.float32)
        if half_life_ms is not None and n:
            values = np.exp2(-(self.at.max() - self.at[chosen]) / half_life_ms).astype(np.float32)
        shape = (self.user_count, len(self.vocabulary))
        return sparse.csr_matrix((values, (self.users[chosen], self.items[chosen])), shape)


class Batch(msgspec.Struct, frozen=True):
    """Histories side by side, newest on the right, 0 on the left where there are fewer: each int32 [batch, length].

    `items` are numbers (index plus one), `kinds` event codes plus one, `gaps` buckets of time since the event before.
    `table` says by event code how much an event speaks for its item. `asking`: who asks and when, for each history, or
    nothing where that is not known.
    """

    items: Int32
    kinds: Int32
    gaps: Int32
    table: tuple[float, ...] = WEIGHTS
    asking: tuple[Asking, ...] = ()

    def __len__(self) -> int:
        return len(self.items)

    @property
    def known(self) -> Bool:
        """bool [batch]: whether a history holds anything."""
        return self.items[:, -1] != 0

    @property
    def lengths(self) -> Int64:
        """int64 [batch]."""
        return np.count_nonzero(self.items, axis=1)

    def rows(self, start: int, stop: int) -> "Batch":
        arrays = (self.items[start:stop], self.kinds[start:stop], self.gaps[start:stop])
        return Batch(*arrays, self.table, self.asking[start:stop])

    def of(self, rows: Int64) -> "Batch":
        asking = tuple(self.asking[row] for row in rows) if self.asking else ()
        return Batch(self.items[rows], self.kinds[rows], self.gaps[rows], self.table, asking)

    def newest(self, length: int) -> "Batch":
        """The same histories, `length` events long."""
        have = self.items.shape[1]
        if have == length:
            return self
        if have < length:
            wide = ((0, 0), (length - have, 0))
            arrays = (np.pad(self.items, wide), np.pad(self.kinds, wide), np.pad(self.gaps, wide))
            return Batch(*arrays, self.table, self.asking)
        items, kinds, gaps = self.items[:, -length:], self.kinds[:, -length:], self.gaps[:, -length:].copy()
        gaps[items[:, 0] != 0, 0] = FIRST
        return Batch(np.ascontiguousarray(items), np.ascontiguousarray(kinds), gaps, self.table, self.asking)

    def weights(self, decay: float) -> Float32:
        """float32 [batch, length]: each event's kind weight, times `decay` for every event after it; 0 for padding."""
        ages = np.arange(self.items.shape[1] - 1, -1, -1)
        kinds = np.where(self.items > 0, np.array(self.table, np.float32)[np.maximum(self.kinds - 1, 0)], 0.0)
        weighed: Float32 = (kinds * np.float32(decay) ** ages).astype(np.float32)
        return weighed


def batch_of(histories: Sequence[History], vocabulary: Vocabulary, length: int, asking: Sequence[Asking] = ()) -> Batch:
    """The newest `length` events of each history whose item is known and whose kind speaks for it.

    `asking` says who asks and when for each history; nothing where that is not known.
    """
    index, weights = vocabulary.index, vocabulary.weights
    shape = (len(histories), length)
    items, kinds, times = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int64)
    for row, history in enumerate(histories):
        found = [
            (place + 1, kind + 1, at)
            for item, kind, at in zip(history.items, history.kinds, history.times, strict=True)
            if (place := index.get(item)) is not None and weights[kind] > 0
        ][-length:]
        if found:
            numbers = np.array(found, np.int64)
            first = length - len(found)
            items[row, first:], kinds[row, first:], times[row, first:] = numbers[:, 0], numbers[:, 1], numbers[:, 2]
    return Batch(items, kinds, gaps_of(times, items), vocabulary.weights, tuple(asking))


def inputs_of(batch: Batch, fields: Fields, *, context: bool) -> dict[str, Int32]:
    """What an encoder is fed for histories: `items`, `kinds`, `gaps` int32 [batch, length].

    With `fields` also `profile` int32 [batch, fields], with `context` also `moment` int32 [batch, 2].
    """
    found = {"items": batch.items, "kinds": batch.kinds, "gaps": batch.gaps}
    asking = batch.asking or (NOBODY,) * len(batch)
    if len(fields):
        found["profile"] = fields.codes([one.profile for one in asking])
    if context:
        found["moment"] = moments_of(np.array([one.at for one in asking], np.int64))
    return found


def gaps_of(times: Int64, items: Int32) -> Int32:
    """int32 [batch, length]: log2 buckets of the seconds since the event before, 0 for padding."""
    passed = np.maximum(times[:, 1:] - times[:, :-1], 0) / 1000
    found: Int32 = np.full(items.shape, FIRST, np.int32)
    buckets = np.minimum(np.log2(1 + passed).astype(np.int32) + 1, FIRST - 1)
    found[:, 1:] = np.where(items[:, :-1] == 0, FIRST, buckets)
    found[items == 0] = 0
    return found


class Windows(msgspec.Struct, frozen=True):
    """Stretches of histories, and for each place the range of events that may come next.

    `batch` holds [n, length]; `first` and `last` int64 [n, length]: what follows a place is drawn from
    `flow[first:last]`, nothing where both are equal. `flow` int32 [events]: every user's numbers, one after another;
    `values` float32 [events] theirs, nan where there is none; `at` int64 [events] their times; `known` what was known
    of their users before them.
    """

    batch: Batch
    first: Int64
    last: Int64
    flow: Int32
    values: Float32 | None = None
    at: Int64 | None = None
    known: Known | None = None

    def __len__(self) -> int:
        return len(self.first)

    def drawn(self, rows: Int64, rng: np.random.Generator) -> Int64:
        """int64 [rows, length]: one draw of what follows each place, as a position of `flow`; -1 where nothing does."""
        first, last = self.first[rows], self.last[rows]
        drawn = first + (rng.random(first.shape) * (last - first)).astype(np.int64)
        found: Int64 = np.where(last > first, np.minimum(drawn, len(self.flow) - 1), -1)
        return found


def windows_of(log: Log, length: int, windows_per_user: int, *, baskets: bool = True) -> Windows:
    """Each user's newest `windows_per_user * length` events, cut from the newest backwards.

    With `baskets`, events of one user at one time (a basket, an import by day) have no order among themselves: what
    follows any of them is an event of the next time, drawn anew in every epoch. Without, it is the next event.
    """
    users, flow, times, n = log.users, (log.items + 1).astype(np.int32), log.at, len(log)
    if n == 0:
        none = np.zeros((0, length), np.int64)
        empty = none.astype(np.int32)
        return Windows(Batch(empty, empty, empty), none, none, flow, log.values, times, log.known)
    place = np.arange(n)
    ends = np.append(np.flatnonzero(np.diff(users)) + 1, n)
    end = np.repeat(ends, np.diff(np.append(0, ends)))
    apart = np.diff(times) != 0 if baskets else np.ones(n - 1, np.bool_)
    groups = np.append(np.flatnonzero((np.diff(users) != 0) | apart) + 1, n)
    first = np.repeat(groups, np.diff(np.append(0, groups)))
    after = np.minimum(np.searchsorted(groups, first, side="right"), len(groups) - 1)
    last = np.where(first < end, groups[after], first)
    back = end - 1 - place
    kept = back < length * windows_per_user
    place, first, last, back, end = place[kept], first[kept], last[kept], back[kept], end[kept]
    _, row = np.unique(end * (windows_per_user + 1) - back // length, return_inverse=True)
    column = length - 1 - back % length
    shape = (int(row.max()) + 1, length)
    items, kinds, at = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int64)
    starts, stops = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    items[row, column], kinds[row, column], at[row, column] = flow[place], log.kinds[place] + 1, times[place]
    starts[row, column], stops[row, column] = first, last
    useful = (stops > starts).any(axis=1)
    batch = Batch(items[useful], kinds[useful], gaps_of(at, items)[useful])
    return Windows(batch, starts[useful], stops[useful], flow, log.values, times, log.known)


def add_repeats(scores: Float32, numbers: Int32, repeats: Float32) -> None:
    """Add in place to float32 [batch, items] what items gain by standing in the history: `repeats` [length] by age."""
    rows, columns = np.nonzero(numbers)
    np.add.at(scores, (rows, numbers[rows, columns] - 1), repeats[numbers.shape[1] - 1 - columns])


def _categories_in(frame: pd.DataFrame) -> Mapping[str, str]:
    if "category" not in frame:
        return {}
    named = frame[["item_id", "category"]].dropna().drop_duplicates("item_id", keep="last")
    return dict(zip(named["item_id"], named["category"].astype(str), strict=True))


def _with_events(frame: pd.DataFrame, vocabulary: Vocabulary) -> int:
    """How far into a given vocabulary the last item with events stands."""
    places = pd.Series(frame["item_id"].unique()).map(vocabulary.index)
    return int(places.max()) + 1 if places.notna().any() else 0


def _category_codes(vocabulary: Vocabulary, categories: Mapping[str, str]) -> Int32:
    names = {name: number + 1 for number, name in enumerate(sorted(set(categories.values())))}
    found = [names.get(categories.get(item, ""), 0) for item in vocabulary.item_ids]
    return np.array(found, np.int32)
