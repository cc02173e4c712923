"""Canary decisions: by hand, and the rate of false rollbacks under continuous checking."""

from collections.abc import Sequence

import numpy as np
import pytest

from features.outcomes import GROUPS, ImpressionCounts
from models.releases.baseline import Baseline, since
from models.releases.canary import ArmStats, CanaryThresholds, click_through_rate, decide, difference_bounds

BOUNDS = CanaryThresholds(impressions=2_000)


def counts(impressions: int, clicks: int) -> ImpressionCounts:
    """Spread evenly over the groups."""
    spread = lambda n: [n // GROUPS + (group < n % GROUPS) for group in range(GROUPS)]  # noqa: E731
    return ImpressionCounts(spread(impressions), spread(clicks))


def side(impressions: int = 0, clicks: int = 0, answers: int = 0, errors: int = 0, ms: float = 2.0) -> ArmStats:
    return ArmStats(counts(impressions, clicks), answers, errors, [ms / 1000] * min(answers, 500))


def test_too_few_impressions_give_no_decision() -> None:
    verdict = decide(side(199, 0), side(5_000, 1_000), BOUNDS)
    assert (verdict.action, verdict.reason) == ("wait", "too-few-impressions")


def test_fewer_clicks_roll_back_and_as_many_promote() -> None:
    worse = decide(side(2_000, 100), side(18_000, 1_800), BOUNDS)
    assert (worse.action, worse.reason) == ("rollback", "clicks")
    assert worse.high is not None
    assert worse.high < 0
    good = decide(side(20_000, 2_000), side(180_000, 18_000), BOUNDS)
    assert (good.action, good.reason) == ("promote", "not-worse")
    assert decide(side(2_000, 190), side(18_000, 1_800), BOUNDS).action == "wait"
    early = CanaryThresholds(impressions=50_000)
    assert decide(side(20_000, 2_400), side(180_000, 18_000), early).action == "wait"


def test_a_trial_without_a_decision_times_out() -> None:
    undecided = (side(2_000, 190), side(18_000, 1_800))
    assert decide(*undecided, BOUNDS, hours=71.9).action == "wait"
    late = decide(*undecided, BOUNDS, hours=72.0)
    assert (late.action, late.reason) == ("rollback", "timeout")
    assert "no decision within 72 h (canary_hours): click-through rate 0.0950 of 2000 lists" in late.detail
    assert decide(side(), side(), BOUNDS, hours=73.0).reason == "timeout"  # nobody was shown anything
    assert decide(side(20_000, 2_000), side(180_000, 18_000), BOUNDS, hours=1_000.0).action == "promote"
    assert decide(*undecided, CanaryThresholds(hours=0.0), hours=1e6).action == "wait"
    assert decide(*undecided, CanaryThresholds(hours=0.5), hours=1.0).reason == "timeout"


def test_failed_answers_and_slow_ones_roll_back_at_once() -> None:
    assert decide(side(answers=200, errors=1), side(answers=2_000), BOUNDS).action == "wait"
    failing = decide(side(answers=200, errors=8), side(answers=2_000), BOUNDS)
    assert (failing.action, failing.reason) == ("rollback", "errors")
    assert decide(side(answers=200, errors=8), side(answers=2_000, errors=80), BOUNDS).action == "wait"
    assert decide(side(answers=200, ms=9), side(answers=2_000, ms=3), BOUNDS).action == "wait"  # too few to tell
    slow = decide(side(answers=400, ms=9), side(answers=2_000, ms=3), BOUNDS)
    assert (slow.action, slow.reason) == ("rollback", "latency")
    assert decide(side(answers=400, ms=1.5), side(answers=2_000, ms=0.5), BOUNDS).action == "wait"  # too small to feel


def test_correlated_users_increase_the_variance_of_a_rate() -> None:
    alike = ImpressionCounts([100] * GROUPS, [100, 0] * (GROUPS // 2))
    even = ImpressionCounts([100] * GROUPS, [50] * GROUPS)
    assert click_through_rate(alike).value == click_through_rate(even).value == 0.5
    assert click_through_rate(even).variance == pytest.approx(0.25 / 5_000)
    assert click_through_rate(alike).variance == pytest.approx(0.25 / GROUPS * GROUPS / (GROUPS - 1))


def test_bounds_are_wider_than_a_fixed_sample_interval() -> None:
    low, high = difference_bounds(
        click_through_rate(counts(2_000, 200)), click_through_rate(counts(20_000, 2_000)), 0.05, 2_000
    )
    once = 1.96 * (0.09 / 2_000 + 0.09 / 20_000) ** 0.5
    assert low == pytest.approx(-high)
    assert 1.3 * once < high < 2.0 * once


def test_only_counts_since_the_baseline_matter() -> None:
    began = Baseline("salt", {"old": counts(1_000, 500), "new": counts(100, 0)})
    now = {"old": counts(1_500, 550), "new": counts(300, 20), "third": counts(200, 20)}
    ours, theirs = since(began, now, "new")
    assert (sum(ours.impressions), sum(ours.clicks)) == (200, 20)
    assert (sum(theirs.impressions), sum(theirs.clicks)) == (700, 70)


def trial(rng: np.random.Generator, lift: float, users: int = 3_000, looks: int = 100) -> str:
    """Users of uneven activity, each with a click-through of their own; a look at the verdict after every 200 lists."""
    rates = rng.beta(1.0, 9.0, users)
    active = rng.pareto(1.5, users) + 0.2
    mine, groups = rng.random(users) < 0.2, rng.integers(0, GROUPS, users)
    shown, clicked = np.zeros((2, GROUPS), np.int64), np.zeros((2, GROUPS), np.int64)
    for _ in range(looks):
        who = rng.choice(users, 200, p=active / active.sum())
        arm = mine[who].astype(int)
        clicks = rng.random(200) < rates[who] * np.where(arm == 1, 1 + lift, 1)
        np.add.at(shown, (arm, groups[who]), 1)
        np.add.at(clicked, (arm, groups[who]), clicks)
        sides: Sequence[ArmStats] = [ArmStats(ImpressionCounts(shown[n].tolist(), clicked[n].tolist())) for n in (1, 0)]
        verdict = decide(sides[0], sides[1], BOUNDS)
        if verdict.action != "wait":
            return verdict.action
    return "wait"


def test_false_rollbacks_stay_below_alpha_when_checked_after_every_batch() -> None:
    rng = np.random.default_rng(0)
    ends = [trial(rng, 0.0) for _ in range(120)]
    assert ends.count("rollback") <= 12  # 5% of 120 are 6; more than 12 have a chance below 1%


def test_a_canary_that_halves_the_clicks_is_rolled_back() -> None:
    rng = np.random.default_rng(1)
    ends = [trial(rng, -0.6) for _ in range(30)]
    assert ends.count("rollback") >= 20
    assert "promote" not in ends
