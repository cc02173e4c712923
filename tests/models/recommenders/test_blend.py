"""Weights of a blend: near the known optimum, and evaluated on other cases."""

import numpy as np
import pytest

from models.recommenders.blend import BUCKETS, bucket_of
from models.recommenders.blend_weights import (
    Evidence,
    EvidenceBuilder,
    cross_validated,
    fit_weights,
    merged,
    weights_by_group,
)


def evidence_from(amounts: np.ndarray, hits: np.ndarray, lengths: np.ndarray, target_count: np.ndarray) -> Evidence:
    """From amounts [cases, items, members] and hits [cases, items]."""
    builder = EvidenceBuilder(tuple("abcd"[: amounts.shape[2]]))
    for case in range(len(amounts)):
        targets = np.flatnonzero(hits[case]).tolist()
        builder.add(
            amounts[case].T, targets, target_count=int(target_count[case]), length=int(lengths[case]), user=case
        )
    return builder.build()


def evidence(n: int = 400, seed: int = 0) -> Evidence:
    """Member a knows the short histories' targets, member b the long ones'; member c knows nothing."""
    rng = np.random.default_rng(seed)
    amounts = rng.random((n, 30, 3)).astype(np.float32)
    lengths = np.where(np.arange(n) % 2 == 0, 2, 30)
    hits = np.zeros((n, 30), np.bool_)
    hits[np.arange(n), rng.integers(0, 30, n)] = True
    for case in range(n):
        amounts[case, hits[case], 0 if lengths[case] == 2 else 1] = 1.2
    return evidence_from(amounts, hits, lengths, np.ones(n))


def random_hits(seed: int, shape: tuple[int, int, int]) -> Evidence:
    rng = np.random.default_rng(seed)
    amounts = rng.random(shape).astype(np.float32)
    hits = np.zeros(shape[:2], np.bool_)
    hits[np.arange(shape[0]), rng.integers(0, shape[1], shape[0])] = True
    return evidence_from(amounts, hits, np.full(shape[0], 5), np.ones(shape[0]))


def test_each_length_gets_the_member_that_knows() -> None:
    known = evidence()
    weights = fit_weights(known, np.random.default_rng(0))
    short, long = weights[bucket_of(np.array([2]))[0]], weights[bucket_of(np.array([30]))[0]]
    assert short.argmax() == 0
    assert long.argmax() == 1
    assert weights.sum(axis=1).tolist() == pytest.approx([1] * BUCKETS)
    blended = known.ndcg(weights[bucket_of(known.lengths)]).mean()
    assert blended > max(known.ndcg(corner).mean() for corner in np.eye(3))


def test_each_number_of_known_events_up_to_five_has_a_row_of_its_own() -> None:
    assert bucket_of(np.arange(7)).tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert bucket_of(np.array([10, 11, 20, 21, 50])).tolist() == [6, 7, 7, 8, 8]


def test_groups_are_whatever_the_caller_says() -> None:
    """Half of the cases of one length want member a, the other half member b: a horizon may say which."""
    known = evidence()
    families = np.array([0, 1, 1, 0])
    weights = weights_by_group(known, (known.lengths == 2).astype(np.int64), families, np.random.default_rng(0))
    assert weights.argmax(axis=1).tolist() == [1, 0, 0, 1]  # a group without cases has the weights of its family


def test_ndcg_by_hand() -> None:
    amounts = np.array([[[0.9, 0.1], [0.5, 0.8]]], np.float32)
    known = evidence_from(amounts, np.array([[False, True]]), np.array([5]), np.array([1]))
    assert known.ndcg(np.array([1.0, 0.0])).tolist() == pytest.approx([1 / np.log2(3)])
    assert known.ndcg(np.array([0.0, 1.0])).tolist() == [1.0]


def test_ndcg_is_that_of_the_sorted_lists() -> None:
    """Every case against a sort of its own, with equal scores (the first is ahead) and targets that nobody offers."""
    rng = np.random.default_rng(7)
    amounts = rng.integers(0, 4, (60, 35, 3)).astype(np.float32)
    hits = rng.random((60, 35)) < 0.08
    hits[0] = False
    target_count = np.maximum(hits.sum(axis=1) + rng.integers(0, 3, 60), 1)
    known = evidence_from(amounts, hits, np.full(60, 5), target_count)
    weights = np.array([1.0, 2.0, 4.0])
    for ndcgs in (known.ndcg(weights), known.ndcg(np.tile(weights, (60, 1)))):
        for case, ndcg in enumerate(ndcgs):
            order = sorted(range(35), key=lambda place: (-float(amounts[case, place] @ weights), place))
            gained = sum(1 / np.log2(rank + 2) for rank, place in enumerate(order[:10]) if hits[case, place])
            ideal = sum(1 / np.log2(rank + 2) for rank in range(min(10, target_count[case])))
            assert ndcg == pytest.approx(gained / ideal, abs=1e-5), case


def test_a_part_of_the_evidence_has_the_ndcg_of_its_cases() -> None:
    known, weights = random_hits(5, (80, 40, 3)), np.array([0.2, 0.5, 0.3])
    cases = np.array([3, 4, 17, 60])
    assert known.of(cases).ndcg(weights).tolist() == pytest.approx(known.ndcg(weights)[cases].tolist())


def test_the_evidence_of_some_members_has_the_ndcg_of_weights_without_the_others() -> None:
    known = random_hits(5, (80, 40, 3))
    part = known.only(["c", "a"])
    assert len(part.margins) < len(known.margins)
    for weights in (np.array([0.2, 0.8]), np.array([1.0, 0.0])):
        whole = known.ndcg(np.array([weights[1], 0.0, weights[0]]))
        assert part.ndcg(weights).tolist() == pytest.approx(whole.tolist())


def test_a_blend_is_a_member_of_its_own() -> None:
    """Half of a blend and half of a member is a blend of all."""
    known, blend = random_hits(5, (80, 40, 3)), np.array([0.2, 0.5, 0.3])
    stacked = known.stacked("blend", np.tile(blend, (80, 1)), ["c"])
    assert stacked.ndcg(np.array([1.0, 0.0])).tolist() == pytest.approx(known.ndcg(blend).tolist())
    mixed = known.ndcg(0.5 * blend + np.array([0.0, 0.0, 0.5]))
    assert stacked.ndcg(np.array([0.5, 0.5])).tolist() == pytest.approx(mixed.tolist())


def test_two_parts_of_evidence_make_one() -> None:
    first, second = random_hits(5, (60, 40, 3)), random_hits(6, (50, 40, 3))
    both, weights = merged(first, second), np.array([0.2, 0.5, 0.3])
    assert both.ndcg(weights).tolist() == pytest.approx([*first.ndcg(weights), *second.ndcg(weights)])
    assert len(np.unique(both.users)) == 110


def test_what_a_user_may_not_be_given_is_no_competitor() -> None:
    builder = EvidenceBuilder(("a", "b"))
    builder.add(
        np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.6]], np.float32), [1], target_count=1, length=1, user=0, barred=[0]
    )
    known = builder.build()
    assert known.ndcg(np.array([1.0, 0.0])).tolist() == [1.0]
    assert known.ndcg(np.array([0.0, 1.0])).tolist() == pytest.approx([1 / np.log2(3)])


def test_what_cannot_be_learned_is_not_found_by_cross_validation() -> None:
    """Hits at random: the weights that fit them best must not look better on users that they were not fitted on."""
    noise = random_hits(3, (120, 40, 4))
    fitted = noise.ndcg(fit_weights(noise, np.random.default_rng(0))[bucket_of(noise.lengths)]).mean()
    judged = cross_validated(noise, np.random.default_rng(0)).mean()
    chance = sum(1 / np.log2(place + 2) for place in range(10)) / 40
    assert fitted > judged
    assert judged < chance + 0.05
