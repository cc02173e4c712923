"""Joint training of a mixture's members: one table of item vectors, and features of the critic that are matched."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow

from models.data.interactions import Interactions
from models.synthesizers import registry
from models.synthesizers.autoregressive import Autoregressive
from models.synthesizers.base import Synthesizer
from models.synthesizers.conditions import ANYTHING, Conditions, SynthesisError
from models.synthesizers.gan import GAN
from models.synthesizers.mixture import Mixture
from models.synthesizers.neural.curves import plot_joint_training
from models.synthesizers.neural.feature_matching import MatchingInputs, drawn_vectors, matching_loss
from models.synthesizers.neural.gradients import Update
from testing.interactions import history, ring
from testing.synthesizer_contract import assert_same, sample, started

NETWORK: dict[str, Any] = {"embedding_size": 8, "window": 6, "batch_size": 16, "learning_rate": 0.02}
MEMBERS: dict[str, dict[str, Any]] = {
    "autoregressive": NETWORK,
    "vae": {**NETWORK, "latent": 2, "cycle": 10, "draws": 4},
    "gan": {
        "embedding_size": 8,
        "latent_size": 3,
        "length": 3,
        "known": 1,
        "batch_size": 32,
        "units": 8,
        "rounds": 1,
        "steps": 2,
        "critic_steps": 1,
        "learning_rate": 0.02,
    },
}
FAVORITE = 4
"""Number of the item that is drawn nearly always."""
RING = Interactions.from_frame(started(ring(24, 5)))


def joint(**params: Any) -> Mixture:
    given = {"members": list(MEMBERS), "member_params": MEMBERS, "joint": True, "rounds": 2, **params}
    mixture = registry.create("mixture", given)
    assert isinstance(mixture, Mixture)
    return mixture


@contextmanager
def uncompiled() -> Iterator[None]:
    """TensorFlow runs without compiling: for so few steps that takes half of the time."""
    tensorflow.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tensorflow.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def fitted() -> Mixture:
    mixture = joint()
    with uncompiled():
        mixture.fit(RING)
    return mixture


def table(member: Synthesizer) -> Any:
    """The items' vectors as the member stores them."""
    arrays = member.arrays()
    return arrays["items"][1:] if member.name == "gan" else np.array(member.network.items.embeddings)[1:-1]  # type: ignore[attr-defined]  # of networks


def test_all_members_end_with_one_table_of_item_vectors(fitted: Mixture) -> None:
    first, second, third = (table(member) for member in fitted.members)
    assert first.shape == (len(RING.vocabulary), 8)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)


def test_the_same_seed_trains_the_same_members() -> None:
    twins = [joint(members=["autoregressive", "gan"], rounds=1) for _ in range(2)]
    with uncompiled():
        for mixture in twins:
            mixture.fit(RING)
    assert twins[1].joint_training[0] == pytest.approx(twins[0].joint_training[0], rel=1e-4, abs=1e-5)
    conditions = [ANYTHING, Conditions(first=history("i1", "i2"))]
    np.testing.assert_allclose(twins[1].expected(conditions), twins[0].expected(conditions), atol=1e-4)


def test_save_and_load_keep_samples_and_curves(fitted: Mixture, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    arrays = {path.stem: np.load(path, allow_pickle=False) for path in tmp_path.glob("*.npy")}
    loaded = registry.load("mixture", fitted.describe(), RING.vocabulary, arrays)
    assert isinstance(loaded, Mixture)
    assert loaded.joint_training == fitted.joint_training
    conditions = [ANYTHING, Conditions(first=history("i3"))]
    assert_same(sample(fitted, conditions, 4), sample(loaded, conditions, 4))


def test_rounds_are_recorded_and_drawn(fitted: Mixture, tmp_path: Path) -> None:
    row = fitted.joint_training[-1]
    names = ("autoregressive", "vae", "gan")
    assert row["log-likelihood"] == pytest.approx(np.mean([row[f"{name}-log-likelihood"] for name in names]))
    assert row["autoregressive-distance"] > 0
    plot_joint_training(fitted.joint_training, tmp_path / "joint.svg")
    assert (tmp_path / "joint.svg").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"members": ["markov", "gan"]}, r"joint training takes gan with autoregressive, vae or both, not markov, gan"),
        ({"members": ["autoregressive", "vae"]}, r"joint training takes gan with"),
        ({"members": ["vae", "vae", "gan"]}, r"takes each member once"),
        ({"member_params": {"gan": {"embedding_size": 16}}}, r"embedding_size differs \(.*gan 16\)"),
    ],
)
def test_members_that_cannot_train_together_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(SynthesisError, match=message):
        joint(**params)


def test_matching_features_brings_them_nearer() -> None:
    """Steps down the distance alone, from a network that draws one item nearly always."""
    gan = GAN(GAN.Params(**MEMBERS["gan"]))
    adversary = gan.new_adversary(training := gan.prepare(RING))
    critic = {**training.reconstruction.autoencoder.arrays(), **adversary.arrays()}
    network, inputs = unfitted_network()
    network.bias.assign(np.array(network.bias) + 5.0 * (np.arange(network.bias.shape[0]) == FAVORITE))
    x = MatchingInputs(critic, 3, 1.0, 0)(*inputs, 0)
    update = Update(
        lambda batch: (matching_loss(network, network(batch)[0], batch), {}),
        network.trainable_variables,
        network.non_trainable_variables,
        learning_rate=0.05,
    )
    rng = np.random.default_rng(0)
    losses = [
        update({**x, "matching_draws": rng.random(x["matching_draws"].shape, np.float32)})["loss"] for _ in range(60)
    ]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])


def test_a_draw_is_the_vector_of_an_item() -> None:
    """By inversion of the shares: a network that always draws one item has its vector, whatever the draw."""
    network, _ = unfitted_network()
    network.bias.assign(np.array(network.bias) + 50.0 * (np.arange(network.bias.shape[0]) == FAVORITE))
    draws = np.array([[0.01, 0.5, 0.99]], np.float32)
    drawn = drawn_vectors(network, np.zeros((1, 3, 8), np.float32), draws)
    vector = np.array(network.items.embeddings)[FAVORITE]
    np.testing.assert_allclose(np.array(drawn)[0], np.repeat(vector[None], 3, axis=0), atol=1e-5)


def unfitted_network() -> tuple[Any, tuple[dict[str, Any], Any]]:
    """A network of events, and its first batch."""
    member = registry.create("autoregressive", {**NETWORK, "dropout": 0.0})
    assert isinstance(member, Autoregressive)
    fit = member.prepare(RING)
    return fit.network, fit.batches[0]
