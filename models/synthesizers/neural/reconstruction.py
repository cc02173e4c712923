"""Training of the sequence autoencoder: batches, the loss of held-out users, and when to stop."""

from collections.abc import Callable, Mapping
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

    epochs: int
    batch_size: int
    learning_rate: float
    negatives: int
    hidden: float
    patience: int


def train_autoencoder(
    autoencoder: SequenceAutoencoder,
    source: WindowSource,
    users: tuple[Int64, Int64],
    options: ReconstructionOptions,
    rng: np.random.Generator,
    after_epoch: Callable[[dict[str, float]], bool],
) -> None:
    """Train on the first group of `users` until the loss of the second no longer falls; the best weights stay.

    `after_epoch` gets the figures of each epoch, and says whether to stop.
    """
    variables = list(autoencoder.variables.values())
    update = Update(autoencoder.loss, variables, [], options.learning_rate, clip=CLIP)
    prepare = BatchInputs(autoencoder, options, rng)
    held_out = [prepare(part, 0.0) for part in _batches(source.draw(users[1], rng), options.batch_size)]
    best, waited, weights = np.inf, 0, autoencoder.arrays()
    for epoch in range(options.epochs):
        windows = source.draw(users[0], rng)
        losses = [update(prepare(part, options.hidden))["loss"] for part in _batches(windows, options.batch_size)]
        validation = float(np.mean([float(autoencoder.loss(_tensors(batch))[0]) for batch in held_out]))
        if validation < best:
            best, waited, weights = validation, 0, autoencoder.arrays()
        else:
            waited += 1
        figures = {"epoch": epoch, "loss": float(np.mean(losses)), "held-out-loss": validation}
        if after_epoch(figures) or waited >= options.patience:
            break
    autoencoder.set_arrays(weights)


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
