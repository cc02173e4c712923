"""How items are drawn from probabilities: temperature, top-k, nucleus; and what limits them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta

from models.arrays import Bool, Float32, Int32, Int64
from models.data.profiles import Profile
from models.synthesizers.conditions import Conditions
from models.synthesizers.streams import RandomStreams

ITEM: Final = 0
"""The use of random numbers that draw items (see `details` for the others)."""
LATENT: Final = 64
"""The use of random numbers that draw what stands behind a whole history."""


class Decoding(msgspec.Struct, frozen=True, kw_only=True):
    """How items are drawn. `temperature` below 1 sharpens the distribution. Only the `top_k` most probable items count
    (0: all; of equally probable ones the first), and of these the fewest whose probabilities reach the share `nucleus`
    (Holtzman et al., ICLR 2020)."""

    temperature: Annotated[float, Meta(gt=0)] = 1.0
    top_k: Annotated[int, Meta(ge=0)] = 0
    nucleus: Annotated[float, Meta(gt=0, le=1)] = 1.0


class DrawingState(msgspec.Struct, frozen=True):
    """Where the histories of a batch stand before their next item is drawn.

    `items` int32 [rows, n]: items so far in the order of drawing, known ones first, -1 for padding on the left. `at`
    int64 [rows]: the time of the event to draw, epoch ms. `conditions`, `profiles`: one a row. `backward`: whether
    events are drawn from the newest to the oldest. `streams`: the random numbers of each history, for generators that
    draw more than items (such as a latent vector); None where an expectation is computed. `times` int64 [rows, n]: when
    `items` happened, epoch ms (0 for padding). `remaining` int64 [rows]: how many events of each row are still to come
    after the one to draw.
    """

    items: Int32
    at: Int64
    conditions: Sequence[Conditions]
    profiles: Sequence[Profile | None]
    backward: bool = False
    streams: RandomStreams | None = None
    times: Int64 = msgspec.field(default_factory=lambda: np.zeros((0, 0), np.int64))
    remaining: Int64 = msgspec.field(default_factory=lambda: np.zeros(0, np.int64))


class ItemConstraint(ABC):
    """Prior knowledge about which items may come next, as factors of their probabilities."""

    @abstractmethod
    def factors(self, state: DrawingState) -> Float32:
        """float32 [rows, items] or [items]: 0 forbids an item, 1 changes nothing."""

    def joins(self, state: DrawingState) -> Bool | None:  # noqa: ARG002 - for those that compare neighbors
        """bool [rows]: whether the events so far may be followed by the later events of the conditions; None: always.

        Where they may not, the newest of the generated events are left out until they may.
        """
        return None


def shape_probabilities(probabilities: Float32, decoding: Decoding) -> Float32:
    """float32 [rows, items]: probabilities after temperature, top-k and nucleus; rows sum to one.

    >>> shape_probabilities(np.array([[0.5, 0.3, 0.2]], np.float32), Decoding(nucleus=0.6)).round(3).tolist()
    [[0.625, 0.375, 0.0]]
    """
    out = probabilities
    if decoding.temperature != 1.0:
        largest = out.max(axis=1, keepdims=True)
        out = np.where(out > 0, (out / np.maximum(largest, 1e-30)) ** np.float32(1 / decoding.temperature), 0.0)
    if 0 < decoding.top_k < out.shape[1]:
        least = np.partition(out, -decoding.top_k, axis=1)[:, -decoding.top_k, None]
        larger, equal = out > least, out == least
        room = decoding.top_k - larger.sum(axis=1, keepdims=True)
        out = np.where(larger | (equal & (np.cumsum(equal, axis=1) <= room)), out, 0.0)
    out = (out / np.maximum(out.sum(axis=1, keepdims=True), 1e-30)).astype(np.float32)
    if decoding.nucleus < 1.0:
        order = np.argsort(-out, axis=1, kind="stable")
        ordered = np.take_along_axis(out, order, axis=1)
        before = np.cumsum(ordered, axis=1, dtype=np.float64) - ordered
        np.put_along_axis(out, order, np.where(before < decoding.nucleus, ordered, 0.0), axis=1)
        out /= out.sum(axis=1, keepdims=True)
    shaped: Float32 = out
    return shaped


def constrain(probabilities: Float32, state: DrawingState, constraints: Sequence[ItemConstraint]) -> Float32:
    """float32 [rows, items]: probabilities times every constraint's factors; rows sum to one.

    A row in which nothing is left falls back to the product of the constraints alone. It is all zeros where the
    constraints themselves forbid every item: no event can be drawn there.
    """
    if not constraints:
        return probabilities
    factors = np.ones_like(probabilities)
    for constraint in constraints:
        factors *= constraint.factors(state)
    out = probabilities * factors
    empty = out.sum(axis=1) <= 0
    out[empty] = factors[empty]
    normalized: Float32 = out / np.maximum(out.sum(axis=1, keepdims=True), np.float32(1e-30))
    return normalized


def draw_items(probabilities: Float32, streams: RandomStreams, step: int) -> Int32:
    """int32 [rows]: an item of each row by inversion; -1 where a row of probabilities is all zeros."""
    cumulative = np.cumsum(probabilities, axis=1, dtype=np.float64)
    total = cumulative[:, -1]
    threshold = streams.uniform(step, ITEM)[:, 0] * total
    items = np.array([np.searchsorted(row, value) for row, value in zip(cumulative, threshold, strict=True)], np.int64)
    result: Int32 = np.where(total > 0, np.minimum(items, probabilities.shape[1] - 1), -1).astype(np.int32)
    return result
