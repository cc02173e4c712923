"""What the adversarial training computes, by hand and by both backends of Keras; its curves."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from models.synthesizers.gan import GAN
from models.synthesizers.neural.curves import plot_training
from testing.tiny_gan import ring_interactions, second_order_figures, tiny_gan, trained_gan

BY_HAND = {"loss": 36.0, "slope": 6.0, "gradient-norm": 72.0, "weight": 0.5}
"""Of f = w z^2 at w = 1, z = 3: f' = 2 w z = 6; its square 4 w^2 z^2 = 36; by w: 8 w z^2 = 72; Adam's first step: the
learning rate."""


@pytest.fixture(scope="module")
def gan() -> GAN:
    return trained_gan()


def test_the_gradient_of_an_input_gradient_is_right() -> None:
    assert second_order_figures() == pytest.approx(BY_HAND, rel=1e-4)


BY_JAX = """
import json, keras
from testing.tiny_gan import second_order_figures, trained_gan
assert keras.backend.backend() == "jax"
print(json.dumps({"second-order": second_order_figures(), "training": trained_gan().training}))
"""


@pytest.mark.skipif(find_spec("jax") is None, reason="JAX is not installed")
def test_jax_trains_as_tensorflow_does(gan: GAN) -> None:
    variables = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    command = [sys.executable, "-c", BY_JAX]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout)
    assert figures["second-order"] == pytest.approx(BY_HAND, rel=1e-4)
    for part, names in (
        ("autoencoder", ("loss", "held-out-loss")),
        ("adversarial", ("critic-loss", "generator-loss", "critic-gradient", "input-gradient")),
    ):
        for ours, theirs in zip(gan.training[part], figures["training"][part], strict=True):
            assert [theirs[name] for name in names] == pytest.approx([ours[name] for name in names], rel=0.02, abs=0.01)


def test_decoding_in_numpy_gives_the_probabilities_of_training(gan: GAN) -> None:
    """The autoencoder's own loss, computed from the decoder's probabilities."""
    from keras import ops

    from models.synthesizers.neural.autoencoder import SequenceAutoencoder
    from models.synthesizers.neural.latent_decoder import LatentDecoder

    rng = np.random.default_rng(0)
    known, events = (rng.integers(1, 13, shape).astype(np.int32) for shape in ((8, 2), (8, 3)))
    inputs = np.column_stack([known[:, -1], events[:, :-1]]).astype(np.int32)
    rows = {"known": known, "events": events, "inputs": inputs, "profiles": np.zeros((8, 0), np.int32)}
    rows |= {"categories": np.zeros(8, np.int32), "backward": np.ones(8, np.int32)}
    noise = np.zeros((8, 4), np.float32)
    popularity = np.full(len(gan.vocabulary), 1.0)
    sizes = {"embedding_size": 16, "latent_size": 4, "labels": 0, "categories": 0}
    autoencoder = SequenceAutoencoder.create(popularity, sizes, [], rng, log_q=None, latent_noise=1.0)
    weights = {name: gan.weights[name] for name in autoencoder.variables}
    autoencoder.set_arrays(weights)
    batch = {name: ops.convert_to_tensor(array) for name, array in {**rows, "noise": noise}.items()}
    expected = float(autoencoder.loss(batch)[0])
    latent = np.asarray(autoencoder.encode(ops.take(weights["items"], events, axis=0), events))
    decoder = LatentDecoder(weights, np.zeros(0, np.int32), 1.0)
    condition = decoder.condition(known, rows["profiles"], rows["categories"], rows["backward"])
    state, logs = decoder.start(latent, condition), []
    for place in range(3):
        state = decoder.read(state, latent, inputs[:, place])
        chances = decoder.probabilities(state, latent, condition)
        logs.append(np.log(chances[np.arange(8), events[:, place] - 1]))
    assert -np.mean(logs) == pytest.approx(expected, rel=1e-4)


def test_training_is_recorded_and_drawn(gan: GAN, tmp_path: Path) -> None:
    last = gan.training["adversarial"][-1]
    assert {"critic-loss", "generator-loss", "critic-gradient", "generator-gradient"} <= set(last)
    assert all(0 <= last[name] <= 1 for name in ("fidelity", "items", "item-coverage", "group-coverage"))
    for name in ("curves.png", "curves.svg"):
        plot_training(gan.training, tmp_path / name)
        assert (tmp_path / name).stat().st_size > 5_000


@pytest.mark.parametrize("kill_at", ["held-out-loss", "fidelity"])
def test_a_fit_that_was_killed_goes_on_where_it_was(gan: GAN, kill_at: str, tmp_path: Path) -> None:
    """After the first epoch of either part: the rest gives the same weights as a fit that was never killed."""

    def killed(share: float, figures: Mapping[str, float]) -> None:
        if kill_at in figures:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_gan(tmp_path).fit(ring_interactions(), killed)
    rows: list[dict[str, float]] = []
    resumed = tiny_gan(tmp_path)
    resumed.fit(ring_interactions(), lambda _, figures: rows.append(dict(figures)))
    assert len(rows) == (3 if kill_at == "held-out-loss" else 1)
    for part in ("autoencoder", "adversarial"):
        for ours, theirs in zip(gan.training[part], resumed.training[part], strict=True):
            assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-5)
    for name, weights in gan.weights.items():
        np.testing.assert_allclose(resumed.weights[name], weights, rtol=1e-3, atol=1e-5)


def test_a_checkpoint_of_other_parameters_is_not_read(tmp_path: Path) -> None:
    tiny_gan(tmp_path).fit(ring_interactions())
    rows: list[dict[str, float]] = []
    tiny_gan(tmp_path, seed=4).fit(ring_interactions(), lambda _, figures: rows.append(dict(figures)))
    assert len(rows) == 4
