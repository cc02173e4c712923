"""Soft injection: the expected event so many steps ahead of a cold user, given to a recommender. Nothing is sampled."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from models.arrays import Float32, Int32
from models.data.batch import FIRST_GAP, Batch
from models.data.vocabulary import Vocabulary
from models.injection.conditions import conditions_of, distinct
from models.injection.imagination import Imagination, Imagined, largest
from models.injection.injection import Injection
from models.recommenders.base import Scorer
from models.synthesizers.base import Synthesizer

TOP: Final = 64
"""The most probable imagined events that are injected."""
WEIGHT: Final = 0.5
"""Of all imagined events together, against one real event."""
BLOCK: Final = 256
"""Items whose expectations are tabulated at a time: each is as wide as the catalogue."""


class Expected(Imagination):
    """The `top` most probable events `steps` after the newest real one (negative: before the oldest one) by a fitted
    generator, in proportion to their probabilities."""

    def __init__(self, synthesizer: Synthesizer, *, steps: int = 1, top: int = TOP) -> None:
        super().__init__()
        self.vocabulary = synthesizer.vocabulary
        self.synthesizer, self.steps, self.top = synthesizer, steps, top

    def imagine(self, batch: Batch) -> Imagined:
        items, shares = largest(expectations(self.synthesizer, batch, self.steps), self.top)
        return Imagined.of_items(items, shares, before=self.steps < 0)


class ExpectationTable(Imagination):
    """The expected events of every item, computed once, so that a look-up costs no generator.

    `items` int32 [vocabulary + 1, top]: item numbers, 0 for none, and `shares` float32 [vocabulary + 1, top]; row 0 is
    of an empty history. A history expects the mean over its events of their rows, each event weighing `decay` times the
    one after it: what a walk expects, but for the events that the table leaves out; with a decay of 0 the newest event
    alone counts, as in a Markov chain.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        items: Int32,
        shares: Float32,
        *,
        decay: float,
        top: int = TOP,
        before: bool = False,
    ) -> None:
        super().__init__()
        if items.shape != shares.shape or len(items) != len(vocabulary) + 1:
            raise ValueError(
                f"a table of {len(vocabulary)} items has one row more than items; its items have the shape "
                f"{items.shape} and its shares {shares.shape}"
            )
        self.vocabulary, self.items, self.shares = vocabulary, items, shares
        self.decay, self.top, self.before = decay, top, before

    def imagine(self, batch: Batch) -> Imagined:
        items = np.zeros((len(batch), self.top), np.int32)
        shares = np.zeros((len(batch), self.top), np.float32)
        for row in range(len(batch)):
            chosen, weights = self._of(batch.items[row])
            items[row, : len(chosen)], shares[row, : len(chosen)] = chosen, weights
        return Imagined.of_items(items, shares, before=self.before)

    def _of(self, numbers: Int32) -> tuple[Int32, Float32]:
        """The best items of a history and their weights, at most `top`."""
        known = numbers[numbers > 0][:: 1 if self.before else -1]
        known = known[: 1 if self.decay == 0 else None]
        if len(known) <= 1:
            row = int(known[0]) if len(known) else 0
            return self.items[row, : self.top], self.shares[row, : self.top]
        weights = np.float32(self.decay) ** np.arange(len(known), dtype=np.float32)
        items, places = np.unique(self.items[known].ravel(), return_inverse=True)
        sums = np.bincount(places, (weights[:, None] * self.shares[known]).ravel()).astype(np.float32)
        best = np.argsort(-sums, kind="stable")[: self.top]
        return items[best], sums[best]


class SoftInjection(Injection):
    """A recommender with the expected event `steps` ahead (or before) of a fitted generator, in closed form (arm A1s).

    `weight` of the imagined events (`Injection`) and `top` are chosen on tuning users.
    """

    def __init__(
        self,
        recommender: Scorer,
        synthesizer: Synthesizer,
        *,
        steps: int = 1,
        top: int = TOP,
        weight: float | Sequence[float] = WEIGHT,
    ) -> None:
        imagination = Expected(synthesizer, steps=steps, top=top)
        super().__init__(recommender, imagination, weight=weight, name="soft-injection")


def tabulated(synthesizer: Synthesizer, *, steps: int = 1, top: int = TOP, decay: float = 0.0) -> ExpectationTable:
    """The table of a fitted generator's expectations after each single item, with the `decay` of `ExpectationTable`."""
    size = len(synthesizer.vocabulary)
    parts = [
        largest(expectations(synthesizer, _single_events(numbers), steps), top)
        for numbers in np.split(np.arange(size + 1, dtype=np.int32), range(BLOCK, size + 1, BLOCK))
    ]
    items, shares = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return ExpectationTable(synthesizer.vocabulary, items, shares, decay=decay, top=top, before=steps < 0)


def expectations(synthesizer: Synthesizer, batch: Batch, steps: int) -> Float32:
    """float32 [batch, items]: the generator's distribution of the event `steps` away, for each history."""
    conditions = conditions_of(batch, synthesizer.vocabulary, synthesizer.supports, before=steps < 0)
    kept, places = distinct(conditions)
    expected: Float32 = synthesizer.expected(kept, steps)[places]
    return expected


def _single_events(numbers: Int32) -> Batch:
    """A history of one event for each item number, int32 [n]; none for 0."""
    items = numbers[:, None]
    known = items > 0
    return Batch(items, known.astype(np.int32), np.where(known, FIRST_GAP, 0).astype(np.int32))
