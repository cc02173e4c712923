"""Joint training of networks of events and a GAN: one table of item vectors, and feature matching."""

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from keras import ops

from models.arrays import AnyArray, Float32
from models.synthesizers.base import Progress
from models.synthesizers.neural.adversary import Adversary
from models.synthesizers.neural.early_stop import BestWeights
from models.synthesizers.neural.feature_matching import MatchingInputs, matching_loss
from models.synthesizers.neural.fitting import NetworkFit
from models.synthesizers.neural.reconstruction import AutoencoderTraining
from models.synthesizers.neural.training import FitClock, SequenceBatches, compile_network, train_epoch


class JointOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`rounds` at most, in each of which every member trains one epoch; they stop when held-out events have not become
    more likely, in the mean of the members, for `patience` rounds. `matching`: weight of the features' distance in the
    networks' losses. `length`: newest events whose features are compared."""

    rounds: int
    patience: int
    matching: float
    length: int
    seed: int


class MatchedBatches:
    """Batches of a network with what `matching_loss` reads."""

    def __init__(self, batches: SequenceBatches, matching: MatchingInputs) -> None:
        self.batches, self.matching = batches, matching

    def start(self, epoch: int) -> None:
        """See `SequenceBatches.start`."""
        self.batches.start(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[dict[str, AnyArray], AnyArray]:
        x, y = self.batches[number]
        return self.matching(x, y, number), y


class JointTraining:
    """Members in training: `networks` by name, the GAN's autoencoder and its adversary.

    Only one member trains at a time, so one table is the same as a table that each hands to the next. The adversary's
    latent vectors are encoded again before each of its turns (`encode`).
    """

    def __init__(
        self,
        networks: Mapping[str, NetworkFit],
        reconstruction: AutoencoderTraining,
        adversary: Adversary,
        options: JointOptions,
    ) -> None:
        self.networks, self.options = dict(networks), options
        self.reconstruction, self.adversary = reconstruction, adversary
        self.rounds: list[dict[str, float]] = []
        self.autoencoder_curve: list[dict[str, float]] = []
        for fit in self.networks.values():
            compile_network(fit.network, fit.batches.params)

    def train(self, encode: Any, clock: FitClock, progress: Progress) -> None:
        """Train all members in turns; each ends with its weights of the best round, so with one table."""
        best = BestWeights()
        while not best.epochs or (
            best.epochs < self.options.rounds and best.waited < self.options.patience and not clock.over
        ):
            figures = self._round(best.epochs, encode, clock, progress)
            self.rounds.append(figures)
            best.record(figures["log-likelihood"], self._weights())
            progress(clock.share(best.epochs), figures)
        self._restore(best.weights)
        self.adversary.latents, self.adversary.conditions = encode(self.adversary.rng)

    def _round(self, number: int, encode: Any, clock: FitClock, progress: Progress) -> dict[str, float]:
        """One epoch of each member, and how they stand after it."""
        autoencoder, table = self.reconstruction.autoencoder, self._table()
        critic = {**autoencoder.arrays(), **self.adversary.arrays()}
        options, figures = self.options, {"round": float(number)}
        matching = MatchingInputs(critic, options.length, options.matching, options.seed + number)
        for name, fit in self.networks.items():
            set_table(fit.network.items.embeddings, table)
            batches = MatchedBatches(fit.batches, matching)
            figures[f"{name}-loss"] = train_epoch(fit.network, batches, number, clock, progress)
            figures[f"{name}-distance"] = feature_distance(fit.network, batches)
            table = table_of(fit.network.items.embeddings, len(table))
        set_table(autoencoder.variables["items"], table)
        self.autoencoder_curve.append(self.reconstruction.epoch(number))
        self.adversary.latents, self.adversary.conditions = encode(self.adversary.rng)
        figures |= self.adversary.train()
        for fit in self.networks.values():
            set_table(fit.network.items.embeddings, self._table())
        return {**figures, **self._likelihoods()}

    def _likelihoods(self) -> dict[str, float]:
        """Mean log-likelihood of a held-out event under each member, with the table as it is, and their mean."""
        own = {f"{name}-log-likelihood": fit.likelihood() for name, fit in self.networks.items()}
        own["gan-log-likelihood"] = -self.autoencoder_curve[-1]["held-out-loss"]
        return {**own, "log-likelihood": float(np.mean(list(own.values())))}

    def _table(self) -> Float32:
        items = self.reconstruction.autoencoder.variables["items"]
        return table_of(items, items.shape[0] - 1)

    def _weights(self) -> dict[str, AnyArray]:
        weights = {f"gan {name}": array for name, array in self.reconstruction.autoencoder.arrays().items()}
        for name, fit in self.networks.items():
            weights |= {f"{name} {number}": array for number, array in enumerate(fit.network.get_weights())}
        return weights

    def _restore(self, weights: Mapping[str, AnyArray]) -> None:
        autoencoder = self.reconstruction.autoencoder
        autoencoder.set_arrays({name: weights[f"gan {name}"] for name in autoencoder.variables})
        for name, fit in self.networks.items():
            fit.network.set_weights([weights[f"{name} {number}"] for number in range(len(fit.network.weights))])
            fit.runner.refresh()


def feature_distance(network: Any, batches: MatchedBatches) -> float:
    """The features' distance of the first batch of the first epoch, without its weight."""
    batches.start(0)
    x, _ = batches[0]
    tensors = {name: ops.convert_to_tensor(array) for name, array in {**x, "matching_weight": np.float32(1)}.items()}
    return float(matching_loss(network, network(tensors)[0], tensors))


def set_table(variable: Any, table: Float32) -> None:
    """Give a variable the items' vectors, float32 [items, size], in its rows from the second one."""
    rows = np.array(ops.convert_to_numpy(variable.value))
    rows[1 : len(table) + 1] = table
    variable.assign(rows)


def table_of(variable: Any, items: int) -> Float32:
    """float32 [items, size]: the items' vectors in a variable."""
    return np.array(ops.convert_to_numpy(variable.value))[1 : items + 1]
