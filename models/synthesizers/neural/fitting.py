"""Builds and trains the network of a generator."""

from typing import Any, Final

import keras
import msgspec
import numpy as np

from models.arrays import Float32, Float64
from models.data.interactions import Interactions
from models.synthesizers.base import Progress, SynthesizerContext
from models.synthesizers.neural.condition_reader import ConditionReader
from models.synthesizers.neural.network import NetworkFacts
from models.synthesizers.neural.params import SequenceParams
from models.synthesizers.neural.training import SequenceBatches, held_out_users, train
from models.synthesizers.neural.windows import SequenceData

NEGATIVE_POWER: Final = 0.75
"""Items are drawn to compare with by their number of events to this power."""


class NetworkPlan(msgspec.Struct, frozen=True):
    """What a network is built from: its classes (`SequenceSynthesizer.classes`), parameters, and the catalogue.

    `kinds` float32 [items + 2, kinds]: logs of the shares of kinds, by number. `latent`: units behind a history.
    """

    network_class: Any
    runner_class: Any
    params: SequenceParams
    reader: ConditionReader
    kinds: Float32
    latent: int = 0


def network_of(plan: NetworkPlan, popularity: Float32 | None = None, log_q: Float32 | None = None) -> Any:
    """The network of a plan, built, with weights as drawn. `popularity`: see `NetworkFacts`; None: all alike."""
    reader, size = plan.reader, len(plan.reader.vocabulary)
    if popularity is None:
        popularity = np.full(size + 2, 1.0 / max(1, size), np.float32)
    facts = NetworkFacts(reader.categories, plan.kinds, popularity, reader.texts, reader.schema)
    network = plan.network_class(facts, plan.params, log_q)
    network.ready(reader.empty(plan.params.window))
    return network


class NetworkFit(msgspec.Struct, frozen=True):
    """A network that is to be trained, what runs it, its batches, and the users held out."""

    network: Any
    runner: Any
    batches: SequenceBatches
    held_out: SequenceData

    def likelihood(self) -> float:
        """The mean log-likelihood of an event of the users held out."""
        self.runner.refresh()
        return float(self.runner.mean_log_likelihood(self.held_out))

    def figures(self) -> dict[str, float]:
        """What the network says of the users held out."""
        self.runner.refresh()
        return dict(self.runner.figures(self.held_out))


def prepare_fit(plan: NetworkPlan, interactions: Interactions, seed: int) -> NetworkFit:
    """A network of the plan with what it is trained on."""
    params = plan.params
    # The one global seed: layers inside layers take no generator for initial weights and dropout.
    keras.utils.set_random_seed(seed)
    size = len(interactions.vocabulary)
    counts = np.bincount(interactions.items, minlength=size) + 1.0
    chances = counts**NEGATIVE_POWER / (counts**NEGATIVE_POWER).sum() if size > params.full_softmax else None
    network = network_of(plan, np.pad(counts / counts.sum(), 1).astype(np.float32), _log_q(chances))
    data = plan.reader.data(interactions)
    held_out, rest = _split(data, params.held_out, np.random.default_rng(seed))
    batches = SequenceBatches(rest, params, seed, chances, plan.latent)
    return NetworkFit(network, plan.runner_class(network), batches, held_out)


def fit_network(
    plan: NetworkPlan, interactions: Interactions, context: SynthesizerContext, progress: Progress
) -> tuple[Any, Any, dict[str, float]]:
    """The network after training, what runs it, and the fit's figures."""
    fit = prepare_fit(plan, interactions, context.seed)
    figures = train(fit.network, fit.batches, fit.likelihood, context, progress)
    return fit.network, fit.runner, {**figures, **fit.figures()}


def _log_q(chances: Float64 | None) -> Float32 | None:
    return np.log(np.pad(chances, 1, constant_values=1.0)).astype(np.float32) if chances is not None else None


def _split(data: SequenceData, share: float, rng: np.random.Generator) -> tuple[SequenceData, SequenceData]:
    """The users that are held out, and the others."""
    users = len(data.histories)
    held = held_out_users(users, share, rng)
    others = np.setdiff1d(np.arange(users), held)
    return data.take(held), data.take(others)
