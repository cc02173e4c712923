"""Metrics by hand."""

from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.activity import History
from models.arrays import Float32
from models.data.splits import EvaluationCase
from models.data.vocabulary import Vocabulary
from models.evaluation import metrics
from models.evaluation.metrics import RankedLists, aggregate, evaluate, intervals, mean_ratio, per_user, rank, segments

VOCABULARY = Vocabulary.from_items(["a", "b", "c", "d"])
SECOND = 1 / np.log2(3)


def always(start: int, stop: int) -> Float32:
    """a, b, c, d in this order."""
    return np.tile(np.array([4, 3, 2, 1], np.float32), (stop - start, 1))


HELD_OUT = [
    EvaluationCase("one", History(), ["b"]),  # second of two shown
    EvaluationCase("two", History(), ["a", "c", "elsewhere"]),  # one of three, ideal has two places
    EvaluationCase("three", History(), ["d"]),
]


def test_metrics_by_hand() -> None:
    ranked = rank(always, VOCABULARY, HELD_OUT, 2)
    values = per_user(ranked, VOCABULARY, HELD_OUT, (1, 2))
    assert ranked.items.tolist() == [[0, 1]] * 3
    assert values["ndcg@2"].tolist() == pytest.approx([SECOND, 1 / (1 + SECOND), 0])
    assert values["ndcg@1"].tolist() == [0, 1, 0]
    assert values["hr@2"].tolist() == [1, 1, 0]
    assert values["recall@2"].tolist() == pytest.approx([1, 1 / 3, 0])
    assert values["precision@2"].tolist() == [0.5, 0.5, 0]
    assert values["f1@2"].tolist() == pytest.approx([2 / 3, 2 / 5, 0])
    assert values["mrr@2"].tolist() == [0.5, 1, 0]
    assert values["map@2"].tolist() == [0.5, 0.5, 0]
    # of four items (and a target outside): shown wrongly + wanted and not shown
    assert values["accuracy@2"].tolist() == [1 - 1 / 4, 1 - 3 / 5, 1 - 3 / 4]
    whole = aggregate(values, ranked, VOCABULARY, (1, 2))
    assert (whole["coverage@1"], whole["coverage@2"], whole["users"]) == (0.25, 0.5, 3)
    assert whole["gini@1"] == pytest.approx(0.75)  # all on one of four
    assert evaluate(always, VOCABULARY, HELD_OUT, 2)["recall@2"] == pytest.approx((1 + 1 / 3) / 3)


def test_accuracy_is_a_share_even_where_every_decision_is_wrong() -> None:
    held_out = [EvaluationCase("one", History(), ["x", "y", "z"]), EvaluationCase("two", History(), ["c", "d", "x"])]
    values = per_user(rank(always, VOCABULARY, held_out, 2), VOCABULARY, held_out, (2,))
    assert values["accuracy@2"].tolist() == [1 - 5 / 7, 0]


def test_beyond_accuracy_metrics_by_hand() -> None:
    held_out = [EvaluationCase("one", History(["a", "a", "c"], [0] * 3, [0] * 3, [None] * 3), ["b"])]
    ranked = rank(always, VOCABULARY, held_out, 3)
    popularity = np.array([7, 3, 1, 1], np.float32)
    values = per_user(
        ranked, VOCABULARY, held_out, (3,), popularity=popularity, categories=np.array([1, 1, 2, 2], np.int32)
    )
    assert values["novelty@3"][0] == pytest.approx((1 + 2 + 3) / 3)  # shares (n + 1) / 16: 1/2, 1/4, 1/8
    assert values["diversity@3"][0] == pytest.approx(2 / 3)
    assert values["calibration@3"][0] == pytest.approx(0, abs=1e-9)  # two of category 1 and one of 2 on both sides


def listed(shown: list[int], took: list[int], categories: list[int]) -> dict[str, float]:
    """Diversity and calibration of one list, each where there is a value."""
    names = [f"i{n}" for n in range(len(categories))]
    history = History([names[n] for n in took], [0] * len(took), [0] * len(took), [None] * len(took))
    ranked = RankedLists(np.array([shown], np.int64), np.full(1, np.nan), len(shown))
    codes = np.array(categories, np.int32)
    held_out = [EvaluationCase("one", history, ["i0"])]
    values = per_user(ranked, Vocabulary.from_items(names), held_out, (len(shown),), categories=codes)
    return {name.split("@")[0]: float(values[name][0]) for name in values if name.startswith(("div", "cal"))}


def test_items_without_a_category_are_ignored() -> None:
    assert listed([0, 1, 2, 3], [0, 1], [0, 0, 0, 0]) == {}
    assert listed([0, 1, 2, 3], [1], [1, 0, 0, 2]) == {"diversity": 1.0}  # one pair; what was taken has no category
    values = listed([0, 1, 2, 3], [0, 1, 2], [1, 2, 0, 0])
    assert values == {"diversity": 1.0, "calibration": pytest.approx(0, abs=1e-9)}


codes = st.lists(st.integers(0, 3), min_size=4, max_size=12)


@given(codes, st.randoms(use_true_random=False))
def test_diversity_and_calibration_use_only_items_with_a_category(categories: list[int], draw: Random) -> None:
    """By plain loops over lists and histories from which the others are taken out."""
    places = range(len(categories))
    shown, took = draw.sample(places, draw.randint(1, len(places))), draw.choices(places, k=draw.randint(1, 9))
    values = listed([*shown, -1], took, categories)
    given = [categories[n] for n in shown if categories[n]]
    had = [categories[n] for n in took if categories[n]]
    pairs = [category != other for category, other in combinations(given, 2)]
    assert ("diversity" in values) == bool(pairs)
    assert ("calibration" in values) == bool(given and had)
    if pairs:
        assert values["diversity"] == pytest.approx(sum(pairs) / len(pairs))
    if given and had:
        p, q = ({category: group.count(category) / len(group) for category in (1, 2, 3)} for group in (had, given))
        divergence = sum(
            p[category] * np.log2(p[category] / (0.99 * q[category] + 0.01 * p[category]))
            for category in p
            if p[category]
        )
        assert values["calibration"] == pytest.approx(divergence, abs=1e-9)


def test_seen_items_are_masked_only_when_asked() -> None:
    held_out = [EvaluationCase("one", History(["a"], [0], [1], [None]), ["c"], seen=frozenset({"a", "unknown"}))]
    assert evaluate(always, VOCABULARY, held_out, 2)["hr@2"] == 0
    assert evaluate(always, VOCABULARY, held_out, 2, mask_seen=True)["hr@2"] == 1


def test_auc_is_the_share_of_pairs_in_order() -> None:
    held_out = [
        EvaluationCase("one", History(), ["b"], negatives=["a", "c", "d"]),
        EvaluationCase("two", History(), ["a"]),
    ]
    ranked = rank(always, VOCABULARY, held_out, 2)
    assert ranked.auc[0] == pytest.approx(2 / 3)
    assert np.isnan(ranked.auc[1])
    values = per_user(ranked, VOCABULARY, held_out, (2,))
    assert aggregate(values, ranked, VOCABULARY, (2,))["auc"] == pytest.approx(2 / 3)
    assert intervals(values, np.random.default_rng(0), 50)["auc"] == pytest.approx((2 / 3, 2 / 3))


@given(st.integers(0, 10_000), st.integers(1, 6))
def test_ndcg_and_map_equal_those_of_plain_loops(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    vocabulary = Vocabulary.from_items([f"i{n}" for n in range(9)])
    targets = [f"i{n}" for n in rng.permutation(12)[: rng.integers(1, 6)]]  # i9 to i11 are not known
    shown = rng.permutation(9)[:k]
    values = per_user(
        RankedLists(shown[None].astype(np.int64), np.full(1, np.nan), k),
        vocabulary,
        [EvaluationCase("u", History(), targets)],
        (k,),
    )
    gain, hits, precisions = 0.0, 0, 0.0
    for place, item in enumerate(shown):
        if f"i{item}" in targets:
            hits += 1
            gain += 1 / np.log2(place + 2)
            precisions += hits / (place + 1)
    best = sum(1 / np.log2(place + 2) for place in range(min(k, len(targets))))
    assert values[f"ndcg@{k}"][0] == pytest.approx(gain / best)
    assert values[f"map@{k}"][0] == pytest.approx(precisions / min(k, len(targets)))


def test_the_interval_of_a_mean_covers_it() -> None:
    low, high = intervals({"x": np.random.default_rng(0).random(2_000)}, np.random.default_rng(1))["x"]
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * (1 / 12) ** 0.5 / 2_000**0.5, rel=0.1)


def test_a_ratio_is_paired() -> None:
    """Ours is always a tenth better, so the ratio has no spread, however much the users differ."""
    theirs = np.random.default_rng(0).random(500)
    assert mean_ratio(1.1 * theirs, theirs, np.random.default_rng(1), 200) == pytest.approx((1.1, 1.1, 1.1))
    _, low, high = mean_ratio(np.random.default_rng(2).permutation(theirs), theirs, np.random.default_rng(1), 200)
    assert low < 1 < high


def test_segments_split_the_users() -> None:
    histories = [History(["a"] * n, [0] * n, [0] * n, [None] * n) for n in (1, 4, 4)]
    held_out = [
        EvaluationCase(f"u{n}", history, [item])
        for n, (history, item) in enumerate(zip(histories, ("a", "d", "x"), strict=True))
    ]
    measured = segments(
        {"hr@10": np.array([1.0, 0.0, 1.0])}, held_out, VOCABULARY, np.array([5, 2, 2, 1], np.float32), {"u0": "f"}
    )
    by = {(segment.by, segment.name): (segment.users, segment.metrics["hr@10"]) for segment in measured}
    assert by == {
        ("history length", "1-2"): (1, 1.0),
        ("history length", "3-5"): (2, 0.5),
        ("profile", "f"): (1, 1.0),
        ("profile", "unknown"): (2, 0.5),
        ("target item", "head"): (1, 1.0),
        ("target item", "tail"): (1, 0.0),
        ("target item", "new"): (1, 1.0),
    }
    assert metrics.KS == (5, 10, 20)
