"""Synthesizers that are chains of items: sampled from sparse rows, expected in closed form any number of steps away."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
import numpy as np

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
from models.synthesizers.chain import Chain
from models.synthesizers.conditions import ConditionName, Conditions, check_conditions
from models.synthesizers.decoding import ITEM, DrawingState
from models.synthesizers.details import EventDetails
from models.synthesizers.histories import Histories
from models.synthesizers.item_preferences import ItemPreferences, named
from models.synthesizers.stepwise import StepwiseSynthesizer
from models.synthesizers.streams import RandomStreams

KEPT: Final = 1 << 22
"""Entries of a distribution that is kept for further steps, at most."""


class Sources(msgspec.Struct, frozen=True):
    """The items that the next one depends on, and what the conditions say of items.

    `items` int32 [rows, n] (-1: none), drawn from with `weights` float32 [rows, n], rows of which sum to one; `factors`
    float32 [rows, items] or None.
    """

    items: Int32
    weights: Float32
    factors: Float32 | None

    def __getitem__(self, rows: Int64) -> "Sources":
        return Sources(self.items[rows], self.weights[rows], self.factors[rows] if self.factors is not None else None)


class ItemChain(StepwiseSynthesizer):
    """The next item depends on the last one (`forward`), the item before on the first one (`backward`).

    Profile, category and text multiply the probabilities (`ItemPreferences`), and each step is normalized again.
    """

    supports: ClassVar[frozenset[ConditionName]] = frozenset({"first", "later", "profile", "category", "text"})

    def __init__(self, params: msgspec.Struct | None = None, context: SynthesizerContext | None = None) -> None:
        super().__init__(params, context)
        self.forward = self.backward = Chain([], np.zeros(0, np.float32))
        self.preferences = ItemPreferences()
        self._last: tuple[tuple[bool, list[Conditions]], list[Float32]] | None = None
        """The conditions of the last expectation (and whether back in time), and their distributions by step."""

    @abstractmethod
    def chains(self, interactions: Interactions) -> tuple[Chain, Chain]:
        """The chains forward and backward."""

    def fit(self, interactions: Interactions, progress: Progress = no_progress) -> None:
        require_events(interactions, self.name)
        self.vocabulary = interactions.vocabulary
        self.details.fit(interactions)
        self.preferences.fit(interactions)
        self._last = None
        self.forward, self.backward = self.chains(interactions)
        progress(1.0, {})

    def source_weights(self, items: Int32) -> Float32:
        """float32 [rows, n]: how much the next item depends on each known one, `items` int32 [rows, n] (-1: none).

        Rows sum to one; here the last item alone counts. A row without items has its weight on the last column.
        """
        weights = np.zeros(items.shape, np.float32)
        weights[:, -1] = 1.0
        return weights

    def begin(self, drawing: DrawingState) -> Sources:
        factors = self.preferences.factors(drawing.conditions, drawing.profiles)
        return self._sources(drawing.items, factors)

    def _sources(self, items: Int32, factors: Float32 | None) -> Sources:
        if not items.shape[1]:
            items = np.full((len(items), 1), -1, np.int32)
        return Sources(items, self.source_weights(items), factors)

    def chain(self, *, backward: bool) -> Chain:
        """The chain of a direction."""
        return self.backward if backward else self.forward

    def item_probabilities(self, state: Sources, drawing: DrawingState) -> Float32:
        return self._after(state, self.chain(backward=drawing.backward))

    def _after(self, state: Sources, chain: Chain) -> Float32:
        """float32 [rows, items]: the distribution after the sources."""
        out = np.zeros((len(state.items), len(self.vocabulary)), np.float32)
        for column in range(state.items.shape[1]):
            weights = state.weights[:, column]
            rows = np.flatnonzero(weights)
            out[rows] += weights[rows, None] * chain.after(state.items[rows, column])
        if state.factors is not None:
            out *= state.factors
            out /= np.maximum(out.sum(axis=1, keepdims=True), np.float32(1e-30))
        return out

    def draws_directly(self, condition: Conditions) -> bool:
        between = bool(condition.first.items) and bool(condition.later.items)
        return not between and condition.profile is None and condition.category is None and condition.text is None

    def draw_directly(self, state: Sources, drawing: DrawingState, streams: RandomStreams, step: int) -> Int32:
        uniform = streams.uniform(step, ITEM, 3)
        cumulative = np.cumsum(state.weights, axis=1, dtype=np.float64)
        columns = (cumulative < uniform[:, 2:] * cumulative[:, -1:]).sum(axis=1)
        sources = state.items[np.arange(len(columns)), columns]
        return self.chain(backward=drawing.backward).draw(sources, uniform)

    def advance(self, state: Sources, items: Int32, at: Int64, kinds: Int32) -> Sources:  # noqa: ARG002
        last = np.where(items >= 0, items, state.items[:, -1]).astype(np.int32)
        return Sources(last[:, None], np.ones((len(last), 1), np.float32), state.factors)

    def expected(self, conditions: Sequence[Conditions], steps: int = 1, seed: int = 0) -> Float32:  # noqa: ARG002
        turned = conditions_for_step(conditions, steps)
        check_conditions(turned, self.supports, self.name)
        chain = self.chain(backward=steps < 0)
        factors = self.preferences.factors(turned, [condition.profile for condition in turned])
        if self._last is None or self._last[0] != (steps < 0, turned):
            known = known_items(turned, self.vocabulary, backward=steps < 0)
            self._last = ((steps < 0, turned), [self._after(self._sources(known, factors), chain)])
        distributions = self._last[1]
        while len(distributions) < abs(steps):
            distributions.append(chain.spread(distributions[-1], factors))
        if distributions[0].size > KEPT:
            self._last = None
        return distributions[abs(steps) - 1].copy()

    def profile_evidence(self, histories: Histories) -> Float64 | None:
        return self.preferences.profile_evidence(histories)

    def log_prob(self, histories: Histories) -> Float64:
        firsts = histories.starts[:-1][histories.lengths > 0]
        before = np.roll(histories.items, 1).astype(np.int64)
        before[firsts] = -1
        logs = np.log(np.maximum(self.forward.at(before, histories.items.astype(np.int64)), 1e-30))
        sums: Float64 = np.bincount(histories.users, logs, minlength=len(histories)).astype(np.float64)
        return sums

    def arrays(self) -> dict[str, AnyArray]:
        parts = {
            "forward": self.forward.arrays(),
            "backward": self.backward.arrays(),
            "details": self.details.arrays(),
            "preferences": self.preferences.arrays(),
        }
        return {f"{part}-{name}": array for part, arrays in parts.items() for name, array in arrays.items()}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        self._last = None
        self.forward = Chain.from_arrays(named(arrays, "forward-"))
        self.backward = Chain.from_arrays(named(arrays, "backward-"))
        self.details = EventDetails.from_arrays(named(arrays, "details-"))
        self.preferences = ItemPreferences.from_arrays(named(arrays, "preferences-"))


def item_positions(histories: Histories) -> Int64:
    """int64 [events]: the position of each event in its user's history, from 0."""
    positions: Int64 = np.arange(len(histories.items)) - np.repeat(histories.starts[:-1], histories.lengths)
    return positions
