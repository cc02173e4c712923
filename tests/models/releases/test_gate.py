"""The gate: each check with values worked out by hand, and the bootstrap against a distribution that is known."""

import numpy as np
import pytest
from scipy import sparse

from models.releases import gate
from models.releases.gate import Answers, Cases, GateThresholds

RNG = np.random.default_rng


def cases(histories: list[list[int]], targets: list[list[int]], took: list[list[int]]) -> Cases:
    table = np.array(took, np.float32)
    return Cases(np.array(histories), np.array(targets), sparse.csr_matrix(table), table.shape[1])


CLUBS = [[1, 1, 1, 1, 0, 0, 0, 0]] * 3 + [[0, 0, 0, 0, 1, 1, 1, 1]] * 3
"""Three users took items 0 to 3, three others 4 to 7."""
HALVES = cases([[0, 1], [4, 5]], [[2], [6]], CLUBS)


def test_nearness_is_the_cosine_of_own_pairs_over_that_of_all_pairs() -> None:
    own = np.array([[2, 3], [6, 7]])
    # within a club every cosine is 1, across clubs 0: own pairs 1 on average, others' 0: beyond chance without bound
    assert gate.nearness(own, HALVES.histories, HALVES.evidence) == 1.0  # nothing to divide by: it says nothing
    mixed = CLUBS + [[1, 1, 1, 1, 1, 1, 1, 1]] * 3
    evidence = sparse.csr_matrix(np.array(mixed, np.float32))
    # each item has 6 users: cosine within a club 6/6, across clubs 3/6; so 1 over 1/2
    assert gate.nearness(own, HALVES.histories, evidence) == pytest.approx(2.0)
    assert gate.nearness(own[::-1], HALVES.histories, evidence) == pytest.approx(0.5)
    everyone = np.array([[2, 6], [2, 6]])
    assert gate.nearness(everyone, HALVES.histories, evidence) == pytest.approx(1.0)


def test_an_item_is_not_near_to_itself() -> None:
    evidence = sparse.csr_matrix(np.array(CLUBS + [[1] * 8] * 3, np.float32))
    repeated = np.array([[0, 1], [4, 5]])  # of each list with its history, half of the pairs are an item with itself
    # own: 2 of 4 pairs, cosine 1, make 1/2; others': 4 of 4 pairs, cosine 1/2, make 1/2
    assert gate.nearness(repeated, HALVES.histories, evidence) == pytest.approx(1.0)


def test_strangers_are_refused_where_there_are_neighbours_to_be_had() -> None:
    held_out = cases([[0, 1], [4, 5]], [[2], [6]], CLUBS + [[1] * 8] * 3)
    good = gate.strangers(np.array([[2, 3], [6, 7]]), held_out, 0.25)
    assert (good.name, good.passed, good.value) == ("strangers", True, pytest.approx(2.0))
    assert good.bound == pytest.approx(1.25)  # what they took is twice as near as chance: a quarter of that excess
    assert not gate.strangers(np.array([[2, 6], [2, 6]]), held_out, 0.25).passed
    assert not gate.strangers(np.array([[6, 7], [2, 3]]), held_out, 0.25).passed
    alike = cases([[0, 1], [4, 5]], [[2], [6]], [[1] * 8] * 6)
    assert gate.strangers(np.array([[2, 6], [2, 6]]), alike, 0.25).passed  # everyone takes everything: it says nothing


def test_one_item_is_counted_by_answers() -> None:
    shown = np.array([[n % 9 + 1, 0] for n in range(10)])  # item 0 in all ten answers, the others in one or two
    evidence = [[0] * 40]
    few = cases([[1]] * 10, [[n % 9 + 1] for n in range(10)], evidence)
    check = gate.one_item(shown, few, 0.95)
    assert (check.passed, check.value, check.bound) == (False, 1.0, 0.95)
    wanted = cases([[1]] * 10, [[0]] * 5 + [[1]] * 5, evidence)  # half of the users took it next
    assert gate.one_item(shown, wanted, 0.95).passed
    small = cases([[1]] * 10, [[n % 9 + 1] for n in range(10)], [[0] * 10])
    assert gate.one_item(np.arange(10)[None].repeat(10, 0), small, 0.8).passed  # ten of ten items is everything


def test_everyone_may_be_shown_a_favourite() -> None:
    shown = np.array([[0, n % 90 + 2] for n in range(100)])
    evidence = [[0] * 200]
    took = [[0]] * 20 + [[1]] * 15 + [[n % 90 + 2] for n in range(65)]
    assert gate.one_item(shown, cases([[150]] * 100, took, evidence), 0.95).passed  # one of the two that most took
    third = [[1]] * 20 + [[2]] * 15 + [[0]] * 10 + [[n % 90 + 3] for n in range(55)]
    check = gate.one_item(shown, cases([[150]] * 100, third, evidence), 0.95)
    assert (check.passed, check.value, check.bound) == (False, 1.0, 0.95)
    rare = [[0]] * 3 + [[n % 90 + 2] for n in range(97)]  # the first of all, and yet 3% took it
    assert not gate.one_item(shown, cases([[150]] * 100, rare, evidence), 0.95).passed


def test_coverage_is_a_share_of_the_other_ones() -> None:
    theirs, ours = np.array([[0, 1], [2, 3]]), np.array([[0, 1], [0, -1]])
    check = gate.coverage(ours, theirs, GateThresholds(coverage=0.6))
    assert (check.passed, check.value, check.bound) == (False, 0.5, 0.6)
    assert gate.coverage(ours, theirs, GateThresholds(coverage=0.5)).passed


def test_an_equal_candidate_is_not_better_and_never_takes_turns() -> None:
    values = RNG(0).random(500)
    check = gate.better(values, values, GateThresholds(), RNG(1))
    assert (check.passed, check.value, check.bound) == (False, 0.0, 0.0)
    assert gate.better(values, values, GateThresholds(), RNG(1), stale=True).passed  # the champion's data are old
    assert gate.better(1.02 * values, values, GateThresholds(), RNG(1)).passed  # 2% for each user is beyond doubt
    assert not gate.better(1.02 * values, values, GateThresholds(margin=0.03), RNG(1)).passed
    assert not gate.better(0.95 * values, values, GateThresholds(), RNG(1), stale=True).passed


def test_the_bounds_of_the_gain_are_those_of_a_normal_difference() -> None:
    ours, theirs = 1 + 0.2 * RNG(0).standard_normal(4_000), np.ones(4_000)
    gain, low, high = gate.gain(ours, theirs, 0.95, RNG(1))
    # against ones the ratio is the mean of ours: one-sided bounds at 1.645 standard errors
    assert gain == pytest.approx(ours.mean() - 1)
    error = ours.std() / np.sqrt(4_000)
    assert low == pytest.approx(gain - 1.645 * error, abs=0.1 * error)
    assert high == pytest.approx(gain + 1.645 * error, abs=0.1 * error)


def test_no_better_one_is_promoted_as_better_about_as_often_as_said() -> None:
    rng, promoted = RNG(0), 0
    for _ in range(200):
        theirs = rng.random(300)
        promoted += gate.better(theirs + 0.2 * rng.standard_normal(300), theirs, GateThresholds(), rng).passed
    assert 2 <= promoted <= 20  # 5% of 200 is 10


def test_nothing_asked_is_nothing_proven() -> None:
    assert not gate.better(np.zeros(0), np.zeros(0), GateThresholds(), RNG(0)).passed
    assert gate.gain(np.ones(3), np.zeros(3), 0.95, RNG(0))[0] == 1.0


def test_a_verdict_names_what_failed() -> None:
    held_out = cases([[0, 1], [4, 5]], [[2], [6]], CLUBS + [[1] * 8] * 3)
    good = Answers(np.ones(2), np.array([[2, 3], [6, 7]]))
    verdict = gate.GateReport(gate.sane(good, held_out, 5.0, GateThresholds()))
    assert verdict.passed
    assert [one.name for one in verdict.checks] == ["not-finite", "one-item", "strangers", "slow"]
    bad = Answers(np.ones(2), np.array([[2, 6], [2, 6]]), broken=3)
    verdict = gate.GateReport(gate.sane(bad, held_out, 30.0, GateThresholds()))
    assert verdict.reasons == ["not-finite", "strangers", "slow"]
    assert "p95 of a look-up in ms 30, bound 25" in verdict.detail
    popular = gate.sane(bad, held_out, 5.0, GateThresholds(), personal=False)
    assert [one.name for one in popular] == ["not-finite", "slow"]
    assert set(gate.CHECKS) >= {one.name for one in verdict.checks}
