"""Adversarial training in the latent space of an autoencoder: a generator of latent vectors, and their critic.

The critic tells latent vectors of real sequences from generated ones, given what is known (a Wasserstein GAN with
gradient penalty: Gulrajani et al., NeurIPS 2017, algorithm 1). Both see vectors with the autoencoder's noise on them,
so that the two distributions overlap (Arjovsky & Bottou, ICLR 2017, section 3).
"""

from collections.abc import Mapping
from typing import Any, Final

import keras
import msgspec
import numpy as np
from keras import ops

from models.arrays import Float32
from models.synthesizers.neural.autoencoder import glorot, on_sphere
from models.synthesizers.neural.gradients import Update, input_gradient
from models.synthesizers.neural.latent_decoder import LAYERS, SLOPE, dense_layers

BETA_1, BETA_2 = 0.0, 0.9
"""Adam's decay rates, as Gulrajani et al. have them."""
DRIFT: Final = 1e-3
"""Weight of the critic's squared mean value, which keeps it near zero (Karras et al., ICLR 2018, appendix A.1)."""


class AdversaryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and rates of the adversarial training."""

    units: int
    steps: int
    critic_steps: int
    penalty: float
    adversarial_rate: float
    batch_size: int
    latent_noise: float


class Adversary:
    """A generator and its critic, trained on `latents` float32 [windows, s] with `conditions` float32 [windows, d]."""

    def __init__(
        self, latents: Float32, conditions: Float32, options: AdversaryOptions, rng: np.random.Generator
    ) -> None:
        self.latents, self.conditions, self.options, self.rng = latents, conditions, options, rng
        self.latent_size = latents.shape[1]
        inputs = self.latent_size + conditions.shape[1]
        self.generator = _dense("generator", rng, inputs, options.units, self.latent_size)
        self.critic = _dense("critic", rng, inputs, options.units, 1)
        ours, theirs = list(self.generator.values()), list(self.critic.values())
        rate = options.adversarial_rate
        self.update_generator = Update(self.generator_loss, ours, theirs, rate, BETA_1, BETA_2)
        self.update_critic = Update(self.critic_loss, theirs, ours, rate, BETA_1, BETA_2)
        optimizers = (self.update_generator.optimizer, self.update_critic.optimizer)
        self.variables = [*ours, *theirs, *(variable for optimizer in optimizers for variable in optimizer.variables)]

    def train(self) -> dict[str, float]:
        """`steps` updates of the generator, each after `critic_steps` of the critic; mean figures.

        `distance`: the critic's estimate of the Wasserstein distance. `critic-loss`, `generator-loss`,
        `critic-gradient`, `generator-gradient` (norms), `input-gradient` (the critic's, which the penalty draws to 1).
        """
        figures: dict[str, list[float]] = {}

        def record(name: str, step: Mapping[str, float]) -> None:
            named = {f"{name}-loss": step["loss"], f"{name}-gradient": step["gradient-norm"]}
            rest = {key: value for key, value in step.items() if key not in {"loss", "gradient-norm"}}
            for key, value in {**named, **rest}.items():
                figures.setdefault(key, []).append(value)

        for _ in range(self.options.steps):
            for _ in range(self.options.critic_steps):
                record("critic", self.update_critic(self._batch()))
            record("generator", self.update_generator(self._batch()))
        return {name: float(np.mean(values)) for name, values in figures.items()}

    def generate(self, batch: Mapping[str, Any]) -> Any:
        """float [batch, s]: generated latent vectors with noise on them."""
        x = ops.concatenate([batch["source"], batch["condition"]], axis=-1)
        clean = on_sphere(dense_layers("generator", _values(self.generator), x))
        return clean + self.options.latent_noise * batch["disturbance"]

    def judge(self, latent: Any, condition: Any) -> Any:
        """float [batch]: the critic's value of latent vectors, higher for real ones."""
        x = ops.concatenate([latent, condition], axis=-1)
        return dense_layers("critic", _values(self.critic), x)[:, 0]

    def generator_loss(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Minus the mean of the critic's value."""
        return -ops.mean(self.judge(self.generate(batch), batch["condition"])), {}

    def critic_loss(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The difference of mean values, generated less real, and the gradient penalty between them."""
        condition, real, fake = batch["condition"], batch["real"], self.generate(batch)
        between = real + batch["share"] * (fake - real)
        slope = input_gradient(lambda latent: self.judge(latent, condition), between)
        length = ops.sqrt(ops.sum(ops.square(slope), axis=-1) + 1e-12)
        values = self.judge(real, condition)
        distance = ops.mean(values) - ops.mean(self.judge(fake, condition))
        penalty = self.options.penalty * ops.mean(ops.square(length - 1.0)) + DRIFT * ops.square(ops.mean(values))
        return penalty - distance, {"distance": distance, "input-gradient": ops.mean(length)}

    def arrays(self) -> dict[str, Float32]:
        """The weights of generator and critic by name."""
        weights = {**self.generator, **self.critic}
        return {name: np.array(ops.convert_to_numpy(each.value)) for name, each in weights.items()}

    def _batch(self) -> dict[str, Float32]:
        size, rng = self.options.batch_size, self.rng
        rows = rng.integers(len(self.latents), size=size)
        source, disturbance, noise = rng.normal(size=(3, size, self.latent_size)).astype(np.float32)
        real = self.latents[rows] + np.float32(self.options.latent_noise) * noise
        share = rng.random((size, 1), np.float32)
        condition = self.conditions[rows]
        return {"real": real, "condition": condition, "source": source, "disturbance": disturbance, "share": share}


def critic_features(weights: Mapping[str, Any], latent: Any, condition: Any) -> Any:
    """float [batch, units]: the critic's last hidden layer, for feature matching (Salimans et al., NeurIPS 2016)."""
    x = ops.concatenate([latent, condition], axis=-1)
    for layer in range(LAYERS - 1):
        x = ops.matmul(x, weights[f"critic-{layer}"]) + weights[f"critic-{layer}-bias"]
        x = ops.leaky_relu(x, SLOPE)
    return x


def _dense(name: str, rng: np.random.Generator, inputs: int, units: int, outputs: int) -> dict[str, keras.Variable]:
    sizes = [inputs, *[units] * (LAYERS - 1), outputs]
    variables: dict[str, keras.Variable] = {}
    for layer in range(LAYERS):
        weights = glorot(rng, sizes[layer], sizes[layer + 1]).astype(np.float32)
        variables[f"{name}-{layer}"] = keras.Variable(weights)
        variables[f"{name}-{layer}-bias"] = keras.Variable(np.zeros(sizes[layer + 1], np.float32))
    return variables


def _values(variables: Mapping[str, keras.Variable]) -> dict[str, Any]:
    return {name: ops.convert_to_tensor(variable) for name, variable in variables.items()}
