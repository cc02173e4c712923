"""The trained decoder and generator in NumPy: they draw items without TensorFlow, in batches of one size.

The same formulas as in `autoencoder` and `adversary`.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from scipy.special import expit

from models.arrays import Float32, Int32

SLOPE: Final = 0.2
"""Of leaky rectified units below zero."""
LAYERS: Final = 3
"""Dense layers of a generator and of a critic."""


class LatentDecoder:
    """Weights by name, float32, and what they compute; d: embedding size, s: latent size."""

    def __init__(self, weights: Mapping[str, Float32], offsets: Int32, latent_noise: float) -> None:
        self.weights, self.offsets, self.latent_noise = weights, offsets, latent_noise
        self.latent_size = weights["latent"].shape[1]

    def condition(self, known: Int32, profiles: Int32, categories: Int32, backward: Int32) -> Float32:
        """float32 [rows, d]: what is known; as `SequenceAutoencoder.condition`."""
        w = self.weights
        state = np.zeros((len(known), w["latent"].shape[0]), np.float32)
        for place in range(known.shape[1]):
            numbers = known[:, place]
            after = self.step("reader", w["items"][numbers], state)
            state = np.where((numbers > 0)[:, None], after, state)
        out = state + w["direction"][backward] + w["category"][categories] * (categories > 0)[:, None]
        if len(self.offsets):
            out = out + (w["profile"][profiles + self.offsets] * (profiles > 0)[..., None]).sum(axis=1)
        return np.asarray(out, np.float32)

    def latent(self, condition: Float32, noise: Float32) -> Float32:
        """float32 [rows, s]: generated latent vectors; `noise` float32 [rows, 2 s] feeds the generator and disturbs."""
        source, disturbance = noise[:, : self.latent_size], noise[:, self.latent_size :]
        raw = dense_layers("generator", self.weights, np.concatenate([source, condition], axis=1))
        length = np.sqrt((raw**2).sum(axis=1, keepdims=True) + 1e-12)
        latent: Float32 = raw / length * np.float32(self.latent_size**0.5) + self.latent_noise * disturbance
        return latent.astype(np.float32)

    def start(self, latent: Float32, condition: Float32) -> Float32:
        """float32 [rows, d]: the decoder's state before its first event."""
        state: Float32 = np.tanh(np.concatenate([latent, condition], axis=1) @ self.weights["start"])
        return state

    def read(self, state: Float32, latent: Float32, numbers: Int32) -> Float32:
        """float32 [rows, d]: the state after items by number (index + 1; 0: none)."""
        vectors = self.weights["items"][numbers] * (numbers > 0)[:, None]
        return self.step("decoder", np.concatenate([vectors, latent], axis=1).astype(np.float32), state)

    def probabilities(self, state: Float32, latent: Float32, condition: Float32) -> Float32:
        """float32 [rows, items]: of the next item."""
        w = self.weights
        vectors = state @ w["output"] + np.concatenate([latent, condition], axis=1) @ w["skip"]
        logits = vectors @ w["items"][1:].T + w["bias"][1:]
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        out: Float32 = shares / shares.sum(axis=1, keepdims=True)
        return out

    def step(self, name: str, inputs: Float32, state: Float32) -> Float32:
        """float32 [rows, d]: the state of a gated recurrent unit after one more input."""
        w, size = self.weights, state.shape[1]
        x, h = inputs @ w[f"{name}-input"] + w[f"{name}-bias"], state @ w[f"{name}-state"]
        gates = expit(x[:, : 2 * size] + h[:, : 2 * size])
        new = np.tanh(x[:, 2 * size :] + gates[:, size:] * h[:, 2 * size :])
        after: Float32 = gates[:, :size] * state + (1 - gates[:, :size]) * new
        return after


def dense_layers(name: str, weights: Mapping[str, Any], x: Any) -> Any:
    """float [rows, outputs]: dense layers with leaky rectified units between them; of arrays or of tensors."""
    for layer in range(LAYERS):
        x = x @ weights[f"{name}-{layer}"] + weights[f"{name}-{layer}-bias"]
        if layer < LAYERS - 1:
            x = SLOPE * x + (1 - SLOPE) * (abs(x) + x) / 2
    return x
