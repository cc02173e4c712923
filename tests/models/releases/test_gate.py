"""The gate: each check with values worked out by hand, and the bootstrap against a known distribution."""

import numpy as np
import pytest
from scipy import sparse

from models.releases import gate
from models.releases.gate import GateThresholds, HoldoutAnswers, HoldoutCases

RNG = np.random.default_rng


def cases(histories: list[list[int]], targets: list[list[int]], took: list[list[int]]) -> HoldoutCases:
    table = np.array(took, np.float32)
    return HoldoutCases(np.array(histories), np.array(targets), sparse.csr_matrix(table), table.shape[1])


CLUBS = [[1, 1, 1, 1, 0, 0, 0, 0]] * 3 + [[0, 0, 0, 0, 1, 1, 1, 1]] * 3
"""Three users took items 0 to 3, three others 4 to 7."""
HALVES = cases([[0, 1], [4, 5]], [[2], [6]], CLUBS)


def test_history_fit_is_the_cosine_of_own_pairs_over_that_of_all_pairs() -> None:
    own = np.array([[2, 3], [6, 7]])
    # within a club every cosine is 1, across clubs 0: own pairs 1 on average, others' 0: beyond chance without bound
    assert gate.history_fit(own, HALVES.histories, HALVES.evidence) == 1.0  # nothing to divide by: it says nothing
    mixed = CLUBS + [[1, 1, 1, 1, 1, 1, 1, 1]] * 3
    evidence = sparse.csr_matrix(np.array(mixed, np.float32))
    # each item has 6 users: cosine within a club 6/6, across clubs 3/6; so 1 over 1/2
    assert gate.history_fit(own, HALVES.histories, evidence) == pytest.approx(2.0)
    assert gate.history_fit(own[::-1], HALVES.histories, evidence) == pytest.approx(0.5)
    everyone = np.array([[2, 6], [2, 6]])
    assert gate.history_fit(everyone, HALVES.histories, evidence) == pytest.approx(1.0)


def test_an_item_is_not_compared_with_itself() -> None:
    evidence = sparse.csr_matrix(np.array(CLUBS + [[1] * 8] * 3, np.float32))
    repeated = np.array([[0, 1], [4, 5]])  # of each list with its history, half of the pairs are an item with itself
    # own: 2 of 4 pairs, cosine 1, make 1/2; others': 4 of 4 pairs, cosine 1/2, make 1/2
    assert gate.history_fit(repeated, HALVES.histories, evidence) == pytest.approx(1.0)


def test_lists_that_do_not_match_histories_are_refused_where_real_choices_match() -> None:
    held_out = cases([[0, 1], [4, 5]], [[2], [6]], CLUBS + [[1] * 8] * 3)
    good = gate.personalization_check(np.array([[2, 3], [6, 7]]), held_out, 0.25)
    assert (good.name, good.passed, good.value) == ("not-personalized", True, pytest.approx(2.0))
    assert good.bound == pytest.approx(1.25)  # what they took is twice as near as chance: a quarter of that excess
    assert not gate.personalization_check(np.array([[2, 6], [2, 6]]), held_out, 0.25).passed
    swapped = gate.personalization_check(np.array([[6, 7], [2, 3]]), held_out, 0.25)
    assert not swapped.passed
    assert swapped.detail == (
        "recommendations are barely better than chance at matching users' histories (below 25% of the fit that real "
        "next choices show; fit to histories, 1 being chance: 0.5; of real next choices: 2)"
    )
    alike = cases([[0, 1], [4, 5]], [[2], [6]], [[1] * 8] * 6)
    assert gate.personalization_check(np.array([[2, 6], [2, 6]]), alike, 0.25).passed  # everyone takes everything


def test_a_dominant_item_is_counted_by_lists() -> None:
    shown = np.array([[n % 9 + 1, 0] for n in range(10)])  # item 0 in all ten answers, the others in one or two
    evidence = [[0] * 40]
    few = cases([[1]] * 10, [[n % 9 + 1] for n in range(10)], evidence)
    check = gate.dominant_item_check(shown, few, 0.95)
    assert (check.passed, check.value, check.bound) == (False, 1.0, 0.95)
    popular_target_cases = cases([[1]] * 10, [[0]] * 5 + [[1]] * 5, evidence)  # half of the users took it next
    assert gate.dominant_item_check(shown, popular_target_cases, 0.95).passed
    small = cases([[1]] * 10, [[n % 9 + 1] for n in range(10)], [[0] * 10])
    assert gate.dominant_item_check(
        np.arange(10)[None].repeat(10, 0), small, 0.8
    ).passed  # ten of ten items is everything


def test_a_popular_target_is_exempt_from_the_dominant_item_check() -> None:
    shown = np.array([[0, n % 90 + 2] for n in range(100)])
    evidence = [[0] * 200]
    took = [[0]] * 20 + [[1]] * 15 + [[n % 90 + 2] for n in range(65)]
    assert gate.dominant_item_check(shown, cases([[150]] * 100, took, evidence), 0.95).passed  # a top-two item
    third = [[1]] * 20 + [[2]] * 15 + [[0]] * 10 + [[n % 90 + 3] for n in range(55)]
    check = gate.dominant_item_check(shown, cases([[150]] * 100, third, evidence), 0.95)
    assert (check.passed, check.value, check.bound) == (False, 1.0, 0.95)
    rare = [[0]] * 3 + [[n % 90 + 2] for n in range(97)]  # the first of all, and yet 3% took it
    assert not gate.dominant_item_check(shown, cases([[150]] * 100, rare, evidence), 0.95).passed


def test_coverage_is_a_share_of_the_champions() -> None:
    theirs, ours = np.array([[0, 1], [2, 3]]), np.array([[0, 1], [0, -1]])
    check = gate.coverage_check(ours, theirs, GateThresholds(coverage=0.6))
    assert (check.passed, check.value, check.bound) == (False, 0.5, 0.6)
    assert gate.coverage_check(ours, theirs, GateThresholds(coverage=0.5)).passed


def test_an_equal_candidate_is_not_better_and_never_takes_turns() -> None:
    values = RNG(0).random(500)
    check = gate.improvement_check(values, values, GateThresholds(), RNG(1))
    assert (check.passed, check.value, check.bound) == (False, 0.0, 0.0)
    assert gate.improvement_check(values, values, GateThresholds(), RNG(1), stale=True).passed  # its data are old
    assert gate.improvement_check(1.02 * values, values, GateThresholds(), RNG(1)).passed  # 2% for each user
    assert not gate.improvement_check(1.02 * values, values, GateThresholds(margin=0.03), RNG(1)).passed
    assert not gate.improvement_check(0.95 * values, values, GateThresholds(), RNG(1), stale=True).passed


def test_the_bounds_of_the_gain_are_those_of_a_normal_difference() -> None:
    ours, theirs = 1 + 0.2 * RNG(0).standard_normal(4_000), np.ones(4_000)
    gain, low, high = gate.relative_gain(ours, theirs, 0.95, RNG(1))
    # against ones the ratio is the mean of ours: one-sided bounds at 1.645 standard errors
    assert gain == pytest.approx(ours.mean() - 1)
    error = ours.std() / np.sqrt(4_000)
    assert low == pytest.approx(gain - 1.645 * error, abs=0.1 * error)
    assert high == pytest.approx(gain + 1.645 * error, abs=0.1 * error)


def test_an_equal_candidate_is_promoted_about_as_often_as_the_confidence_says() -> None:
    rng, promoted = RNG(0), 0
    for _ in range(200):
        theirs = rng.random(300)
        promoted += gate.improvement_check(
            theirs + 0.2 * rng.standard_normal(300), theirs, GateThresholds(), rng
        ).passed
    assert 2 <= promoted <= 20  # 5% of 200 is 10


def test_without_cases_no_check_decides() -> None:
    assert not gate.improvement_check(np.zeros(0), np.zeros(0), GateThresholds(), RNG(0)).passed
    assert gate.relative_gain(np.ones(3), np.zeros(3), 0.95, RNG(0))[0] == 1.0


def test_a_report_names_the_failed_checks() -> None:
    held_out = cases([[0, 1], [4, 5]], [[2], [6]], CLUBS + [[1] * 8] * 3)
    good = HoldoutAnswers(np.ones(2), np.array([[2, 3], [6, 7]]))
    report = gate.GateReport(gate.sanity_checks(good, held_out, 5.0, GateThresholds()))
    assert report.passed
    assert [check.name for check in report.checks] == ["not-finite", "dominant-item", "not-personalized", "slow"]
    bad = HoldoutAnswers(np.ones(2), np.array([[2, 6], [2, 6]]), broken=3)
    report = gate.GateReport(gate.sanity_checks(bad, held_out, 30.0, GateThresholds()))
    assert report.reasons == ["not-finite", "not-personalized", "slow"]
    assert "slow: the p95 latency of a look-up is 30.0 ms (limit 25 ms)" in report.detail
    popular = gate.sanity_checks(bad, held_out, 5.0, GateThresholds(), personalized=False)
    assert [check.name for check in popular] == ["not-finite", "slow"]
    assert set(gate.CHECKS) >= {check.name for check in report.checks}
