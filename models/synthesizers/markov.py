"""A Markov chain over items, forward and backward, with back-off to categories and popularity."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from msgspec import Meta
from scipy import sparse

from models.arrays import AnyArray, Float32, Float64, Int32, Int64
from models.data.interactions import Interactions
from models.synthesizers.base import (
    Progress,
    SynthesizerContext,
    conditions_for_step,
    known_items,
    no_progress,
    require_events,
)
from models.synthesizers.conditions import ConditionName, Conditions, check_conditions
from models.synthesizers.decoding import DrawingState
from models.synthesizers.details import EventDetails
from models.synthesizers.histories import Histories
from models.synthesizers.stepwise import StepwiseSynthesizer


class Markov(StepwiseSynthesizer):
    """The next item depends on the one before it: P(j | i) = (n(i, j) + b P0(j)) / (n(i) + b).

    P0 is popularity, with `smoothing` added to every count; b is `back_off`. Transitions over up to `window` events
    count `decay` times less with every event between them. Backward, the counts are transposed. Several steps ahead the
    distribution is a power of the transition matrix: no sampling.
    """

    name = "markov"
    supports: ClassVar[frozenset[ConditionName]] = frozenset({"first", "later"})

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """Parameters of the formula above. `first_events`: popularity at the start counts users' first events only."""

        back_off: Annotated[float, Meta(gt=0)] = 5.0
        smoothing: Annotated[float, Meta(ge=0)] = 0.1
        window: Annotated[int, Meta(ge=1, le=50)] = 1
        decay: Annotated[float, Meta(gt=0, le=1)] = 0.5
        first_events: Annotated[int, Meta(ge=1)] = 3

    def __init__(self, params: msgspec.Struct | None = None, context: SynthesizerContext | None = None) -> None:
        super().__init__(params, context)
        self._set_counts(sparse.csr_matrix(np.zeros((0, 0), np.float32)))
        self.popularity: Float32 = np.zeros(0, np.float32)
        self.beginnings: Float32 = np.zeros(0, np.float32)

    def fit(self, interactions: Interactions, progress: Progress = no_progress) -> None:
        require_events(interactions, self.name)
        self.vocabulary = interactions.vocabulary
        self.details.fit(interactions)
        histories = Histories.from_interactions(interactions)
        size = len(self.vocabulary)
        self._set_counts(transition_counts(histories, size, self.params.window, self.params.decay))
        smoothing = self.params.smoothing
        self.popularity = _shares(np.bincount(histories.items, minlength=size) + smoothing)
        positions = np.arange(len(histories.items)) - np.repeat(histories.starts[:-1], histories.lengths)
        first = histories.items[positions < self.params.first_events]
        self.beginnings = _shares(np.bincount(first, minlength=size) + smoothing)
        progress(1.0, {})

    def begin(self, drawing: DrawingState) -> Int32:
        """int32 [rows]: the item drawn last, -1 for none."""
        if not drawing.items.shape[1]:
            return np.full(len(drawing.conditions), -1, np.int32)
        return drawing.items[:, -1]

    def item_probabilities(self, state: Int32, drawing: DrawingState) -> Float32:
        return self.step(state, backward=drawing.backward)

    def advance(self, state: Int32, items: Int32, at: Int64, kinds: Int32) -> Int32:  # noqa: ARG002
        return np.where(items >= 0, items, state).astype(np.int32)

    def step(self, items: Int32, *, backward: bool) -> Float32:
        """float32 [rows, items]: the distribution of the item after (before) each of `items` int32 [rows]."""
        matrix = self._transposed if backward else self.counts
        known = np.maximum(items, 0)
        rows = np.asarray(matrix[known].todense(), np.float32)
        back_off = np.float32(self.params.back_off)
        rows = (rows + back_off * self.popularity) / (rows.sum(axis=1, keepdims=True) + back_off)
        start = self.popularity if backward else self.beginnings
        out: Float32 = np.where((items < 0)[:, None], start, rows).astype(np.float32)
        return out

    def expected(self, conditions: Sequence[Conditions], steps: int = 1, seed: int = 0) -> Float32:  # noqa: ARG002
        turned = conditions_for_step(conditions, steps)
        check_conditions(turned, self.supports, self.name)
        known = known_items(turned, self.vocabulary, backward=steps < 0)
        last = known[:, -1] if known.shape[1] else np.full(len(turned), -1, np.int32)
        distribution = self.step(last, backward=steps < 0)
        for _ in range(abs(steps) - 1):
            distribution = self.spread(distribution, backward=steps < 0)
        return distribution

    def spread(self, distribution: Float32, *, backward: bool) -> Float32:
        """float32 [rows, items]: the items one step after (before) items of a distribution [rows, items]."""
        matrix, back_off = (self._transposed if backward else self.counts), self.params.back_off
        scale = (1.0 / (np.asarray(matrix.sum(axis=1)).ravel() + back_off)).astype(np.float32)
        weighted = distribution * scale
        out: Float32 = np.asarray(weighted @ matrix, np.float32)
        out += back_off * weighted.sum(axis=1, keepdims=True) * self.popularity
        return out

    def log_prob(self, histories: Histories) -> Float64:
        firsts = histories.starts[:-1][histories.lengths > 0]
        before = np.roll(histories.items, 1)
        before[firsts] = -1
        matrix, back_off = self.counts, self.params.back_off
        known = np.maximum(before, 0)
        pairs = np.asarray(matrix[known, histories.items], np.float64).ravel()
        totals = np.asarray(matrix.sum(axis=1), np.float64).ravel()[known]
        shares = (pairs + back_off * self.popularity[histories.items]) / (totals + back_off)
        logs = np.log(np.where(before < 0, self.beginnings[histories.items], shares))
        sums: Float64 = np.bincount(histories.users, logs, minlength=len(histories)).astype(np.float64)
        return sums

    def _set_counts(self, counts: sparse.csr_matrix) -> None:
        self.counts: sparse.csr_matrix = counts
        self._transposed: sparse.csr_matrix = counts.T.tocsr()

    def arrays(self) -> dict[str, AnyArray]:
        counts = self.counts
        own = {"data": counts.data, "indices": counts.indices, "indptr": counts.indptr}
        details = {f"details-{name}": array for name, array in self.details.arrays().items()}
        return {**own, "popularity": self.popularity, "beginnings": self.beginnings, **details}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        size = len(self.vocabulary)
        self._set_counts(sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), (size, size)))
        self.popularity, self.beginnings = arrays["popularity"], arrays["beginnings"]
        details = {name.removeprefix("details-"): array for name, array in arrays.items()}
        self.details = EventDetails.from_arrays(details)


def transition_counts(histories: Histories, items: int, window: int = 1, decay: float = 0.5) -> sparse.csr_matrix:
    """float32 [items, items]: how often an item follows another, `decay` times less for every event between them."""
    users = histories.users
    sources, targets, amounts = [], [], []
    for distance in range(1, window + 1):
        same = users[distance:] == users[:-distance]
        sources.append(histories.items[:-distance][same])
        targets.append(histories.items[distance:][same])
        amounts.append(np.full(int(same.sum()), decay ** (distance - 1), np.float32))
    pairs = (np.concatenate(sources), np.concatenate(targets))
    counts: sparse.csr_matrix = sparse.csr_matrix((np.concatenate(amounts), pairs), (items, items))
    counts.sort_indices()
    return counts


def _shares(counts: Float64) -> Float32:
    shares: Float32 = (counts / counts.sum()).astype(np.float32)
    return shares
