"""Builds and trains the network of a generator."""

from typing import Any

import keras
import numpy as np

from models.arrays import Float32, Float64
from models.data.interactions import Interactions
from models.synthesizers.base import Progress
from models.synthesizers.neural.keras_runner import KerasRunner
from models.synthesizers.neural.network import NetworkFacts, SequenceNetwork
from models.synthesizers.neural.synthesizer import SequenceSynthesizer
from models.synthesizers.neural.training import SequenceBatches, held_out_users, train
from models.synthesizers.neural.windows import SequenceData

NEGATIVE_POWER = 0.75
"""Items are drawn to compare with by their number of events to this power."""


def network_of(
    synthesizer: SequenceSynthesizer, popularity: Float32 | None = None, log_q: Float32 | None = None
) -> Any:
    """The network that a generator's parameters and catalogue describe, built, with weights as drawn."""
    reader, size = synthesizer.reader, len(synthesizer.vocabulary)
    if popularity is None:  # of a network whose weights are given: they hold the whole bias
        popularity = np.full(size + 2, 1.0 / max(1, size), np.float32)
    facts = NetworkFacts(reader.categories, synthesizer.log_kinds(), popularity, reader.texts, reader.schema)
    network = SequenceNetwork(facts, synthesizer.params, log_q)
    network.ready(reader.empty(synthesizer.params.window))
    return network


def fit_network(
    synthesizer: SequenceSynthesizer, interactions: Interactions, progress: Progress
) -> tuple[SequenceNetwork, KerasRunner, dict[str, float]]:
    """The network after training, what runs it, and the fit's figures."""
    params, seed = synthesizer.params, synthesizer.context.seed
    # The one global seed: layers inside layers take no generator for initial weights and dropout.
    keras.utils.set_random_seed(seed)
    size = len(synthesizer.vocabulary)
    counts = np.bincount(interactions.items, minlength=size) + 1.0
    chances = counts**NEGATIVE_POWER / (counts**NEGATIVE_POWER).sum() if size > params.full_softmax else None
    network = network_of(synthesizer, np.pad(counts / counts.sum(), 1).astype(np.float32), _log_q(chances))
    data = synthesizer.reader.data(interactions)
    held_out, rest = _split(data, params.held_out, np.random.default_rng(seed))
    runner = KerasRunner(network)

    def likelihood() -> float:
        runner.refresh()
        return runner.mean_log_likelihood(held_out)

    figures = train(network, SequenceBatches(rest, params, seed, chances), likelihood, synthesizer.context, progress)
    runner.refresh()
    return network, runner, figures


def _log_q(chances: Float64 | None) -> Float32 | None:
    return np.log(np.pad(chances, 1, constant_values=1.0)).astype(np.float32) if chances is not None else None


def _split(data: SequenceData, share: float, rng: np.random.Generator) -> tuple[SequenceData, SequenceData]:
    """The users that are held out, and the others."""
    users = len(data.histories)
    held = held_out_users(users, share, rng)
    others = np.setdiff1d(np.arange(users), held)
    return data.take(held), data.take(others)
