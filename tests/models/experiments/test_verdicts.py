"""The pass rule: 5% over the best other arm, proven, at no cost to the next event and to warm users."""

import numpy as np
import pytest

from models.evaluation.cold_values import PRIMARY, UserValues
from models.experiments.measures import ANY_K, NEXT
from models.experiments.verdicts import Verdict, judge, sentences

USERS = [f"u{number}" for number in range(400)]


def values_of(means: dict[str, dict[int, float]], next_means: dict[str, dict[int, float]] | None = None) -> UserValues:
    """Values around these means by arm and k, with noise that all arms share."""
    ks = list(next(iter(means.values())))
    values = UserValues(USERS, ks, list(means))
    noise = np.random.default_rng(0).normal(0, 0.05, len(USERS))
    for metric, table in ((PRIMARY, means), (NEXT, next_means or means)):
        for number, arm in enumerate(means):
            for column, k in enumerate(ks):
                values.values[metric][:, column, number] = table[arm][k] + noise
    return values


def verdicts_of(values: UserValues, warm: UserValues | None = None) -> list[Verdict]:
    return judge(values, warm, [dict.fromkeys(values.ks, "A1")], ["A0", "A2"], np.random.default_rng(1))


def test_an_arm_passes_against_the_best_other_one() -> None:
    values = values_of({"A1": {1: 0.33, 2: 0.303}, "A0": {1: 0.30, 2: 0.30}, "A2": {1: 0.31, 2: 0.28}})
    first, second = verdicts_of(values)
    assert (first.other, second.other) == ("A2", "A0")
    assert first.passed
    assert first.ratio.ratio == pytest.approx(0.33 / 0.31, rel=0.02)
    assert first.users == len(USERS)
    assert not second.passed
    assert second.reasons == ["the gain is below 5%"]


def test_no_gain_is_not_proven() -> None:
    (verdict,) = verdicts_of(values_of({"A1": {1: 0.30}, "A0": {1: 0.30}, "A2": {1: 0.2}}))
    assert verdict.reasons == ["the gain is not proven", "the gain is below 5%"]


def test_the_next_event_and_warm_users_may_lose_one_percent() -> None:
    means = {"A1": {1: 0.36}, "A0": {1: 0.30}, "A2": {1: 0.2}}
    later = {"A1": {1: 0.28}, "A0": {1: 0.30}, "A2": {1: 0.2}}
    (verdict,) = verdicts_of(values_of(means, later))
    assert not verdict.passed
    assert verdict.reasons[0].startswith("the next event loses 6")
    warm = values_of({"A1": {ANY_K: 0.29}, "A0": {ANY_K: 0.30}, "A2": {ANY_K: 0.3}})
    (verdict,) = verdicts_of(values_of(means), warm)
    assert verdict.warm is not None
    assert verdict.reasons[0].startswith("warm users lose 3")


def test_failures_are_said_first() -> None:
    values = values_of({"A1": {0: 0.3, 1: 0.33}, "A0": {0: 0.3, 1: 0.30}, "A2": {0: 0.1, 1: 0.1}})
    lines = sentences(verdicts_of(values))
    assert lines[0].startswith("Do not inject at k = 0: k = 0 A1 gives 1.000 [")
    assert "the gain is not proven" in lines[0]
    assert lines[1].startswith("Inject at k = 1: A1 gives 1.1")
    assert sentences(verdicts_of(values_of({"A1": {1: 0.3}, "A0": {1: 0.3}, "A2": {1: 0.1}})))[0].startswith(
        "Do not inject: k = 1"
    )
