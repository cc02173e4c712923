"""Weights of a blend: near the known optimum, and evaluated on other cases."""

import numpy as np
import pytest

from models.recommenders import blend
from models.recommenders.blend import Evidence, best_weights, bucket_of, cross_validated


def evidence(n: int = 400, seed: int = 0) -> Evidence:
    """Member one knows the short histories' targets, member two the long ones'; member three knows nothing."""
    rng = np.random.default_rng(seed)
    amounts = rng.random((n, 30, 3)).astype(np.float32)
    lengths = np.where(np.arange(n) % 2 == 0, 2, 30)
    hits = np.zeros((n, 30), np.bool_)
    hits[np.arange(n), rng.integers(0, 30, n)] = True
    for case in range(n):
        amounts[case, hits[case], 0 if lengths[case] == 2 else 1] = 1.2
    return Evidence(("one", "two", "three"), amounts, hits, np.ones(n, np.int64), lengths.astype(np.int64))


def test_each_length_gets_the_member_that_knows() -> None:
    known = evidence()
    weights = best_weights(known, np.random.default_rng(0))
    short, long = weights[bucket_of(np.array([2]))[0]], weights[bucket_of(np.array([30]))[0]]
    assert short.argmax() == 0
    assert long.argmax() == 1
    assert weights.sum(axis=1).tolist() == pytest.approx([1] * len(weights))
    mixed = known.ndcg(weights[bucket_of(known.lengths)]).mean()
    assert mixed > max(known.ndcg(corner).mean() for corner in np.eye(3))


def test_ndcg_by_hand() -> None:
    amounts = np.array([[[0.9, 0.1], [0.5, 0.8]]], np.float32)
    evidence = Evidence(("a", "b"), amounts, np.array([[False, True]]), np.array([1]), np.array([5]))
    assert evidence.ndcg(np.array([1.0, 0.0])).tolist() == pytest.approx([1 / np.log2(3)])
    assert evidence.ndcg(np.array([0.0, 1.0])).tolist() == [1.0]


def test_ndcg_is_that_of_the_sorted_lists() -> None:
    """Every case beside a sort of its own, with equal scores (the first is ahead) and targets that nobody offers."""
    rng = np.random.default_rng(7)
    amounts = rng.integers(0, 4, (60, 35, 3)).astype(np.float32)
    hits = rng.random((60, 35)) < 0.08
    hits[0] = False
    relevant = np.maximum(hits.sum(axis=1) + rng.integers(0, 3, 60), 1)
    known = Evidence(tuple("abc"), amounts, hits, relevant, np.full(60, 5))
    weights = np.array([1.0, 2.0, 4.0])
    for case, ndcg in enumerate(known.ndcg(weights)):
        order = sorted(range(35), key=lambda place: (-float(amounts[case, place] @ weights), place))
        gained = sum(1 / np.log2(rank + 2) for rank, place in enumerate(order[:10]) if hits[case, place])
        ideal = sum(1 / np.log2(rank + 2) for rank in range(min(10, relevant[case])))
        assert ndcg == pytest.approx(gained / ideal), case


def test_what_cannot_be_learned_is_not_found_by_cross_validation() -> None:
    """Hits at random: the weights that fit them best must not look better on users that they were not sought on."""
    rng = np.random.default_rng(3)
    amounts = rng.random((120, 40, 4)).astype(np.float32)
    hits = np.zeros((120, 40), np.bool_)
    hits[np.arange(120), rng.integers(0, 40, 120)] = True
    noise = Evidence(tuple("abcd"), amounts, hits, np.ones(120, np.int64), np.full(120, 5))
    fitted = noise.ndcg(best_weights(noise, np.random.default_rng(0))[bucket_of(noise.lengths)]).mean()
    judged = cross_validated(noise, np.random.default_rng(0)).mean()
    chance = sum(1 / np.log2(place + 2) for place in range(10)) / 40
    assert fitted > judged
    assert judged < chance + 0.05
    assert blend.EDGES == (3, 6, 11, 21)
