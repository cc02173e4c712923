"""A network of events with a latent vector behind the whole history (a sequence VAE)."""

from typing import Any, Final

import numpy as np
from keras import layers, ops

from models.arrays import AnyArray
from models.synthesizers.neural.cells import stack_of
from models.synthesizers.neural.network import NetworkFacts, SequenceNetwork
from models.synthesizers.neural.params import LatentParams

LOWEST: Final = -6.0
"""Bounds of the logarithm of a variance, on both sides of zero."""


class LatentNetwork(SequenceNetwork):
    """A `SequenceNetwork` whose conditions hold a latent vector z too.

    Besides its inputs: `targets` int32 [batch, length], numbers of the items of the whole stretch, which the posterior
    q(z | history, conditions) reads; `known` float32 [batch, length], 1 for the events that come with the conditions,
    which the prior p(z | conditions, known events) reads; `noise` float32 [batch, latent], standard normal.

    The loss is the negative evidence lower bound (Kingma & Welling, ICLR 2014), with free bits (Kingma et al., NeurIPS
    2016, equation 15), an annealed weight of the divergence in cycles (Fu et al., NAACL 2019), and events hidden from
    the decoder (Bowman et al., CoNLL 2016, section 3.1), so that z is needed.
    """

    params: LatentParams

    def __init__(self, facts: NetworkFacts, params: LatentParams, log_q: Any = None, **kwargs: Any) -> None:
        super().__init__(facts, params, log_q, **kwargs)
        size, latent = params.embedding_size, params.latent
        self.reading = stack_of(params, "reading")
        self.posterior_layers = [layers.Dense(size, activation="silu"), layers.Dense(2 * latent)]
        self.prior_layers = [
            layers.Dense(size, activation="silu"),
            layers.Dense(2 * latent, kernel_initializer="zeros"),
        ]
        self.from_latent = layers.Dense(size)
        self.hide = layers.Dropout(params.event_dropout, noise_shape=(None, None, 1))
        self.divergence_weight = self.add_weight(shape=(), initializer="ones", trainable=False, name="weight")

    def posterior(self, inputs: Any, condition: Any, training: bool = False) -> tuple[Any, Any]:
        """Mean and log-variance, float [batch, latent] each, from every event of the stretch."""
        real = ops.cast(ops.not_equal(inputs["targets"], 0), "float32")
        x = self.drop(self.vectors(inputs["targets"]), training=training) * real[:, :, None]
        hidden, _ = self.reading(x, real, training=training)
        mean = _mean(self.vectors(inputs["targets"]), real)
        return self._gaussian(self.posterior_layers, ops.concatenate([hidden[:, -1], mean, condition], axis=-1))

    def prior(self, inputs: Any, condition: Any, known: Any) -> tuple[Any, Any]:
        """Mean and log-variance, float [batch, latent] each, from the known events (`known`: 1 where one stands)."""
        mean = _mean(self.vectors(inputs["items"]), known)
        count = ops.log(1.0 + ops.sum(known, axis=1, keepdims=True))
        return self._gaussian(self.prior_layers, ops.concatenate([mean, condition, count], axis=-1))

    def _gaussian(self, dense: Any, x: Any) -> tuple[Any, Any]:
        mean, log_variance = ops.split(dense[1](dense[0](x)), 2, axis=-1)
        return mean, ops.clip(log_variance, LOWEST, -LOWEST)

    def call(self, inputs: Any, training: bool = False) -> tuple[Any, ...]:
        """As for `SequenceNetwork`, with z from the posterior; also the divergence float [batch, latent], and
        log p(z) - log q(z) float [batch]."""
        condition = self.conditioned(inputs)
        mean, log_variance = self.posterior(inputs, condition, training)
        prior_mean, prior_log_variance = self.prior(inputs, condition, inputs["known"])
        latent = mean + ops.exp(0.5 * log_variance) * inputs["noise"]
        ratio = ops.exp(log_variance - prior_log_variance)
        apart = ops.square(mean - prior_mean) * ops.exp(-prior_log_variance)
        divergence = 0.5 * (prior_log_variance - log_variance + ratio + apart - 1.0)
        from_prior = ops.square(latent - prior_mean) * ops.exp(-prior_log_variance) + prior_log_variance
        weight = 0.5 * ops.sum(ops.square(inputs["noise"]) + log_variance - from_prior, axis=-1)
        condition = (condition + self.from_latent(latent))[:, None]
        numbers = inputs["items"]
        real = ops.cast(ops.not_equal(numbers, 0), "float32")
        x = self.drop(self.events(numbers, inputs["kinds"], inputs["gaps"], 0.0), training=training)
        x = self.hide(x, training=training) + condition
        hidden, _ = self.stack(x * real[:, :, None], real, training=training)
        moment = (inputs["next_gaps"], inputs["hours"], inputs["weekdays"])
        return self.target(hidden, condition, moment, training), hidden + condition, divergence, weight

    def encode(self, inputs: Any) -> tuple[Any, Any, Any]:
        """As for `SequenceNetwork`, with z from the prior given all events, at `noise`."""
        numbers, condition = inputs["items"], self.conditioned(inputs)
        real = ops.cast(ops.not_equal(numbers, 0), "float32")
        known = real * ops.cast(ops.less(numbers, self.facts.size + 1), "float32")
        mean, log_variance = self.prior(inputs, condition, known)
        condition = condition + self.from_latent(mean + ops.exp(0.5 * log_variance) * inputs["noise"])
        x = self.events(numbers, inputs["kinds"], inputs["gaps"], condition[:, None]) * real[:, :, None]
        hidden, state = self.stack(x, real)
        return hidden[:, -1], state, condition

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,  # noqa: ARG002 - Keras passes it by name
        training: bool = True,  # noqa: ARG002 - Keras passes it by name
    ) -> Any:
        """The negative bound per event; see `SequenceNetwork.compute_loss`."""
        target, hidden, divergence, _ = y_pred
        losses = super().compute_loss(x=x, y=y, y_pred=(target, hidden))
        rows = ops.cast(ops.any(ops.not_equal(x["targets"], 0), axis=1), "float32")
        by_unit = ops.sum(divergence * rows[:, None], axis=0) / ops.maximum(ops.sum(rows), 1.0)
        freed = ops.sum(ops.maximum(by_unit, self.params.free_bits)) * ops.sum(rows)
        return losses + self.divergence_weight * freed / ops.maximum(ops.sum(ops.cast(y > 0, "float32")), 1.0)

    def before_step(self, step: int) -> None:
        """Set the divergence's weight: it rises over half of a cycle and stays for the other half."""
        share = (step % self.params.cycle) / self.params.cycle if step < self.params.cycles * self.params.cycle else 1.0
        self.divergence_weight.assign(min(1.0, 2.0 * share))

    def all_inputs(self, inputs: dict[str, AnyArray]) -> dict[str, AnyArray]:
        """Inputs with `targets`, `known` and `noise` of nothing where these are missing."""
        rows, width = inputs["items"].shape
        empty = {"targets": np.zeros((rows, width), np.int32), "known": np.zeros((rows, width), np.float32)}
        return {**empty, "noise": np.zeros((rows, self.params.latent), np.float32), **inputs}

    def encoded_inputs(self, inputs: dict[str, AnyArray]) -> dict[str, AnyArray]:
        """Those that `encode` reads."""
        return {**super().encoded_inputs(inputs), "noise": np.zeros((1, self.params.latent), np.float32)}


def _mean(vectors: Any, real: Any) -> Any:
    """float [batch, size]: the mean of float [batch, length, size] where `real` [batch, length] is 1."""
    total = ops.sum(vectors * real[:, :, None], axis=1)
    return total / ops.maximum(ops.sum(real, axis=1, keepdims=True), 1.0)
