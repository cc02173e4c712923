"""A GAN small enough for a test, and figures by which two backends of Keras are compared."""

from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from keras import ops

from models.data.interactions import Interactions
from models.synthesizers.base import SynthesizerContext
from models.synthesizers.gan import GAN
from models.synthesizers.neural.gradients import Update, input_gradient
from testing.interactions import ring

SIZES: Final[dict[str, Any]] = {
    "embedding_size": 16,
    "latent_size": 4,
    "length": 3,
    "known": 2,
    "batch_size": 64,
    "units": 16,
    "epochs": 2,
    "rounds": 2,
    "steps": 3,
    "critic_steps": 2,
    "learning_rate": 1e-2,
}


def ring_interactions() -> Interactions:
    """What the tiny GAN is trained on."""
    return Interactions.from_frame(ring(30, 8))


def tiny_gan(checkpoint: Path | None = None, seed: int = 3) -> GAN:
    """One that is not fitted."""
    return GAN(GAN.Params(**SIZES), SynthesizerContext(seed=seed, checkpoint=checkpoint))


def trained_gan() -> GAN:
    """Trained on the ring, for a few steps."""
    gan = tiny_gan()
    gan.fit(ring_interactions())
    return gan


def second_order_figures() -> dict[str, float]:
    """Figures of one update down the squared input gradient of w * z ** 2, from w = 1 at z = 3, and w afterwards."""
    weight = keras.Variable(np.ones(1, np.float32))

    def loss(batch: Any) -> tuple[Any, dict[str, Any]]:
        slope = input_gradient(lambda z: ops.convert_to_tensor(weight) * ops.square(z), batch["z"])
        return ops.sum(ops.square(slope)), {"slope": ops.sum(slope)}

    figures = Update(loss, [weight], [], learning_rate=0.5)({"z": np.full((1, 1), 3.0, np.float32)})
    return {**figures, "weight": float(ops.convert_to_numpy(weight.value)[0])}
