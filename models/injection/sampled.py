"""Imagined histories: sampled by a generator (arm A1), or its most probable ones with their probabilities."""

from typing import Final

import numpy as np

from models.data.batch import Batch
from models.injection.conditions import conditions_of, distinct
from models.injection.imagination import Imagination, Imagined
from models.synthesizers.base import Synthesizer
from models.synthesizers.conditions import Conditions
from models.synthesizers.enumeration import MOST, enumerate_continuations
from models.synthesizers.histories import Histories
from models.synthesizers.stepwise import StepwiseSynthesizer

PATHS: Final = 8
EVENTS: Final = 3


class Sampled(Imagination):
    """`paths` histories for each user, of `events` events each, sampled after the known events (or `before` them).

    A history's samples depend on it and on the seed alone.
    """

    are_alternatives = True

    def __init__(
        self, synthesizer: Synthesizer, *, paths: int = PATHS, events: int = EVENTS, before: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        self.vocabulary, self.synthesizer = synthesizer.vocabulary, synthesizer
        self.paths, self.events, self.before, self.seed = paths, events, before, seed

    def imagine(self, batch: Batch) -> Imagined:
        kept, places = distinct(_conditions(self.synthesizer, batch, self.events, before=self.before))
        histories = self.synthesizer.sample(kept, self.paths, np.random.default_rng(self.seed))
        return _as_paths(histories, self.paths, self.events, before=self.before).take(np.array(places, np.int64))


class Enumerated(Imagination):
    """The `most` most probable continuations of `events` events by a stepwise generator, renormalised.

    What many samples approach: exact for one event, by a beam search for more.
    """

    are_alternatives = True

    def __init__(
        self, synthesizer: StepwiseSynthesizer, *, events: int = 1, most: int = MOST, before: bool = False
    ) -> None:
        super().__init__()
        self.vocabulary, self.synthesizer = synthesizer.vocabulary, synthesizer
        self.events, self.most, self.before = events, most, before

    def imagine(self, batch: Batch) -> Imagined:
        kept, places = distinct(_conditions(self.synthesizer, batch, self.events, before=self.before))
        paths = enumerate_continuations(self.synthesizer, kept, self.events, backward=self.before, most=self.most)
        items = paths.items[:, :, ::-1] if self.before else paths.items
        numbers = np.where(paths.probabilities[:, :, None] > 0, items + 1, 0).astype(np.int32)
        return Imagined(numbers, paths.probabilities, self.before).take(np.array(places, np.int64))


def _conditions(synthesizer: Synthesizer, batch: Batch, events: int, *, before: bool) -> list[Conditions]:
    return conditions_of(batch, synthesizer.vocabulary, synthesizer.supports, before=before, events=events)


def _as_paths(histories: Histories, paths: int, events: int, *, before: bool) -> Imagined:
    """`paths` histories one after another for each user, equally probable; those without events are left out."""
    lengths = np.minimum(histories.lengths, events)
    items = np.zeros((len(histories), events), np.int32)
    rows = np.repeat(np.arange(len(histories)), lengths)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    items[rows, columns] = histories.items[histories.starts[:-1][rows] + columns] + 1
    filled = (lengths > 0).astype(np.float32).reshape(-1, paths)
    shares = filled / np.maximum(filled.sum(axis=1, keepdims=True), np.float32(1.0))
    return Imagined(items.reshape(-1, paths, events), shares, before)
