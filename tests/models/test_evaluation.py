"""Metrics by hand."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from features.activity import Recent
from models.evaluation import Case, cases, evaluate, interval, split
from models.recommenders.base import Floats, Vocabulary

VOCABULARY = Vocabulary.of(["a", "b", "c", "d"])


def frame(*rows: tuple[str, str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]).assign(value=None)


def always(histories: Sequence[Recent]) -> Floats:
    """a, b, c, d in this order."""
    return np.tile(np.array([4, 3, 2, 1], np.float32), (len(histories), 1))


def test_metrics_by_hand() -> None:
    held_out = [
        Case("one", Recent(), ["b"]),  # second of two shown: NDCG 1/log2(3), MRR 1/2
        Case("two", Recent(), ["a", "c", "elsewhere"]),  # one of three, ideal has two places
        Case("three", Recent(), ["d"]),
    ]
    found = evaluate(always, VOCABULARY, held_out, k=2)
    second = 1 / np.log2(3)
    assert found["ndcg@2"] == pytest.approx((second + 1 / (1 + second) + 0) / 3)
    assert found["hr@2"] == pytest.approx(2 / 3)
    assert found["recall@2"] == pytest.approx((1 + 1 / 3) / 3)
    assert found["mrr@2"] == pytest.approx((0.5 + 1) / 3)
    assert found["coverage@2"] == 0.5
    assert found["users"] == 3


def test_seen_items_are_masked_only_when_asked() -> None:
    held_out = [Case("one", Recent(["a", "unknown"], [0, 0], [1, 1], [None, None]), ["c"])]
    assert evaluate(always, VOCABULARY, held_out, k=2, mask_seen=False)["hr@2"] == 0
    assert evaluate(always, VOCABULARY, held_out, k=2, mask_seen=True)["hr@2"] == 1


def test_a_split_in_time_has_nothing_of_the_future() -> None:
    events = frame(*[("u", str(n), "view", n) for n in range(100)])
    before, after, cut = split(events, 0.05)
    assert before["at"].max() < cut <= after["at"].min()
    assert len(after) == 5


def test_cases_are_users_of_both_sides_with_what_speaks_for_an_item() -> None:
    before = frame(("u", "a", "view", 1), ("u", "b", "view", 2), ("w", "a", "view", 1))
    after = frame(("u", "c", "purchase", 5), ("u", "c", "view", 6), ("w", "d", "skip", 5), ("new", "a", "view", 5))
    (only,) = cases(before, after)
    assert (only.user_id, only.history.items, only.targets) == ("u", ["a", "b"], ["c"])


def test_a_sample_of_users_is_the_same_for_the_same_seed() -> None:
    before = frame(*[(f"u{n}", "a", "view", 1) for n in range(50)])
    after = frame(*[(f"u{n}", "b", "view", 2) for n in range(50)])
    drawn = [one.user_id for one in cases(before, after, most=5, seed=3)]
    assert drawn == [one.user_id for one in cases(before, after, most=5, seed=3)]
    assert drawn != [one.user_id for one in cases(before, after, most=5, seed=4)]


def test_the_interval_of_a_mean_covers_it() -> None:
    low, high = interval(np.random.default_rng(0).random(2_000), np.random.default_rng(1))
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * (1 / 12) ** 0.5 / 2_000**0.5, rel=0.1)
