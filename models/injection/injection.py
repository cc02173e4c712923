"""Injection: a recommender that also reads imagined events of users with few real ones.

A recommender whose scores are sums over events takes them as events with fractional weights. An encoder, which reads
whole events, is asked once for each imagined continuation, and its answers are mixed by their probabilities. A blend is
injected member by member; members that read no events at all stay as they are.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np

from models.arrays import Float32, Int32, Int64
from models.data.batch import FIRST_GAP, Batch
from models.injection.imagination import Imagination, Imagined
from models.recommenders.base import Scorer, ValueModel
from models.recommenders.blend import BlendScorer
from stream.events import KIND_CODES

FADED: Final = 5
"""By default, real events from which on nothing is injected."""
PATHS: Final = 16
"""An encoder scores at most so many paths of a history, the most probable ones."""
ROWS: Final = 256
"""Histories that an encoder scores at a time."""
GAP: Final = 17
"""The bucket of the time between a real event and an imagined one: 9 to 18 hours."""
KIND: Final = KIND_CODES["view"]
"""The kind of an imagined event where no real one shows a kind."""


class Injection(Scorer):
    """A recommender with imagined events.

    `weight` of all imagined events together against all real ones, by the number of real events: weights[k], and 0
    from the last on. A single number fades (`fading`). Where paths are alternatives, and for encoders in any case, each
    is injected alone and the answers are mixed by the paths' probabilities; else all paths are injected together.
    """

    is_personalized = True

    def __init__(
        self,
        recommender: Scorer,
        imagination: Imagination,
        *,
        weight: float | Sequence[float],
        name: str = "injection",
    ) -> None:
        self.name, self.recommender, self.imagination = name, recommender, imagination
        self.vocabulary = recommender.vocabulary
        if self.vocabulary.item_ids != imagination.vocabulary.item_ids:
            raise ValueError(
                f"{name}: the recommender knows {len(self.vocabulary)} items and what imagines events "
                f"{len(imagination.vocabulary)}, not the same ones; fit both on the same interactions"
            )
        self.weights = fading(weight) if isinstance(weight, int | float) else np.asarray(weight, np.float32)
        if not np.isfinite(self.weights).all() or (self.weights < 0).any():
            raise ValueError(f"{name}: weights {self.weights.tolist()}; give finite numbers of 0 or more")
        self._injected = self._inside(recommender)

    def score(self, batch: Batch) -> Float32:
        return self._injected.score(batch)

    def probabilities(self, batch: Batch) -> Float32:
        return self._injected.probabilities(batch)

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        self._injected.add(out, batch, weights)

    def contributions(self, batch: Batch, items: Int64) -> Float32 | None:
        return self._injected.contributions(batch, items)

    def score_sum(self, batch: Batch) -> float:
        return self._injected.score_sum(batch)

    @property
    def value_model(self) -> ValueModel | None:
        return self.recommender.value_model

    @property
    def reads_profiles(self) -> bool:
        return self.recommender.reads_profiles

    @property
    def reads_time(self) -> bool:
        return self.recommender.reads_time

    @property
    def answers_empty_histories(self) -> bool:
        return self.recommender.answers_empty_histories or bool(len(self.weights) and self.weights[0] > 0)

    def injected_events(self, batch: Batch) -> Int64:
        """int64 [batch]: how many imagined events each history gets."""
        imagined = self.imagination.of(batch)
        if self.recommender.is_neural:
            imagined = most_probable(imagined, PATHS)
        counts = np.where(weights_of(self.weights, batch) > 0, imagined.counts, 0)
        injected: Int64 = counts.astype(np.int64)
        return injected

    def _inside(self, recommender: Scorer) -> Scorer:
        if isinstance(recommender, BlendScorer):
            members = [self._inside(member) for member in recommender.members]
            return BlendScorer(members, recommender.weights.astype(np.float64))
        if recommender.is_neural:
            return EncoderMixture(recommender, self.imagination, self.weights)
        if not recommender.reads_imagined_events:
            return recommender
        kind = WeightedMixture if self.imagination.are_alternatives else WeightedEvents
        return kind(recommender, self.imagination, self.weights)


class _Injected(Scorer):
    """One recommender with the imagined events of histories, `weights` float32 [k] by the number of real events."""

    def __init__(self, recommender: Scorer, imagination: Imagination, weights: Float32) -> None:
        self.name, self.vocabulary = recommender.name, recommender.vocabulary
        self.recommender, self.imagination, self.weights = recommender, imagination, weights


class WeightedEvents(_Injected):
    """All imagined events as events with weights: for scores v B of events v this is v (I + w P) B, with P the
    expected event after each event (two-hop smoothing)."""

    def score(self, batch: Batch) -> Float32:
        return self.recommender.score(self._with_events(batch))

    def probabilities(self, batch: Batch) -> Float32:
        return self.recommender.probabilities(self._with_events(batch))

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        self.recommender.add(out, self._with_events(batch), weights)

    def score_sum(self, batch: Batch) -> float:
        return self.recommender.score_sum(self._with_events(batch))

    def contributions(self, batch: Batch, items: Int64) -> Float32 | None:
        contributions = self.recommender.contributions(self._with_events(batch), items)
        return contributions[:, -batch.items.shape[1] :] if contributions is not None else None

    def _with_events(self, batch: Batch) -> Batch:
        weights = weights_of(self.weights, batch)
        if not weights.any():
            return batch
        imagined = self.imagination.of(batch)
        events = np.maximum((imagined.items > 0).sum(axis=2), 1)
        shares = np.repeat((imagined.shares / events)[:, :, None], imagined.items.shape[2], axis=2)
        rows = len(batch)
        return with_imagined(batch, imagined.items.reshape(rows, -1), weights[:, None] * shares.reshape(rows, -1))


class _Mixture(_Injected):
    """The mean of the recommender's answers to a history with each of its paths, weighted by their probabilities."""

    most_paths: ClassVar[int | None] = None

    def score(self, batch: Batch) -> Float32:
        return self.probabilities(batch)

    def probabilities(self, batch: Batch) -> Float32:
        out, weights = self.recommender.probabilities(batch), weights_of(self.weights, batch)
        rows = np.flatnonzero(weights)
        if not len(rows):
            return out
        imagined = self.imagination.of(batch)
        if self.most_paths is not None:
            imagined = most_probable(imagined, self.most_paths)
        rows = rows[imagined.shares[rows].any(axis=1)]
        size = max(1, ROWS // max(1, imagined.shares.shape[1]))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            answers = self._of_paths(batch.take(part), imagined.take(part), weights[part])
            shares = imagined.shares[part]
            mixed = np.einsum("rp,rpi->ri", shares, answers.reshape(*shares.shape, -1))
            out[part] = self._mixed(out[part], mixed, weights[part])
        return out

    @abstractmethod
    def _of_paths(self, batch: Batch, imagined: Imagined, weights: Float32) -> Float32:
        """float32 [batch * paths, items]: the answers to each history with each of its paths."""

    @abstractmethod
    def _mixed(self, real: Float32, mixed: Float32, weights: Float32) -> Float32:
        """float32 [batch, items]: of the answers without and with paths."""


class WeightedMixture(_Mixture):
    """A path's events are events with weights, which together are the weight of the injection."""

    def _of_paths(self, batch: Batch, imagined: Imagined, weights: Float32) -> Float32:
        _, paths, events = imagined.items.shape
        items = imagined.items.reshape(-1, events)
        per_event = np.repeat(weights, paths) / np.maximum((items > 0).sum(axis=1), 1)
        repeated = batch.take(np.repeat(np.arange(len(batch)), paths))
        return self.recommender.probabilities(with_imagined(repeated, items, np.tile(per_event[:, None], events)))

    def _mixed(self, real: Float32, mixed: Float32, weights: Float32) -> Float32:  # noqa: ARG002 - they are in it
        return mixed


class EncoderMixture(_Mixture):
    """A path's events are events of the history like others, and the answers with paths weigh w against those without.

    A mixture over the imagined events of what the encoder expects after each, not its answer to a mean event.
    """

    most_paths = PATHS

    def _of_paths(self, batch: Batch, imagined: Imagined, weights: Float32) -> Float32:  # noqa: ARG002 - see `_mixed`
        return self.recommender.probabilities(lengthened(batch, imagined))

    def _mixed(self, real: Float32, mixed: Float32, weights: Float32) -> Float32:
        share = (weights / (1 + weights))[:, None]
        return real + share * (mixed - real)


def fading(weight: float, faded: int = FADED) -> Float32:
    """float32 [faded]: weights by the number of real events: whole for 0 and 1, then falling evenly to 0 at `faded`.

    >>> fading(1.0, 5).tolist()
    [1.0, 1.0, 0.75, 0.5, 0.25]
    """
    left = (faded - np.maximum(np.arange(faded), 1)) / max(1, faded - 1)
    return (weight * left).astype(np.float32)


def weights_of(weights: Float32, batch: Batch) -> Float32:
    """float32 [batch]: the weight of each history's imagined events, by its number of real ones; 0 for longer ones."""
    padded = np.append(weights, np.float32(0.0))
    chosen: Float32 = padded[np.minimum(batch.lengths, len(weights))]
    return chosen


def with_imagined(batch: Batch, items: Int32, weights: Float32) -> Batch:
    """Histories with imagined events before the real ones (`Batch.imagined`): item numbers int32 [batch, n] with
    weights float32 [batch, n]."""
    used = np.where(weights > 0, items, 0).astype(np.int32)
    nothing = np.zeros_like(used)
    return Batch(
        np.concatenate([used, batch.items], axis=1),
        np.concatenate([nothing, batch.kinds], axis=1),
        np.concatenate([nothing, batch.gaps], axis=1),
        batch.kind_weights,
        batch.contexts,
        np.where(used > 0, weights, np.float32(0.0)).astype(np.float32),
    )


def lengthened(batch: Batch, imagined: Imagined) -> Batch:
    """Each history with the events of each of its paths, [batch * paths], as an encoder reads events.

    An imagined event is of the kind of the newest real one, and GAP away from the event before it.
    """
    rows, paths, events = imagined.items.shape
    batch = batch.take(np.repeat(np.arange(rows), paths))
    added = imagined.items.reshape(-1, events)
    newest = np.where(batch.has_history, batch.kinds[:, -1], KIND + 1)
    columns = [
        (added, batch.items),
        (np.where(added > 0, newest[:, None], 0), batch.kinds),
        (np.where(added > 0, GAP, 0), batch.gaps),
    ]
    items, kinds, gaps = (np.concatenate(pair if imagined.before else pair[::-1], axis=1) for pair in columns)
    order = np.argsort(items > 0, axis=1, kind="stable")
    items, kinds, gaps = (np.take_along_axis(array, order, axis=1) for array in (items, kinds, gaps))
    first = (items > 0) & (np.cumsum(items > 0, axis=1) == 1)
    gaps = np.where(first, FIRST_GAP, np.where(gaps == FIRST_GAP, GAP, gaps))
    arrays = (items.astype(np.int32), kinds.astype(np.int32), gaps.astype(np.int32))
    return Batch(*arrays, batch.kind_weights, batch.contexts)


def most_probable(imagined: Imagined, paths: int) -> Imagined:
    """The `paths` most probable paths of each history, their probabilities renormalised."""
    if imagined.shares.shape[1] <= paths:
        return imagined
    best = np.argsort(-imagined.shares, axis=1, kind="stable")[:, :paths]
    shares = np.take_along_axis(imagined.shares, best, axis=1)
    sums = np.maximum(shares.sum(axis=1, keepdims=True), np.float32(1e-30))
    return Imagined(np.take_along_axis(imagined.items, best[:, :, None], axis=1), shares / sums, imagined.before)
