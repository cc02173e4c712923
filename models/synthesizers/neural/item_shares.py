"""A dense generator of users' shares of items against a linear discriminator: the tabular recipe of `article_gan`."""

import time
from collections.abc import Mapping
from typing import Any, Final

import keras
import numpy as np
from keras import ops
from scipy import sparse

from models.arrays import Float32
from models.synthesizers.base import Progress
from models.synthesizers.neural.autoencoder import glorot
from models.synthesizers.neural.gradients import Update
from models.synthesizers.neural.latent_decoder import SLOPE

REPORTED: Final = 100
"""Steps between two records of the losses."""


def train_dense_generator(
    shares: sparse.csr_matrix, params: Any, seed: int, seconds: float | None, progress: Progress
) -> tuple[dict[str, Float32], list[dict[str, float]]]:
    """Weights of the generator by name, and losses and gradient norms. `shares` float32 [users, items]: rows sum to
    one."""
    rng, items, begin = np.random.default_rng(seed), shares.shape[1], time.monotonic()
    first, second = glorot(rng, params.noise_size, params.units), glorot(rng, params.units, items)
    arrays = {"hidden": first, "hidden-bias": np.zeros(params.units), "items": second, "items-bias": np.zeros(items)}
    generator = {name: keras.Variable(array.astype(np.float32)) for name, array in arrays.items()}
    linear = [keras.Variable(np.zeros(shape, np.float32)) for shape in ((items, 1), (1,))]

    def generate(noise: Any) -> Any:
        w = {name: ops.convert_to_tensor(variable) for name, variable in generator.items()}
        hidden = ops.leaky_relu(ops.matmul(noise, w["hidden"]) + w["hidden-bias"], SLOPE)
        return ops.softmax(ops.matmul(hidden, w["items"]) + w["items-bias"])

    def judge(users: Any) -> Any:
        return ops.matmul(users, ops.convert_to_tensor(linear[0])) + ops.convert_to_tensor(linear[1])

    def discriminator_loss(batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        fake = judge(generate(batch["noise"]))
        return ops.mean(ops.softplus(-judge(batch["real"]))) + ops.mean(ops.softplus(fake)), {}

    def generator_loss(batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        return ops.mean(ops.softplus(-judge(generate(batch["noise"])))), {}

    ours = list(generator.values())
    update_discriminator = Update(discriminator_loss, linear, ours, params.learning_rate, beta_1=0.5)
    update_generator = Update(generator_loss, ours, linear, params.learning_rate, beta_1=0.5)
    training: list[dict[str, float]] = []
    for step in range(params.steps):
        rows = rng.integers(shares.shape[0], size=params.batch_size)
        noise = rng.normal(size=(params.batch_size, params.noise_size)).astype(np.float32)
        theirs = update_discriminator({"real": np.asarray(shares[rows].todense(), np.float32), "noise": noise})
        mine = update_generator({"noise": noise})
        if (step + 1) % REPORTED == 0 or step == params.steps - 1:
            training.append(
                {
                    "step": step + 1,
                    "discriminator-loss": theirs["loss"],
                    "generator-loss": mine["loss"],
                    "discriminator-gradient": theirs["gradient-norm"],
                    "generator-gradient": mine["gradient-norm"],
                }
            )
            progress((step + 1) / params.steps, training[-1])
            if seconds is not None and time.monotonic() - begin > seconds:
                break
    return {name: np.array(ops.convert_to_numpy(each.value)) for name, each in generator.items()}, training
