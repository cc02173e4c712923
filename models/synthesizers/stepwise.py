"""Synthesizers that draw one event after another, forward in time or backward."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import product
from typing import Any, ClassVar, Final

import msgspec
import numpy as np

from models.arrays import Float32, Float64, Int32, Int64
from models.synthesizers.base import (
    MAX_EVENTS,
    SamplingOptions,
    Synthesizer,
    SynthesizerContext,
    conditions_for_step,
    known_counts,
    known_events,
)
from models.synthesizers.conditions import Conditions, check_conditions
from models.synthesizers.decoding import (
    Decoding,
    DrawingState,
    ItemConstraint,
    constrain,
    draw_items,
    shape_probabilities,
)
from models.synthesizers.details import EventDetails
from models.synthesizers.histories import Histories, joined, session_numbers
from models.synthesizers.profiles import rows_without
from models.synthesizers.streams import RandomStreams
from models.synthesizers.times import anchor, draw_times

BATCH: Final = 128
"""Histories that are drawn at a time: probabilities are dense over the items."""
DIRECT_BATCH: Final = 4096
"""Histories that are drawn at a time where no dense probabilities are needed."""
SESSION_GAP_MS: Final = 30 * 60 * 1000


class StepwiseSynthesizer(Synthesizer):
    """A synthesizer with a distribution of the next item (and of the one before), given the events so far.

    Kinds, gaps, values and lengths come from `details`, which subclasses fit in `fit`. A state is any object with rows.
    """

    profiles_first: ClassVar[bool] = False
    """Whether a profile that no condition gives is generated before the events, which then depend on it; else it is
    chosen after them by `profile_evidence`."""

    def __init__(self, params: msgspec.Struct | None = None, context: SynthesizerContext | None = None) -> None:
        super().__init__(params, context)
        self.details = EventDetails()

    @abstractmethod
    def begin(self, drawing: DrawingState) -> Any:
        """The state of a batch before its first drawn event; `drawing` has the known items and the conditions."""

    @abstractmethod
    def item_probabilities(self, state: Any, drawing: DrawingState) -> Float32:
        """float32 [rows, items]: of the item to draw; rows sum to one."""

    @abstractmethod
    def advance(self, state: Any, items: Int32, at: Int64, kinds: Int32) -> Any:
        """The state after events of these items (-1: none), times (epoch ms) and kinds, each [rows]."""

    def take_state(self, state: Any, rows: Int64) -> Any:
        """The given rows (int64 [n]) of a state."""
        return state[rows]

    def draws_directly(self, condition: Conditions) -> bool:  # noqa: ARG002 - for those that can
        """Whether histories of this condition may be drawn by `draw_directly`."""
        return False

    def draw_directly(self, state: Any, drawing: DrawingState, streams: RandomStreams, step: int) -> Int32:
        """int32 [rows]: items drawn without dense probabilities, for rows for which `draws_directly` is true."""
        return draw_items(self.item_probabilities(state, drawing), streams, step)

    def draw_lengths(self, conditions: Sequence[Conditions], streams: RandomStreams) -> Int64:
        """int64 [rows]: how many events to draw where the condition does not say."""
        return self.details.draw_lengths(streams, known_counts(conditions), MAX_EVENTS)

    def draw_times(
        self, conditions: Sequence[Conditions], events: int, streams: RandomStreams, *, backward: bool
    ) -> Int64:
        """int64 [rows, events]: epoch ms in the order of drawing."""
        return draw_times(conditions, events, self.details, streams, backward=backward)

    def expected(self, conditions: Sequence[Conditions], steps: int = 1, seed: int = 0) -> Float32:
        if abs(steps) > 1:
            return super().expected(conditions, steps, seed)
        turned = conditions_for_step(conditions, steps)
        check_conditions(turned, self.supports, self.name)
        out = np.zeros((len(turned), len(self.vocabulary)), np.float32)
        for start in range(0, len(turned), BATCH):
            drawing = self.before_drawing(turned[start : start + BATCH], None, backward=steps < 0)
            out[start : start + BATCH] = self.item_probabilities(self.begin(drawing), drawing)
        return out

    def generate(self, conditions: Sequence[Conditions], streams: RandomStreams, options: SamplingOptions) -> Histories:
        if self.profiles_first:
            conditions = self._with_profiles(conditions, streams)
        histories = self._generate(conditions, streams, options)
        if self.profiles_first or not self.details.profiles:
            return histories
        evidence = self.profile_evidence(histories)
        profiles = [condition.profile for condition in self._with_profiles(conditions, streams, evidence)]
        return msgspec.structs.replace(histories, profiles=tuple(profiles))

    def profile_evidence(self, histories: Histories) -> Float64 | None:  # noqa: ARG002 - for those that know
        """float64 [users, labels of `details.profiles.schema`]: log-likelihood of events by label; or None."""
        return None

    def _with_profiles(
        self, conditions: Sequence[Conditions], streams: RandomStreams, evidence: Float64 | None = None
    ) -> list[Conditions]:
        """The conditions, each with a generated profile where it has none and profiles were learned."""
        out, model = list(conditions), self.details.profiles
        rows = rows_without([condition.profile for condition in conditions])
        if not model or not len(rows):
            return out
        codes = model.draw(streams.take(rows), evidence[rows] if evidence is not None else None)
        for row, profile in zip(rows.tolist(), model.decode(codes), strict=True):
            out[row] = msgspec.structs.replace(out[row], profile=profile)
        return out

    def _generate(
        self, conditions: Sequence[Conditions], streams: RandomStreams, options: SamplingOptions
    ) -> Histories:
        parts: list[Histories] = []
        order: list[int] = []
        free = not options.constraints and options.decoding == Decoding()
        direct = np.array([free and self.draws_directly(condition) for condition in conditions], np.bool_)
        backward = np.array(
            [bool(condition.later.items) and not condition.first.items for condition in conditions], np.bool_
        )
        own = self.draw_lengths(conditions, streams).tolist()
        lengths = np.array([each.events or length for each, length in zip(conditions, own, strict=True)], np.int64)
        by_length = np.argsort(lengths, kind="stable")  # histories of a batch end at about one step
        for directly, direction in product((False, True), (False, True)):
            rows = by_length[((direct == directly) & (backward == direction))[by_length]]
            size = DIRECT_BATCH if directly else BATCH
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                chosen = [conditions[row] for row in part.tolist()]
                drawn = self._draw(
                    chosen, lengths[part], streams.take(part), options, backward=direction, directly=directly
                )
                parts.append(drawn)
                order += part.tolist()
        return joined(parts).take(np.argsort(order).astype(np.int64))

    def before_drawing(
        self, conditions: Sequence[Conditions], streams: RandomStreams | None, *, backward: bool
    ) -> DrawingState:
        items, times = known_events(conditions, self.vocabulary, backward=backward)
        at = np.array([condition.at or anchor(condition, backward=backward) for condition in conditions], np.int64)
        profiles = [condition.profile for condition in conditions]
        after = np.zeros(len(items), np.int64)
        return DrawingState(items, at, conditions, profiles, backward, streams, times, after)

    def _draw(
        self,
        conditions: Sequence[Conditions],
        lengths: Int64,
        streams: RandomStreams,
        options: SamplingOptions,
        *,
        backward: bool,
        directly: bool = False,
    ) -> Histories:
        most = int(lengths.max(initial=0))
        times = self.draw_times(conditions, most, streams, backward=backward)
        drawing = self.before_drawing(conditions, streams, backward=backward)
        state, bridge = self.begin(drawing), self._bridge(conditions)
        shape = (len(conditions), most)
        items, kinds = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
        values = np.full(shape, np.nan, np.float32)
        for step in range(most):
            drawing = msgspec.structs.replace(drawing, at=times[:, step], remaining=np.maximum(lengths - step - 1, 0))
            if directly:
                drawn = self.draw_directly(state, drawing, streams, step)
            else:
                last = (lengths == step + 1)[:, None]
                probabilities = self.item_probabilities(state, drawing)
                if bridge is not None:
                    probabilities = np.where(last, probabilities * bridge, probabilities)
                probabilities = shape_probabilities(probabilities, options.decoding)
                drawn = draw_items(constrain(probabilities, drawing, options.constraints), streams, step)
            drawn = np.where(lengths > step, drawn, -1).astype(np.int32)
            known = np.maximum(drawn, 0)
            items[:, step] = drawn
            kinds[:, step] = self.details.draw_kinds(streams, step, known)
            values[:, step] = self.details.draw_values(streams, step, known, kinds[:, step])
            state = self.advance(state, drawn, times[:, step], kinds[:, step])
            drawing = with_event(drawing, drawn)
        if bridge is not None:
            items = without_unjoinable(items, drawing, options.constraints)
        profiles = [condition.profile for condition in conditions]
        return histories_of_drawn(items, times, kinds, values, profiles, backward=backward)

    def _bridge(self, conditions: Sequence[Conditions]) -> Float32 | None:
        """float32 [rows, items]: how much each item favors the later events of rows that have first ones as well.

        None where no row has both. The last generated event is drawn from the forward distribution times this.
        """
        both = [row for row, condition in enumerate(conditions) if condition.first.items and condition.later.items]
        if not both:
            return None
        bridge = np.ones((len(conditions), len(self.vocabulary)), np.float32)
        ends = [msgspec.structs.replace(conditions[row], first=type(conditions[row].first)()) for row in both]
        anywhere = self.expected([msgspec.structs.replace(end, later=type(end.later)()) for end in ends], -1)
        bridge[both] = self.expected(ends, -1) / np.maximum(anywhere, 1e-9)
        return bridge


def with_event(drawing: DrawingState, items: Int32) -> DrawingState:
    """The state after an event of `items` int32 [rows] (-1: none) at the state's time."""
    return msgspec.structs.replace(
        drawing,
        items=np.column_stack([drawing.items, items]),
        times=np.column_stack([drawing.times, drawing.at]),
    )


def without_unjoinable(items: Int32, drawing: DrawingState, constraints: Sequence[ItemConstraint]) -> Int32:
    """int32 [rows, events]: `items` less the newest events of rows that may not be followed by their later events.

    `drawing` is the state after all of `items` were drawn.
    """
    kept = items.copy()
    known = drawing.items.shape[1] - items.shape[1]
    for step in reversed(range(items.shape[1])):
        joined_items = np.column_stack([drawing.items[:, :known], kept])
        state = msgspec.structs.replace(drawing, items=joined_items)
        apart = np.zeros(len(kept), np.bool_)
        for constraint in constraints:
            joins = constraint.joins(state)
            apart |= ~joins if joins is not None else False
        if not apart.any():
            break
        kept[apart, step] = -1
    return kept


def histories_of_drawn(
    items: Int32,
    at: Int64,
    kinds: Int32,
    values: Float32,
    profiles: Sequence[Any],
    *,
    backward: bool,
) -> Histories:
    """Histories from arrays [rows, events] in the order of drawing; events of item -1 are left out."""
    if backward:
        items, at, kinds, values = items[:, ::-1], at[:, ::-1], kinds[:, ::-1], values[:, ::-1]
    real = items >= 0
    starts = np.concatenate([[0], np.cumsum(real.sum(axis=1))]).astype(np.int64)
    times = at[real]
    sessions = session_numbers(starts, times, SESSION_GAP_MS)
    return Histories(starts, items[real], kinds[real], times, values[real], sessions, tuple(profiles))
