"""Histories of users as padded arrays: an item's number is its index plus one, 0 is padding on the left."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from features.activity import History
from models.arrays import Bool, Float32, Int32, Int64
from models.data.profiles import ANONYMOUS, ProfileSchema, RequestContext, time_features
from models.data.vocabulary import DEFAULT_KIND_WEIGHTS, Vocabulary
from stream.events import KINDS

GAP_BUCKETS: Final = 33
"""Buckets of the time since the event before: 0 is padding, 1 to 31 are powers of two of seconds, 32 is `FIRST_GAP`."""
FIRST_GAP: Final = GAP_BUCKETS - 1
"""The bucket of a history's first event, which has no event before it."""

START: Final = len(KINDS) + 1
"""The kind of the start token, which stands before a history's first event and has no item (item number 0)."""


class Batch(msgspec.Struct, frozen=True):
    """A batch of histories, newest event on the right, zeros on the left: each array is int32 [batch, length].

    `items`: item numbers (index plus one). `kinds`: event codes plus one. `gaps`: buckets of the time since the event
    before (`GAP_BUCKETS`). `kind_weights`: preference weight by event code. `contexts`: the request context of each
    history, or empty where it is not known. `imagined`: None, or float32 [batch, n]: the first n columns hold events
    that the users did not take, with these weights, as shares of all weights of the row's real events (of 1 where it
    has none). Only scorers that say so (`Scorer.reads_imagined_events`) take such a batch.
    """

    items: Int32
    kinds: Int32
    gaps: Int32
    kind_weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS
    contexts: tuple[RequestContext, ...] = ()
    imagined: Float32 | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def has_history(self) -> Bool:
        """bool [batch]: whether a history holds any event."""
        result: Bool = self.items[:, -1] != 0
        return result

    @property
    def lengths(self) -> Int64:
        """int64 [batch]: real events of each history."""
        items = self.items if self.imagined is None else self.items[:, self.imagined.shape[1] :]
        result: Int64 = np.count_nonzero(items, axis=1)
        return result

    @property
    def real(self) -> "Batch":
        """The same histories without imagined events, as views."""
        if self.imagined is None:
            return self
        first = self.imagined.shape[1]
        arrays = (self.items[:, first:], self.kinds[:, first:], self.gaps[:, first:])
        return Batch(*arrays, self.kind_weights, self.contexts)

    def slice(self, start: int, stop: int) -> "Batch":
        """Rows `start` to `stop` (exclusive), as views."""
        arrays = (self.items[start:stop], self.kinds[start:stop], self.gaps[start:stop])
        imagined = self.imagined[start:stop] if self.imagined is not None else None
        return Batch(*arrays, self.kind_weights, self.contexts[start:stop], imagined)

    def take(self, rows: Int64) -> "Batch":
        """The given rows (int64 [n]), in that order."""
        contexts = tuple(self.contexts[row] for row in rows) if self.contexts else ()
        imagined = self.imagined[rows] if self.imagined is not None else None
        return Batch(self.items[rows], self.kinds[rows], self.gaps[rows], self.kind_weights, contexts, imagined)

    def newest(self, length: int) -> "Batch":
        """The same histories with the newest `length` real events, padded where there are fewer."""
        if self.imagined is not None:
            return self.real.newest(length)
        width = self.items.shape[1]
        if width == length:
            return self
        if width < length:
            padding = ((0, 0), (length - width, 0))
            arrays = (np.pad(self.items, padding), np.pad(self.kinds, padding), np.pad(self.gaps, padding))
            return Batch(*arrays, self.kind_weights, self.contexts)
        items, kinds, gaps = self.items[:, -length:], self.kinds[:, -length:], self.gaps[:, -length:].copy()
        gaps[items[:, 0] != 0, 0] = FIRST_GAP
        return Batch(np.ascontiguousarray(items), np.ascontiguousarray(kinds), gaps, self.kind_weights, self.contexts)

    def event_weights(self, decay: float) -> Float32:
        """float32 [batch, length]: each event's kind weight, times `decay` for every later event; 0 for padding.

        Imagined events have the weights that they were given.
        """
        ages = np.arange(self.items.shape[1] - 1, -1, -1)
        table = np.array(self.kind_weights, np.float32)
        by_kind = np.where(self.items > 0, table[np.maximum(self.kinds - 1, 0)], 0.0)
        weights: Float32 = (by_kind * np.float32(decay) ** ages).astype(np.float32)
        if self.imagined is not None:
            first = self.imagined.shape[1]
            sums = weights[:, first:].sum(axis=1, keepdims=True)
            weights[:, :first] = self.imagined * np.where(sums > 0, sums, np.float32(1.0))
        return weights


def batch_histories(
    histories: Sequence[History], vocabulary: Vocabulary, length: int, contexts: Sequence[RequestContext] = ()
) -> Batch:
    """The newest `length` events of each history whose item is known and whose kind has a weight above 0.

    `contexts`: the request context of each history; empty where it is not known.
    """
    index, weights = vocabulary.index, vocabulary.kind_weights
    shape = (len(histories), length)
    items, kinds, times = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, np.int64)
    for row, history in enumerate(histories):
        events = [
            (item_index + 1, kind + 1, at)
            for item, kind, at in zip(history.items, history.kinds, history.times, strict=True)
            if (item_index := index.get(item)) is not None and weights[kind] > 0
        ][-length:]
        if events:
            columns = np.array(events, np.int64)
            first = length - len(events)
            items[row, first:], kinds[row, first:], times[row, first:] = columns[:, 0], columns[:, 1], columns[:, 2]
    return Batch(items, kinds, gap_buckets(times, items), vocabulary.kind_weights, tuple(contexts))


def encoder_inputs(
    batch: Batch, schema: ProfileSchema, *, context: bool, start_token: bool = False
) -> dict[str, Int32]:
    """Inputs of an encoder by name: `items`, `kinds`, `gaps` int32 [batch, length].

    With `start_token` histories with room for it begin with the kind `START`.

    With attributes in `schema` also `profile` int32 [batch, attributes]; with `context` also `time_features` int32
    [batch, 2] (hour, weekday).
    """
    kinds = with_start_token(batch) if start_token else batch.kinds
    inputs = {"items": batch.items, "kinds": kinds, "gaps": batch.gaps}
    contexts = batch.contexts or (ANONYMOUS,) * len(batch)
    if len(schema):
        inputs["profile"] = schema.encode([context.profile for context in contexts])
    if context:
        inputs["time_features"] = time_features(np.array([context.at for context in contexts], np.int64))
    return inputs


def with_start_token(batch: Batch) -> Int32:
    """int32 [batch, length]: the kinds with `START` before the first event, where a place is free."""
    kinds, columns = batch.kinds.copy(), batch.items.shape[1] - 1 - batch.lengths
    rows = np.flatnonzero(columns >= 0)
    kinds[rows, columns[rows]] = START
    return kinds


def gap_buckets(times: Int64, items: Int32) -> Int32:
    """int32 [batch, length]: log2 buckets of the seconds since the event before; 0 for padding.

    `times` int64 [batch, length], epoch ms; `items` int32 [batch, length], 0 for padding.

    >>> gap_buckets(np.array([[0, 5_000, 8_000]]), np.array([[0, 4, 2]], np.int32)).tolist()
    [[0, 32, 3]]
    """
    seconds = np.maximum(times[:, 1:] - times[:, :-1], 0) / 1000
    gaps: Int32 = np.full(items.shape, FIRST_GAP, np.int32)
    buckets = np.minimum(np.log2(1 + seconds).astype(np.int32) + 1, FIRST_GAP - 1)
    gaps[:, 1:] = np.where(items[:, :-1] == 0, FIRST_GAP, buckets)
    gaps[items == 0] = 0
    return gaps
