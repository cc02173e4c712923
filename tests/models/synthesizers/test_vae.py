"""The sequence VAE: its latent vector is used, measured as literature does, and exported."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.data.interactions import Interactions
from models.synthesizers import registry
from models.synthesizers.conditions import ANYTHING, Conditions
from models.synthesizers.neural.latent_runner import active_units, mutual_information
from models.synthesizers.vae import VAE
from testing.interactions import clubs
from testing.synthesizer_contract import assert_same, known, sample, started

TINY: dict[str, Any] = {
    "embedding_size": 16,
    "window": 6,
    "batch_size": 8,
    "learning_rate": 0.02,
    "latent": 4,
    "cycle": 40,
    "cycles": 1,
    "draws": 8,
    "epochs": 20,
    "patience": 20,
}


@pytest.fixture(scope="module")
def fitted() -> VAE:
    synthesizer = registry.create("vae", TINY)
    synthesizer.fit(Interactions.from_frame(started(clubs())))
    assert isinstance(synthesizer, VAE)
    return synthesizer


def test_the_latent_vector_does_not_collapse(fitted: VAE) -> None:
    assert fitted.figures["active_units"] > 0
    assert fitted.figures["mutual_information"] > 0.1  # nats, of ln 2 for the club alone


def test_samples_depend_on_the_latent_vector(fitted: VAE) -> None:
    """Rows that differ in nothing but z have different first items; with one z the row is the same again."""
    rows = [ANYTHING] * 8
    state = fitted.begin(fitted.before_drawing(rows, None, backward=False))
    shares = fitted.item_probabilities(state, fitted.before_drawing(rows, None, backward=False))
    apart = 0.5 * np.abs(shares[:, None] - shares[None]).sum(axis=-1)
    assert apart.max() > 0.1
    again = fitted.begin(fitted.before_drawing(rows, None, backward=False))
    np.testing.assert_array_equal(state.position.condition, again.position.condition)


def test_the_exported_graphs_give_what_keras_gives(fitted: VAE, tmp_path: Path) -> None:
    fitted.write_onnx(tmp_path)
    exported = VAE.load_onnx(tmp_path)
    conditions = [ANYTHING, Conditions(first=known("i1", "i4")), Conditions(later=known("i8"))]
    np.testing.assert_allclose(fitted.expected(conditions), exported.expected(conditions), atol=1e-5)
    assert_same(sample(fitted, conditions, 2), sample(exported, conditions, 2))


def test_active_units_and_mutual_information_of_known_posteriors() -> None:
    """Four histories with posteriors far apart say ln 4 nats; posteriors that are all the prior say nothing."""
    rng = np.random.default_rng(0)
    apart = np.array([[0.0], [100.0], [200.0], [300.0]], np.float32)
    assert active_units(np.hstack([apart, np.zeros((4, 1), np.float32)])) == 1
    np.testing.assert_allclose(mutual_information(apart, np.ones((4, 1)), rng), np.log(4), atol=1e-6)
    np.testing.assert_allclose(mutual_information(np.zeros((4, 1)), np.ones((4, 1)), rng), 0.0, atol=1e-9)
