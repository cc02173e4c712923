"""Controls of injection: as many events as an arm injects, from elsewhere. Each matches another imagination event by
event, with the same probabilities, and differs in where the items come from alone."""

from abc import abstractmethod
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import numpy as np

from models.arrays import Float32, Int32, Int64
from models.data.batch import FIRST_GAP, Batch
from models.data.interactions import Interactions
from models.injection.imagination import Imagination, Imagined, largest
from models.recommenders.base import Scorer
from models.recommenders.blend import BUCKETS, BlendScorer
from models.synthesizers.histories import Histories
from models.synthesizers.streams import RandomStreams

ITEM: Final = 0
USER: Final = 1
"""The uses of random numbers."""


class _Matched(Imagination):
    """As many events as `like` imagines, in paths of the same lengths and probabilities."""

    def __init__(self, like: Imagination, seed: int = 0) -> None:
        super().__init__()
        self.vocabulary, self.like, self.seed = like.vocabulary, like, seed
        self.are_alternatives = like.are_alternatives

    def imagine(self, batch: Batch) -> Imagined:
        matched = self.like.of(batch)
        items = self._drawn(batch, matched)
        return Imagined(np.where(matched.items > 0, items, 0).astype(np.int32), matched.shares, matched.before)

    @abstractmethod
    def _drawn(self, batch: Batch, matched: Imagined) -> Int32:
        """int32 [batch, paths, events]: an item number for every place."""

    def _streams(self, batch: Batch) -> RandomStreams:
        return RandomStreams(history_keys(batch), self.seed)


class PopularityEvents(_Matched):
    """Events drawn from popularity float32 [items] (arm A2a)."""

    def __init__(self, like: Imagination, popularity: Float32, *, seed: int = 0) -> None:
        super().__init__(like, seed)
        self._cumulative = np.cumsum(popularity, dtype=np.float64)

    def _drawn(self, batch: Batch, matched: Imagined) -> Int32:
        uniform = self._streams(batch).uniform(0, ITEM, int(np.prod(matched.items.shape[1:])))
        drawn = np.searchsorted(self._cumulative, uniform * self._cumulative[-1], side="right")
        numbers = np.minimum(drawn, len(self._cumulative) - 1) + 1
        items: Int32 = numbers.reshape(matched.items.shape).astype(np.int32)
        return items


class CroppedUsers(_Matched):
    """Events of random real users (arm A2b): a crop of one user's history, repeated where it is too short.

    Alternative paths are of a user each; an expectation is of one user as a whole.
    """

    def __init__(self, like: Imagination, interactions: Interactions, *, seed: int = 0) -> None:
        super().__init__(like, seed)
        self._starts, self._items = Histories.from_interactions(interactions).starts, interactions.items

    def _drawn(self, batch: Batch, matched: Imagined) -> Int32:
        rows, paths, events = matched.items.shape
        users = paths if self.are_alternatives else 1
        uniform = self._streams(batch).uniform(0, USER, 2 * users).reshape(rows, users, 2)
        lengths = np.diff(self._starts)
        chosen = (uniform[:, :, 0] * len(lengths)).astype(np.int64)
        first = (uniform[:, :, 1] * lengths[chosen]).astype(np.int64)
        places = (first[:, :, None] + np.arange(paths * events // max(1, users))) % lengths[chosen][:, :, None]
        items: Int32 = (self._items[self._starts[chosen][:, :, None] + places] + 1).reshape(matched.items.shape)
        return items


class NeighborItems(Imagination):
    """The best items of a recommender for the history, in proportion to its scores (arm A3 with item-kNN): as many as
    `like` imagines."""

    def __init__(self, scorer: Scorer, like: Imagination) -> None:
        super().__init__()
        self.vocabulary, self.scorer, self.like = scorer.vocabulary, scorer, like

    def imagine(self, batch: Batch) -> Imagined:
        matched = self.like.of(batch)
        counts = matched.counts
        items, scores = largest(self.scorer.probabilities(batch), int(counts.max(initial=0)))
        used = np.arange(items.shape[1])[None] < counts[:, None]
        return Imagined.of_items(np.where(used, items, 0), scores, before=matched.before)


class OtherUsers(Imagination):
    """What `like` imagines for a random real user of as many events (arm A5): the generator, with another condition.

    Paths are repeated or left out where the other user has fewer or more.
    """

    def __init__(self, like: Imagination, interactions: Interactions, *, seed: int = 0) -> None:
        super().__init__()
        self.vocabulary, self.like, self.seed = like.vocabulary, like, seed
        self.are_alternatives = like.are_alternatives
        histories = Histories.from_interactions(interactions)
        self._starts, self._items, self._kinds = histories.starts, histories.items, histories.kinds
        self._by_length = np.argsort(-np.diff(histories.starts), kind="stable")
        self._longer = np.sort(np.diff(histories.starts))

    def imagine(self, batch: Batch) -> Imagined:
        matched, other = self.like.of(batch), self.like.imagine(self._others(batch))
        counts = other.counts
        out = np.zeros_like(matched.items)
        for row in range(len(batch)):
            if counts[row]:
                places = np.resize(np.flatnonzero(other.shares[row] > 0), out.shape[1])
                out[row] = other.items[row, places]
        same = np.where(matched.items > 0, out, 0).astype(np.int32)
        return Imagined(same, matched.shares, matched.before)

    def _others(self, batch: Batch) -> Batch:
        """The first events of a random user for each history, as many as it has; fewer where nobody has so many."""
        lengths = batch.lengths
        enough = np.maximum(len(self._longer) - np.searchsorted(self._longer, lengths), 1)
        drawn = (RandomStreams(history_keys(batch), self.seed).uniform(0, USER)[:, 0] * enough).astype(np.int64)
        starts = self._starts[self._by_length[drawn]]
        own = np.minimum(lengths, np.diff(self._starts)[self._by_length[drawn]])
        width = batch.items.shape[1]
        places = np.arange(width)[None] - (width - own)[:, None]
        events = np.minimum(starts[:, None] + np.maximum(places, 0), max(0, len(self._items) - 1))
        items = np.where(places >= 0, self._items[events] + 1, 0).astype(np.int32)
        kinds = np.where(places >= 0, self._kinds[events] + 1, 0).astype(np.int32)
        gaps = np.where(places == 0, FIRST_GAP, np.where(places > 0, 1, 0)).astype(np.int32)
        return Batch(items, kinds, gaps, batch.kind_weights, batch.contexts)


def ensemble(scorers: Sequence[Scorer]) -> BlendScorer:
    """The mean of several recommenders' probabilities (arm A6: an encoder with several seeds)."""
    return BlendScorer(list(scorers), np.full((BUCKETS, len(scorers)), 1 / len(scorers)))


def history_keys(batch: Batch) -> Int64:
    """int64 [batch]: a key for each history's items, whatever its padding."""
    digests = [blake2b(numbers[numbers > 0].tobytes(), digest_size=8).digest() for numbers in batch.items]
    keys: Int64 = np.array([int.from_bytes(digest, "little") >> 1 for digest in digests], np.int64)
    return keys
