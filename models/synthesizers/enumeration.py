"""The most probable continuations of histories, with their probabilities: instead of sampled ones, where affordable."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from models.arrays import Float32, Int32, Int64
from models.synthesizers.conditions import Conditions
from models.synthesizers.decoding import DrawingState
from models.synthesizers.stepwise import StepwiseSynthesizer

MOST: Final = 64
ENTRIES: Final = 20_000_000
"""At most so many probabilities are held at a time."""


class Continuations(msgspec.Struct, frozen=True):
    """For each condition, the most probable continuations: `items` int32 [conditions, n, events] in the order of
    drawing (backward: newest first), `probabilities` float32 [conditions, n], which sum to one."""

    items: Int32
    probabilities: Float32


def enumerate_continuations(
    synthesizer: StepwiseSynthesizer,
    conditions: Sequence[Conditions],
    events: int,
    *,
    backward: bool = False,
    most: int = MOST,
) -> Continuations:
    """The `most` most probable next (or previous) `events` of each condition, renormalised.

    Beam search: exact for one event; for more, each event goes on from the `most` best so far. When they happen is left
    open, and an event is of its item's most frequent kind.
    """
    parts = [_of_part(synthesizer, part, events, backward, most)[0] for part in _parts(synthesizer, conditions, most)]
    items = np.concatenate([part.items for part in parts])
    return Continuations(items, np.concatenate([part.probabilities for part in parts]))


def expected_after(
    synthesizer: StepwiseSynthesizer,
    conditions: Sequence[Conditions],
    events: int,
    *,
    backward: bool = False,
    most: int = MOST,
) -> Float32:
    """float32 [conditions, items]: the distribution of the item after (before) `events` more ones, enumerated."""
    out = []
    for part in _parts(synthesizer, conditions, most):
        paths, state, drawing = _of_part(synthesizer, part, events, backward, most)
        following = synthesizer.item_probabilities(state, drawing).reshape(*paths.probabilities.shape, -1)
        out.append(np.einsum("rp,rpi->ri", paths.probabilities, following))
    return np.concatenate(out).astype(np.float32)


def _parts(synthesizer: StepwiseSynthesizer, conditions: Sequence[Conditions], most: int) -> list[Sequence[Conditions]]:
    size = max(1, ENTRIES // (most * max(1, len(synthesizer.vocabulary))))
    return [conditions[start : start + size] for start in range(0, len(conditions), size)]


def _of_part(
    synthesizer: StepwiseSynthesizer, conditions: Sequence[Conditions], events: int, backward: bool, most: int
) -> tuple[Continuations, Any, DrawingState]:
    """The continuations of some conditions, and the state after them: a row for each, one condition after another."""
    rows, kinds = len(conditions), synthesizer.details.item_kinds.argmax(axis=1).astype(np.int32)
    drawing = synthesizer.before_drawing(conditions, None, backward=backward)
    state = synthesizer.begin(drawing)
    items, shares = np.zeros((rows, 1, 0), np.int32), np.ones((rows, 1), np.float32)
    for _ in range(events):
        probabilities = synthesizer.item_probabilities(state, drawing).reshape(rows, shares.shape[1], -1)
        path, item, shares = _best(probabilities * shares[:, :, None], most)
        items = np.concatenate([np.take_along_axis(items, path[:, :, None], axis=1), item[:, :, None]], axis=2)
        taken = (np.arange(rows)[:, None] * probabilities.shape[1] + path).ravel()
        drawn, unknown = item.ravel(), np.zeros(item.size, np.int64)
        drawing = _taken(drawing, taken, drawn)
        state = synthesizer.advance(synthesizer.take_state(state, taken), drawn, unknown, kinds[drawn])
    return Continuations(items, shares), state, drawing


def _best(joint: Float32, most: int) -> tuple[Int64, Int32, Float32]:
    """The path and the item of the largest of float32 [rows, paths, items], and their renormalised values."""
    flat = joint.reshape(len(joint), -1)
    most = min(most, flat.shape[1])
    best = np.argpartition(-flat, most - 1, axis=1)[:, :most]
    best = np.take_along_axis(best, np.argsort(-np.take_along_axis(flat, best, axis=1), axis=1, kind="stable"), axis=1)
    values = np.take_along_axis(flat, best, axis=1)
    shares: Float32 = (values / np.maximum(values.sum(axis=1, keepdims=True), 1e-30)).astype(np.float32)
    return best // joint.shape[2], (best % joint.shape[2]).astype(np.int32), shares


def _taken(drawing: DrawingState, rows: Int64, items: Int32) -> DrawingState:
    """The given rows after an event of `items` at an unknown time."""
    return msgspec.structs.replace(
        drawing,
        items=np.column_stack([drawing.items[rows], items]),
        times=np.column_stack([drawing.times[rows], np.zeros(len(rows), np.int64)]),
        at=drawing.at[rows],
        remaining=drawing.remaining[rows],
        conditions=[drawing.conditions[row] for row in rows.tolist()],
        profiles=[drawing.profiles[row] for row in rows.tolist()],
    )
