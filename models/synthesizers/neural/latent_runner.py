"""A network with a latent vector run by Keras: bounds of likelihoods, and how much the latent vector says."""

from typing import Final

import numpy as np
from scipy.special import logsumexp

from models.arrays import AnyArray, Float32, Float64
from models.synthesizers.neural.keras_runner import KerasRunner, NetworkFunction, batched
from models.synthesizers.neural.latent_inputs import with_latent
from models.synthesizers.neural.latent_network import LatentNetwork
from models.synthesizers.neural.windows import SequenceData, Stretches, scoring_stretches

ACTIVE: Final = 0.01
"""A unit whose posterior mean varies by more than this over histories is active."""
SEED: Final = 0


class LatentRunner(KerasRunner):
    """Runs a `LatentNetwork`; likelihoods are bounds from below, from `draws` latent vectors."""

    network: LatentNetwork

    def __init__(self, network: LatentNetwork, draws: int = 1) -> None:
        super().__init__(network)
        self.draws = draws
        self._evidence = NetworkFunction(network, lambda inputs: network(inputs)[::3])
        self._posterior = NetworkFunction(network, lambda each: network.posterior(each, network.conditioned(each)))

    def log_likelihoods(self, data: SequenceData, stretches: Stretches, *, backward: bool) -> Float64:
        """float64 [stretches]: log of the mean of p(items, z) / q(z | items) over `draws` (Burda et al., ICLR 2016,
        equation 8); the divergence's weight in training does not matter here."""
        out = np.zeros((self.draws, len(stretches)), np.float64)
        for draw in range(self.draws):
            rng = np.random.default_rng([SEED, draw])
            for start, part, inputs, targets in self.scored_batches(data, stretches, backward):
                known = part.end - part.first - part.scored
                x, counted = with_latent(data, inputs, targets, known, self.network.params.latent, rng)
                target, weight = batched(self._evidence, x, len(part))
                out[draw, start : start + len(part)] = self.log_probabilities(data, target, counted) + weight
        bound: Float64 = logsumexp(out, axis=0) - np.log(self.draws)
        return bound

    def figures(self, data: SequenceData) -> dict[str, float]:
        """How much the latent vector says of histories: `active_units` and `mutual_information` (nats)."""
        stretches = scoring_stretches(data.histories.starts, self.network.params.window)
        if not len(stretches):
            return {}
        means, variances = [], []
        rng = np.random.default_rng(SEED)
        for _, part, inputs, targets in self.scored_batches(data, stretches, False):
            x, _ = with_latent(data, inputs, targets, np.zeros(len(part), np.int64), self.network.params.latent, rng)
            mean, log_variance = batched(self._posterior, x, len(part))
            means.append(mean)
            variances.append(np.exp(log_variance))
        mean, variance = np.concatenate(means), np.concatenate(variances)
        return {
            "active_units": float(active_units(mean)),
            "mutual_information": mutual_information(mean, variance, rng),
        }


def active_units(mean: Float32) -> int:
    """Units whose posterior mean, float32 [histories, latent], varies over histories (Burda et al., section 5.1).

    >>> active_units(np.array([[0.0, 1.0], [0.001, -1.0]], np.float32))
    1
    """
    return int((mean.var(axis=0) > ACTIVE).sum())


def mutual_information(mean: AnyArray, variance: AnyArray, rng: np.random.Generator) -> float:
    """Nats that z says of a history: the mean of log q(z | history) - log q(z), q(z) the mean over these histories
    (Hoffman & Johnson, 2016); at most log(histories). Each [histories, latent].

    >>> round(mutual_information(np.zeros((4, 1)), np.ones((4, 1)), np.random.default_rng(0)), 6)
    0.0
    """
    latent = mean + np.sqrt(variance) * rng.standard_normal(mean.shape)
    apart = (latent[:, None] - mean[None]) ** 2 / variance[None] + np.log(variance)[None]
    logs = -0.5 * apart.sum(axis=-1)
    return float((np.diag(logs) - (logsumexp(logs, axis=1) - np.log(len(mean)))).mean())
