"""Training of the sequence autoencoder: batches, epochs, and the loss of held-out users."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from keras import ops

from models.arrays import Float32, Int64
from models.synthesizers.neural.autoencoder import SequenceAutoencoder
from models.synthesizers.neural.gradients import Update
from models.synthesizers.neural.sequence_windows import SequenceWindows, WindowSource

ENCODED_AT_ONCE: Final = 1024
CLIP: Final = 1.0


class ReconstructionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Rates of the training. `negatives`: items drawn to compare with (0: all). `hidden`: the share of items that the
    decoder does not see, so that it needs the latent vector (Bowman et al., CoNLL 2016, section 3.2)."""

    batch_size: int
    learning_rate: float
    negatives: int
    hidden: float


class AutoencoderTraining:
    """Trains on the first group of `users`, and measures the loss of the second."""

    def __init__(
        self,
        autoencoder: SequenceAutoencoder,
        source: WindowSource,
        users: tuple[Int64, Int64],
        options: ReconstructionOptions,
        rng: np.random.Generator,
    ) -> None:
        self.autoencoder, self.source, self.users, self.options, self.rng = autoencoder, source, users, options, rng
        variables = list(autoencoder.variables.values())
        self.update = Update(autoencoder.loss, variables, [], options.learning_rate, clip=CLIP)
        self.prepare = BatchInputs(autoencoder, options, rng)
        self.held_out = [self.prepare(part, 0.0) for part in _batches(source.draw(users[1], rng), options.batch_size)]
        self.variables = [*variables, *self.update.optimizer.variables]

    def epoch(self, number: int) -> dict[str, float]:
        """Train one epoch; its figures: `epoch`, `loss` and `held-out-loss`, nats per event."""
        windows, options = self.source.draw(self.users[0], self.rng), self.options
        batches = _batches(windows, options.batch_size)
        losses = [self.update(self.prepare(part, options.hidden))["loss"] for part in batches]
        return {"epoch": number, "loss": float(np.mean(losses)), "held-out-loss": self.held_out_loss()}

    def held_out_loss(self) -> float:
        """Mean cross-entropy of the held-out users' events, nats."""
        return float(np.mean([float(self.autoencoder.loss(_tensors(batch))[0]) for batch in self.held_out]))


class BatchInputs:
    """What the loss of the autoencoder reads of a batch of windows."""

    def __init__(
        self, autoencoder: SequenceAutoencoder, options: ReconstructionOptions, rng: np.random.Generator
    ) -> None:
        self.latent_size, self.options, self.rng = autoencoder.latent_size, options, rng
        log_q = autoencoder.log_q
        self.cumulative = np.cumsum(np.exp(log_q[1:])) if log_q is not None else None

    def __call__(self, windows: SequenceWindows, hidden: float) -> dict[str, Any]:
        inputs = np.column_stack([windows.known[:, -1], windows.events[:, :-1]])
        inputs = np.where(self.rng.random(inputs.shape) < hidden, 0, inputs).astype(np.int32)
        noise = self.rng.normal(size=(len(windows), self.latent_size)).astype(np.float32)
        batch = {**windows.inputs(), "inputs": inputs, "noise": noise}
        if self.cumulative is not None:
            places = np.searchsorted(self.cumulative, self.rng.random(self.options.negatives) * self.cumulative[-1])
            batch["negatives"] = (np.minimum(places, len(self.cumulative) - 1) + 1).astype(np.int32)
        return batch


def encoded(autoencoder: SequenceAutoencoder, windows: SequenceWindows) -> tuple[Float32, Float32]:
    """float32 [windows, s] and [windows, d]: latent vectors without noise, and conditions."""
    latents, conditions = [], []
    for part in _batches(windows, ENCODED_AT_ONCE):
        batch = _tensors(part.inputs())
        vectors = ops.take(autoencoder.variables["items"], batch["events"], axis=0)
        latents.append(ops.convert_to_numpy(autoencoder.encode(vectors, batch["events"])))
        conditions.append(ops.convert_to_numpy(autoencoder.condition(batch)))
    size = len(windows)
    return np.concatenate(latents)[:size].copy(), np.concatenate(conditions)[:size].copy()


def _batches(windows: SequenceWindows, size: int) -> list[SequenceWindows]:
    """Batches of one size, the last one filled up with the first windows."""
    rows = np.arange(-(-len(windows) // size) * size) % len(windows)
    return [windows.take(rows[start : start + size]) for start in range(0, len(rows), size)]


def _tensors(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: ops.convert_to_tensor(array) for name, array in batch.items()}
