"""The paired bootstrap and Holm's correction, by laws that have to hold."""

import numpy as np
import pytest

from models.evaluation.bootstrap import compare, holm, intervals, resampled_means


def test_the_interval_of_a_mean_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 2_000)
    low, high = intervals({"x": values}, np.random.default_rng(1))["x"]
    error = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - error, abs=0.02)
    assert high == pytest.approx(values.mean() + error, abs=0.02)


def test_columns_share_their_draws_and_missing_values_do_not_count() -> None:
    values = np.random.default_rng(0).random(500)
    drawn = resampled_means(
        np.stack([values, 2 * values, np.where(values > 0.5, np.nan, 0.25)], axis=1), np.random.default_rng(0), 200
    )
    np.testing.assert_allclose(2 * drawn[:, 0], drawn[:, 1], rtol=1e-4)
    np.testing.assert_allclose(drawn[:, 2], 0.25, rtol=1e-5)


def test_a_difference_is_seen_where_it_is_and_not_where_it_is_not() -> None:
    rng = np.random.default_rng(2)
    base = rng.random(400)
    better, same = base + 0.05 + rng.normal(0, 0.05, 400), base + rng.normal(0, 0.05, 400)
    gain, nothing = compare([better, same], [base, base], np.random.default_rng(0))
    assert gain.low > 1
    assert gain.p < 0.001
    assert gain.holm == pytest.approx(2 * gain.p)
    assert nothing.low < 1 < nothing.high
    assert nothing.holm >= nothing.p > 0.05


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
