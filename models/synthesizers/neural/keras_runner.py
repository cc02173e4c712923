"""A network of events run by Keras."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import keras
import numpy as np
from keras import ops

from models.arrays import AnyArray, Float32, Float64, Int32
from models.synthesizers.neural.network import MOMENT, SequenceNetwork
from models.synthesizers.neural.runner import NetworkPosition, OutputWeights, StepRunner
from models.synthesizers.neural.windows import (
    SequenceData,
    Stretches,
    events_in_order,
    network_inputs,
    scoring_stretches,
)

SIZES: Final = (1, 16, 64, 256)
"""Batches are filled up to one of these sizes: every other would be compiled again."""
SCORED: Final = 64
"""Stretches whose likelihood is computed at a time."""


class NetworkFunction(keras.Model):  # type: ignore[misc]  # Keras has no types
    """A function of a network as a model of its own, which Keras compiles and exports."""

    def __init__(self, network: SequenceNetwork, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.network, self.function = network, function

    def call(self, inputs: Any) -> Any:
        return self.function(inputs)


class KerasRunner(StepRunner):
    """Runs a `SequenceNetwork` that is built."""

    def __init__(self, network: SequenceNetwork) -> None:
        self.network = network
        self._encode = NetworkFunction(network, network.encode)
        self._advance = NetworkFunction(network, lambda each: network.advance(*each))
        self._target = NetworkFunction(network, lambda each: network.target(each[0], each[1], each[2:]))
        self._score = NetworkFunction(network, lambda inputs: network(inputs)[0])
        self.refresh()

    def refresh(self) -> None:
        """Read the network's last layers again, after training went on."""
        network = self.network
        vectors, biases = network.folded()
        weights = [
            np.array(weights, np.float32) for weights in (*network.to_gap.get_weights(), *network.to_kind.get_weights())
        ]
        self.output = OutputWeights(vectors, biases, network.facts.kinds, *weights)

    def encode(self, inputs: Mapping[str, AnyArray]) -> NetworkPosition:
        hidden, memory, condition = batched(self._encode, dict(inputs), len(inputs["items"]))
        return NetworkPosition(hidden, memory, condition)

    def advance(self, position: NetworkPosition, items: Int32, kinds: Int32, gaps: Int32) -> NetworkPosition:
        inputs = (items, kinds, gaps, position.condition, position.memory)
        hidden, memory = batched(self._advance, inputs, len(items))
        return NetworkPosition(hidden, memory, position.condition)

    def target(self, position: NetworkPosition, gaps: Int32, hours: Int32, weekdays: Int32) -> Float32:
        inputs = (position.hidden, position.condition, gaps, hours, weekdays)
        target: Float32 = batched(self._target, inputs, len(gaps))
        return target

    def mean_log_likelihood(self, data: SequenceData) -> float:
        """The mean log-probability of an event, both directions together; 0 where there is none."""
        stretches = scoring_stretches(data.histories.starts, self.network.params.window)
        logs = [self.log_likelihoods(data, stretches, backward=backward).sum() for backward in (False, True)]
        return float(sum(logs)) / max(1, 2 * len(data.histories.items))

    def log_likelihoods(self, data: SequenceData, stretches: Stretches, *, backward: bool) -> Float64:
        """float64 [stretches]: the log-probability of the items of each stretch that count, when they come unknown."""
        out = np.zeros(len(stretches), np.float64)
        for start, part, x, targets in self.scored_batches(data, stretches, backward):
            target = batched(self._score, x, len(part))
            place = np.arange(targets.shape[1])[None]
            counted = np.where(place >= targets.shape[1] - part.scored[:, None], targets, -1)
            out[start : start + len(part)] = self.log_probabilities(data, target, counted)
        return out

    def scored_batches(
        self, data: SequenceData, stretches: Stretches, backward: bool
    ) -> Iterator[tuple[int, Stretches, dict[str, AnyArray], Int32]]:
        """The number of the first stretch, the stretches, the network's inputs and the events that follow them."""
        width = self.network.params.window
        for start in range(0, len(stretches), SCORED):
            part = stretches.take(np.arange(start, min(start + SCORED, len(stretches))))
            direction = np.full(len(part), backward)
            x, targets = network_inputs(data, events_in_order(data, part, direction), direction, width)
            x |= {name: np.zeros_like(x[name]) for name in MOMENT}
            if data.profiles.shape[1]:
                x["profile"] = data.profiles[part.end - 1]
            yield start, part, x, targets

    def log_probabilities(self, data: SequenceData, target: Float32, counted: Int32) -> Float64:
        """float64 [rows]: sums over the events `counted` int32 [rows, width] (-1: none) of their items' logs."""
        row, place = np.nonzero(counted >= 0)
        items = data.histories.items[counted[row, place]]
        shares = self.output.items(target[row, place])[np.arange(len(items)), items]
        sums: Float64 = np.bincount(row, np.log(np.maximum(shares, 1e-30)), minlength=len(counted)).astype(np.float64)
        return sums

    def figures(self, data: SequenceData) -> dict[str, float]:  # noqa: ARG002 - for networks that have more to say
        """What else a fit reports of the users held out."""
        return {}


def batched(model: NetworkFunction, inputs: Any, rows: int) -> Any:
    """Arrays from a model for inputs of so many rows, each batch filled up."""
    parts = [_part(model, inputs, start, min(SIZES[-1], rows - start)) for start in range(0, rows, SIZES[-1])]
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))
    return np.concatenate(parts)


def _part(model: NetworkFunction, inputs: Any, start: int, rows: int) -> Any:
    size = next(size for size in SIZES if size >= rows)

    def filled(array: AnyArray) -> AnyArray:
        part = array[start : start + rows]
        return np.pad(part, ((0, size - rows), *([(0, 0)] * (part.ndim - 1))))

    given = (
        {name: filled(each) for name, each in inputs.items()}
        if isinstance(inputs, dict)
        else tuple(map(filled, inputs))
    )
    out = model.predict_on_batch(given)
    if isinstance(out, Sequence):
        return tuple(np.asarray(ops.convert_to_numpy(tensor))[:rows] for tensor in out)
    return np.asarray(ops.convert_to_numpy(out))[:rows]
