"""Feature matching: a generator whose histories look to a GAN's critic, on average, as real ones do.

The loss is the squared distance between the mean features of real and of generated histories (Salimans et al., NeurIPS
2016, section 3.1, equation 1); features are the critic's last hidden layer. Each generated item is drawn given the real
ones before it; gradients pass the draw by the straight-through estimator (Bengio et al., 2013).
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from keras import ops

from models.arrays import AnyArray, Float32
from models.synthesizers.neural.adversary import critic_features
from models.synthesizers.neural.autoencoder import SequenceAutoencoder

MATCHED_ITEMS: Final = "matched_items"
PREFIX: Final = "critic_"
ENCODER: Final = ("encoder-input", "encoder-state", "encoder-bias", "latent", "direction")
CRITIC: Final = ("critic-0", "critic-0-bias", "critic-1", "critic-1-bias")
ROWS: Final = 64
"""Histories of a batch whose features are compared: the draws need shares of the whole catalogue."""


class MatchingInputs:
    """What `matching_loss` reads besides a batch: weights of encoder and critic, and random draws.

    `weights`: of the autoencoder and the critic, by name. `length`: newest events that the encoder reads. `weight`: of
    the distance in the loss.
    """

    def __init__(self, weights: Mapping[str, Float32], length: int, weight: float, seed: int) -> None:
        self.critic = {PREFIX + name.replace("-", "_"): weights[name] for name in (*ENCODER, *CRITIC)}
        self.length, self.weight, self.seed = length, weight, seed

    def __call__(self, x: Mapping[str, AnyArray], y: AnyArray, number: int) -> dict[str, AnyArray]:
        """The batch's inputs with those of `matching_loss`; `number` of the batch decides on its draws."""
        numbers = np.zeros(x["items"].shape, np.int32)
        real = y > 0
        numbers.ravel()[x["places"][real]] = y[real]
        numbers = numbers[:ROWS, -self.length :]
        draws = np.random.default_rng([self.seed, number]).random(numbers.shape, np.float32)
        weight = np.array(self.weight, np.float32)
        return {**x, **self.critic, MATCHED_ITEMS: numbers, "matching_draws": draws, "matching_weight": weight}


def matching_loss(network: Any, target: Any, x: Mapping[str, Any]) -> Any:
    """The weighted distance of features, a mean over units; `target` float [batch, length, size] of the network."""
    numbers = x[MATCHED_ITEMS]
    rows, length = numbers.shape
    vectors = ops.stop_gradient(ops.take(network.items.embeddings, numbers, axis=0))
    drawn = drawn_vectors(network, target[:rows, -length:], x["matching_draws"])
    real = ops.cast(ops.not_equal(numbers, 0), "float32")
    ours, theirs = (mean_features(events * real[:, :, None], real, x) for events in (drawn, vectors))
    return x["matching_weight"] * ops.mean(ops.square(ours - ops.stop_gradient(theirs)))


def drawn_vectors(network: Any, target: Any, draws: Any) -> Any:
    """float [rows, length, size]: vectors of items drawn by inversion of `draws`, uniform; gradients are those of the
    expected vectors, which the shares alone pass on."""
    every = ops.arange(1, network.facts.size + 1, dtype="int32")
    logits = ops.matmul(target, ops.transpose(network.vectors(every))) + network.biases(every)
    shares = ops.softmax(logits, axis=-1)
    places = ops.sum(ops.cast(ops.cumsum(shares, axis=-1) < draws[:, :, None], "int32"), axis=-1)
    table = ops.stop_gradient(ops.convert_to_tensor(network.items.embeddings)[1 : network.facts.size + 1])
    chosen = ops.take(table, ops.minimum(places, network.facts.size - 1), axis=0)
    expected = ops.matmul(shares, table)
    return expected + ops.stop_gradient(chosen - expected)


def mean_features(vectors: Any, real: Any, x: Mapping[str, Any]) -> Any:
    """float [units]: the critic's mean features of histories, float [rows, length, size], of which nothing is known but
    the direction; rows without an event do not count."""
    weights = {name: x[PREFIX + name.replace("-", "_")] for name in (*ENCODER, *CRITIC)}
    latent = SequenceAutoencoder(weights, (), None, 0.0).encode(vectors, real)
    condition = ops.take(weights["direction"], x["direction"][: vectors.shape[0]], axis=0)
    some = ops.max(real, axis=1)[:, None]
    return ops.sum(critic_features(weights, latent, condition) * some, axis=0) / ops.maximum(ops.sum(some), 1.0)
