"""What runs a network one event at a time. Keras is one way, ONNX Runtime another; neither is imported here."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import msgspec
import numpy as np

from models.arrays import AnyArray, Float32, Int32
from models.recommenders.item_product import softmax


class OutputWeights(msgspec.Struct, frozen=True):
    """The last layers, which are plain products. By number of item, from 0 (padding): `vectors` float32 [items + 2,
    size], `biases` float32 [items + 2], `kinds` float32 [items + 2, kinds]. `gap_weights` float32 [size, classes] and
    `gap_biases` float32 [classes] of the gap to the next event, `kind_weights`, `kind_biases` of its kind."""

    vectors: Float32
    biases: Float32
    kinds: Float32
    gap_weights: Float32
    gap_biases: Float32
    kind_weights: Float32
    kind_biases: Float32

    def items(self, target: Float32) -> Float32:
        """float32 [rows, items]: the distribution of the next item."""
        return softmax((target @ self.vectors[1:-1].T + self.biases[1:-1]).astype(np.float32, copy=False))

    def gaps(self, hidden: Float32, condition: Float32) -> Float32:
        """float32 [rows, classes]: the distribution of the class of the time to the next event."""
        return softmax(((hidden + condition) @ self.gap_weights + self.gap_biases).astype(np.float32, copy=False))

    def kinds_of(self, target: Float32, numbers: Int32) -> Float32:
        """float32 [rows, kinds]: the distribution of the kind of an event of items (int32 [rows], from 1)."""
        return softmax(target @ self.kind_weights + self.kind_biases + self.kinds[numbers])


class NetworkPosition(msgspec.Struct, frozen=True):
    """Where histories stand: `hidden`, `condition` float32 [rows, size]; `memory` float32 [rows, ...] of the cell."""

    hidden: Float32
    memory: Float32
    condition: Float32

    def take(self, rows: AnyArray) -> "NetworkPosition":
        """The given rows."""
        return NetworkPosition(self.hidden[rows], self.memory[rows], self.condition[rows])


class StepRunner(ABC):
    """Runs a network: over the known events once, then one event at a time."""

    output: OutputWeights

    @abstractmethod
    def encode(self, inputs: Mapping[str, AnyArray]) -> NetworkPosition:
        """After the known events, from the inputs that `ConditionReader.read` gives."""

    @abstractmethod
    def advance(self, position: NetworkPosition, items: Int32, kinds: Int32, gaps: Int32) -> NetworkPosition:
        """After one event more: numbers of items from 1, codes of kinds and gaps (0: unknown), int32 [rows] each."""

    @abstractmethod
    def target(self, position: NetworkPosition, gaps: Int32, hours: Int32, weekdays: Int32) -> Float32:
        """float32 [rows, size]: what the vectors of next items are compared with, given codes (0: unknown)."""


def kept_where(known: AnyArray, after: NetworkPosition, before: NetworkPosition) -> NetworkPosition:
    """`after` in the rows where `known` bool [rows], `before` in the others."""
    if known.all():
        return after
    hidden = np.where(known[:, None], after.hidden, before.hidden)
    spread = known.reshape(-1, *([1] * (after.memory.ndim - 1)))
    return NetworkPosition(hidden, np.where(spread, after.memory, before.memory), after.condition)
