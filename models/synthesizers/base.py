"""What a synthesizer is: a generator of users' events, fitted on real ones."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec
import numpy as np

from models.arrays import AnyArray, Float32, Float64, Int32, Int64
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.errors import TrainingError
from models.recommenders.base import checked, write_arrays
from models.synthesizers.conditions import (
    ConditionName,
    Conditions,
    SynthesisError,
    check_conditions,
    condition_keys,
)
from models.synthesizers.decoding import Decoding, ItemConstraint
from models.synthesizers.histories import Histories
from models.synthesizers.streams import RandomStreams

Progress = Callable[[float, Mapping[str, float]], None]
"""Called during a fit with the completed share (0..1) and figures such as losses."""
MAX_EVENTS: Final = 50
"""A synthetic history has at most this many events."""
COUNTED: Final = 256
"""Histories that are sampled where an expectation has no closed form."""


def no_progress(share: float, figures: Mapping[str, float]) -> None:
    """Progress that nobody watches."""


class SynthesizerContext(msgspec.Struct, frozen=True):
    """What a synthesizer depends on besides its parameters: the seed, and the seconds that a fit may take (None: any).

    `checkpoint`: a folder in which a long fit keeps its progress, so that it resumes after a kill (None: it does not).
    """

    seed: int = 0
    seconds: float | None = None
    checkpoint: Path | None = None


class SamplingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How histories are sampled: the decoding of items, and constraints on them."""

    decoding: Decoding = Decoding()
    constraints: tuple[ItemConstraint, ...] = ()


class Synthesizer(ABC):
    """Generates events of users. A subclass owns its `Params` and is one line in the registry."""

    name: ClassVar[str]
    supports: ClassVar[frozenset[ConditionName]]
    """The conditions that it honours; others are refused (`Conditions.only` drops them)."""
    Params: ClassVar[type[msgspec.Struct]]

    params: Any
    vocabulary: Vocabulary
    item_embeddings: Float32 | None = None
    """float32 [items, size]: the items' vectors, of generators that learn such: where a fit begins, if they are set
    before it, and where it ended."""

    def __init__(self, params: msgspec.Struct | None = None, context: SynthesizerContext | None = None) -> None:
        self.params = params if params is not None else self.Params()
        self.context = context or SynthesizerContext()
        self.vocabulary = Vocabulary.from_items([])

    @abstractmethod
    def fit(self, interactions: Interactions, progress: Progress = no_progress) -> None:
        """Learn from users' histories with their profiles, and the items' categories and texts.

        Raises:
            SynthesisError: there is nothing to learn from.
        """

    def sample(
        self,
        conditions: Sequence[Conditions],
        n: int,
        rng: np.random.Generator,
        options: SamplingOptions | None = None,
    ) -> Histories:
        """`n` histories for each condition, one condition after another: the generated events, without the known ones.

        The same seed of `rng` gives the same histories; a condition's histories do not depend on the others in the
        batch. A history may be shorter than requested, even empty, where constraints leave no item.

        Raises:
            SynthesisError: a condition is not supported (`supports`).
        """
        check_conditions(conditions, self.supports, self.name)
        streams = RandomStreams.from_rng(condition_keys(conditions, n), rng)
        each = [condition for condition in conditions for _ in range(n)]
        return self.generate(each, streams, options or SamplingOptions())

    @abstractmethod
    def generate(self, conditions: Sequence[Conditions], streams: RandomStreams, options: SamplingOptions) -> Histories:
        """One history for each condition; each row draws from its own stream."""

    def expected(self, conditions: Sequence[Conditions], steps: int = 1, seed: int = 0) -> Float32:
        """float32 [conditions, items]: the distribution of the item `steps` events after the first known ones.

        A negative number counts back from the oldest known event: -1 is the event right before `later` (or before
        `first`, where only that is given). Rows sum to one. Here the shares of items at that step in COUNTED sampled
        histories; generators with a closed form override it.

        Raises:
            SynthesisError: `steps` is 0, or a condition is not supported.
        """
        turned = conditions_for_step(conditions, steps)
        rng = np.random.default_rng(seed)
        last_events = [msgspec.structs.replace(condition, events=abs(steps)) for condition in turned]
        histories = self.sample(last_events, COUNTED, rng)
        shares = np.zeros((len(conditions), len(self.vocabulary)), np.float32)
        complete = np.flatnonzero(histories.lengths == abs(steps))
        events = histories.starts[complete + 1] - 1 if steps > 0 else histories.starts[complete]
        np.add.at(shares, (complete // COUNTED, histories.items[events]), 1.0)
        return normalized(shares)

    def log_prob(self, histories: Histories) -> Float64 | None:  # noqa: ARG002 - for those that have one
        """float64 [users]: the logarithm of the probability of each user's item sequence, given its length.

        None where the generator has no likelihood.
        """
        return None

    def describe(self) -> dict[str, Any]:
        """Parameters as JSON values: with the saved arrays all that `load` needs."""
        described: dict[str, Any] = msgspec.to_builtins(self.params)
        return described

    @abstractmethod
    def arrays(self) -> dict[str, AnyArray]:
        """The fitted state by name; no object arrays."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Take the state back from what `arrays` returned; `vocabulary` is set. Raises KeyError, ValueError."""

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        """Write the arrays into `folder` as `<prefix><name>.npy`; the file names."""
        return write_arrays(folder, prefix, self.arrays())

    @classmethod
    def create(cls, params: Mapping[str, Any], context: SynthesizerContext | None = None) -> "Synthesizer":
        """An unfitted synthesizer; parameters that are not given have their defaults.

        Raises:
            TrainingError: there is no such parameter, or a value is out of bounds.
        """
        return cls(checked(cls.Params, params, cls.name), context)

    @classmethod
    def load(cls, params: Mapping[str, Any], vocabulary: Vocabulary, arrays: Mapping[str, Any]) -> "Synthesizer":
        """The synthesizer that `describe` and `arrays` described.

        Raises:
            TrainingError: a parameter does not exist or is out of bounds.
            KeyError: an array is missing.
        """
        synthesizer = cls.create(params)
        synthesizer.vocabulary = vocabulary
        synthesizer.restore(arrays)
        return synthesizer


def conditions_for_step(conditions: Sequence[Conditions], steps: int) -> list[Conditions]:
    """Conditions whose generated events lie in the direction of `steps`.

    Going back, first events count as later ones: what is generated precedes them.

    Raises:
        SynthesisError: `steps` is 0.
    """
    if steps == 0:
        raise SynthesisError("steps=0 is the known event itself; give 1 for the next event, -1 for the one before")
    if steps > 0:
        return list(conditions)
    return [
        condition
        if condition.later.items
        else msgspec.structs.replace(condition, first=type(condition.first)(), later=condition.first)
        for condition in conditions
    ]


def known_items(conditions: Sequence[Conditions], vocabulary: Vocabulary, *, backward: bool) -> Int32:
    """int32 [conditions, n]: indices of the known events' items in the order of drawing, -1 for padding on the left.

    Forward these are the first events, oldest first; backward the later ones, newest first. Unknown items are left out.
    """
    return known_events(conditions, vocabulary, backward=backward)[0]


def known_events(conditions: Sequence[Conditions], vocabulary: Vocabulary, *, backward: bool) -> tuple[Int32, Int64]:
    """Items of the known events (see `known_items`), and their times int64 [conditions, n] (epoch ms, 0: padding)."""
    rows = []
    for condition in conditions:
        events = condition.later if backward else condition.first
        pairs = list(zip(events.items, events.times, strict=True))[:: -1 if backward else 1]
        rows.append([(vocabulary.index[item], at) for item, at in pairs if item in vocabulary.index][-MAX_EVENTS:])
    width = max((len(row) for row in rows), default=0)
    items, times = np.full((len(rows), width), -1, np.int32), np.zeros((len(rows), width), np.int64)
    for number, row in enumerate(rows):
        if row:
            items[number, width - len(row) :], times[number, width - len(row) :] = zip(*row, strict=True)
    return items, times


def known_counts(conditions: Sequence[Conditions]) -> Int64:
    """int64 [conditions]: how many events of each user are known."""
    return np.array([len(condition.first.items) + len(condition.later.items) for condition in conditions], np.int64)


def normalized(shares: Float32) -> Float32:
    """float32 [rows, items]: rows scaled to sum to one; a row of zeros becomes uniform."""
    sums = shares.sum(axis=1, keepdims=True)
    out: Float32 = np.where(sums > 0, shares / np.maximum(sums, 1e-30), 1.0 / max(1, shares.shape[1]))
    return out.astype(np.float32)


def require_events(interactions: Interactions, synthesizer: str) -> None:
    """Raise SynthesisError where there is nothing to learn from."""
    if not len(interactions):
        raise SynthesisError(f"{synthesizer}: there are no events to learn from")
    if len(interactions.vocabulary) < 1:
        raise TrainingError(f"{synthesizer}: the vocabulary is empty")
