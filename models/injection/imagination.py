"""Events that a user is imagined to take: what an injection adds to the few real ones of a cold user's history."""

from abc import ABC, abstractmethod

import msgspec
import numpy as np

from models.arrays import Float32, Int32, Int64
from models.data.batch import Batch
from models.data.vocabulary import Vocabulary


class Imagined(msgspec.Struct, frozen=True):
    """Possible sequences of events of each history, and how probable each is.

    `items` int32 [batch, paths, events]: item numbers, 0 for none, oldest first. `shares` float32 [batch, paths]:
    probabilities of the paths, which sum to one, or to zero where nothing is imagined. `before`: the events come before
    the real ones, else after them.
    """

    items: Int32
    shares: Float32
    before: bool = False

    @classmethod
    def of_items(cls, items: Int32, weights: Float32, *, before: bool = False) -> "Imagined":
        """Single events: item numbers int32 [batch, n], 0 for none, in proportion to `weights` float32 [batch, n]."""
        kept = np.where(items > 0, weights, np.float32(0.0))
        sums = kept.sum(axis=1, keepdims=True)
        return cls(items[:, :, None], (kept / np.maximum(sums, np.float32(1e-30))).astype(np.float32), before)

    @property
    def counts(self) -> Int64:
        """int64 [batch]: events of each history's paths."""
        used = (self.items > 0) & (self.shares > 0)[:, :, None]
        counts: Int64 = used.sum(axis=(1, 2)).astype(np.int64)
        return counts

    def take(self, rows: Int64) -> "Imagined":
        """The given rows (int64 [n]), in that order."""
        return Imagined(self.items[rows], self.shares[rows], self.before)


class Imagination(ABC):
    """Imagines events for histories: the same ones for a history whatever else is in the batch."""

    vocabulary: Vocabulary
    are_alternatives: bool = False
    """Whether paths are alternative histories, which a recommender answers one by one; else all of them together
    are one expectation."""

    def __init__(self) -> None:
        self._last: tuple[Batch, Imagined] | None = None

    @abstractmethod
    def imagine(self, batch: Batch) -> Imagined:
        """The imagined events of each history of real events."""

    def of(self, batch: Batch) -> Imagined:
        """What `imagine` gives, computed once for a batch that several scorers read one after another."""
        last = self._last
        if last is not None and last[0] is batch:
            return last[1]
        imagined = self.imagine(batch)
        self._last = (batch, imagined)
        return imagined


def largest(scores: Float32, most: int) -> tuple[Int32, Float32]:
    """Item numbers int32 [rows, n] and values float32 [rows, n] of the n = min(most, items) largest scores above 0.

    Largest first, ties by lower number; 0 where a row has fewer.
    """
    width = min(most, scores.shape[1])
    if not width:
        return np.zeros((len(scores), 0), np.int32), np.zeros((len(scores), 0), np.float32)
    lowest = np.partition(scores, -width, axis=1)[:, -width]
    items, values = np.zeros((len(scores), width), np.int32), np.zeros((len(scores), width), np.float32)
    for row, limit in enumerate(lowest.tolist()):
        own = scores[row]
        columns = np.flatnonzero(own >= limit) if limit > 0 else np.flatnonzero(own > 0)
        columns = columns[np.argsort(-own[columns], kind="stable")][:width]
        items[row, : len(columns)], values[row, : len(columns)] = columns + 1, own[columns]
    return items, values
