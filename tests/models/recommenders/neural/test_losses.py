"""Losses against sums written out, and the adversary against finite differences."""

import numpy as np
import pytest
from keras import ops

from models.recommenders.neural import losses

RNG = np.random.default_rng(0)
HIDDEN = RNG.standard_normal((5, 4)).astype(np.float32)
VECTORS = RNG.standard_normal((7, 4)).astype(np.float32)
COLUMN = np.array([0, 3, 6, 3, 1], np.int32)


def shares(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def test_softmax_is_the_log_of_the_targets_share() -> None:
    logits = HIDDEN @ VECTORS.T
    plain = np.asarray(losses.softmax_loss(logits, COLUMN))
    np.testing.assert_allclose(plain, -np.log(shares(logits)[np.arange(5), COLUMN]), rtol=1e-5)
    smooth = np.asarray(losses.softmax_loss(logits, COLUMN, 0.2))
    even = -np.log(shares(logits)).mean(axis=1)
    np.testing.assert_allclose(smooth, 0.8 * plain + 0.2 * even, rtol=1e-5)


def test_sampled_softmax_is_softmax_over_target_and_drawn() -> None:
    positive, others = HIDDEN[:, 0], HIDDEN @ VECTORS.T
    whole = np.concatenate([positive[:, None], others], axis=1)
    np.testing.assert_allclose(
        np.asarray(losses.sampled_loss(positive, others)), -np.log(shares(whole)[:, 0]), rtol=1e-5
    )


def test_gbce_weighs_the_target_by_beta() -> None:
    positive, others = np.array([0.0, 2.0], np.float32), np.array([[0.0, 1.0], [-1.0, 0.0]], np.float32)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    expected = [
        -(0.5 * np.log(0.5) + np.log(0.5) + np.log(1 - sigmoid(1.0))) / 3,
        -(0.5 * np.log(sigmoid(2.0)) + np.log(1 - sigmoid(-1.0)) + np.log(0.5)) / 3,
    ]
    np.testing.assert_allclose(np.asarray(losses.gbce_loss(positive, others, 0.5)), expected, rtol=1e-5)


@pytest.mark.parametrize(("calibration", "beta"), [(0.0, 1.0), (1.0, 0.1), (0.5, 0.55)])
def test_beta_goes_from_plain_to_calibrated(calibration: float, beta: float) -> None:
    assert losses.beta_of(1_001, 100, calibration) == pytest.approx(beta)  # a tenth of the others are drawn


def test_values_that_are_missing_count_nothing() -> None:
    loss = losses.value_loss(np.array([1.0, 5.0, 2.0]), np.array([0.0, 9.0, 4.0]), np.array([1.0, 0.0, 1.0]))
    assert float(loss) == pytest.approx((1 + 4) / 2)


def test_vectors_are_pushed_along_the_slope_of_the_loss() -> None:
    logits = HIDDEN @ VECTORS.T
    residual = (shares(logits) - np.eye(7)[COLUMN]).astype(np.float32)
    step = np.asarray(losses.adversarial_step(residual, HIDDEN, 0.3))
    np.testing.assert_allclose(np.linalg.norm(step, axis=1), 0.3, rtol=1e-4)

    def loss(vectors: np.ndarray) -> float:
        return float(-np.log(shares(HIDDEN.astype(np.float64) @ vectors.T)[np.arange(5), COLUMN]).sum())

    slope, small = np.zeros((7, 4)), 1e-5
    for item in range(7):
        for part in range(4):
            moved = VECTORS.astype(np.float64)
            moved[item, part] += small
            slope[item, part] = (loss(moved) - loss(VECTORS.astype(np.float64))) / small
    slope /= np.linalg.norm(slope, axis=1, keepdims=True)
    np.testing.assert_allclose(step / 0.3, slope, atol=2e-3)


def test_an_item_without_slope_stays() -> None:
    step = np.asarray(ops.convert_to_numpy(losses.adversarial_step(np.zeros((5, 7), np.float32), HIDDEN, 0.3)))
    assert np.abs(step).max() == 0
