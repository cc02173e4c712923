"""Diverse lists, held against a slow truth that is written out step by step."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.rerank.diversity import SAME_CATEGORY, CategoryLimits, by_relevance, dpp, mmr, similarity


def slow_mmr(relevance: np.ndarray, alike: np.ndarray, n: int, diversity: float) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < min(n, len(relevance)):
        best, place = -1e9, -1
        for candidate in range(len(relevance)):
            if candidate in chosen:
                continue
            near = max((float(alike[candidate, other]) for other in chosen), default=0.0)
            value = (1 - diversity) * float(relevance[candidate]) - diversity * near
            if value > best + 1e-9:
                best, place = value, candidate
        chosen.append(place)
    return chosen


def drawn(seed: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    square = rng.random((m, m), np.float32)
    alike = np.maximum(square, square.T)
    np.fill_diagonal(alike, 1.0)
    return rng.random(m, np.float32), alike, rng.integers(-1, 4, m).astype(np.int32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_mmr_follows_its_formula(seed: int, m: int, n: int, diversity: float) -> None:
    relevance, alike, codes = drawn(seed, m)
    assert mmr(relevance, alike, codes, n, diversity) == slow_mmr(relevance, alike, n, diversity)


def test_mmr_skips_a_duplicate_of_the_best_item() -> None:
    relevance = np.array([1.0, 0.9, 0.5], np.float32)
    alike = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], np.float32)
    none = np.full(3, -1, np.int32)
    assert mmr(relevance, alike, none, 3, 0.0) == [0, 1, 2]
    assert mmr(relevance, alike, none, 3, 0.5) == [0, 2, 1]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 6), st.integers(1, 3), st.integers(0, 4))
def test_category_limits_hold_whenever_a_list_can_satisfy_them(
    seed: int, m: int, n: int, most: int, least: int
) -> None:
    relevance, alike, codes = drawn(seed, m)
    floor = CategoryLimits(per_category=most, categories=least)
    feasible = [subset for subset in combinations(range(m), n) if floor.met(codes[list(subset)])] if n <= m else []
    chosen = mmr(relevance, alike, codes, n, 0.3, floor)
    assert len(set(chosen)) == len(chosen) <= n
    assert CategoryLimits(per_category=most).met(codes[chosen])
    if feasible:
        assert len(chosen) == n
        assert floor.met(codes[chosen])


def test_categories_already_in_the_list_count() -> None:
    relevance, codes = np.array([1.0, 0.9, 0.8], np.float32), np.array([0, 0, 1], np.int32)
    taken = np.array([0], np.int32)
    assert mmr(relevance, None, codes, 2, 0.0, CategoryLimits(per_category=1), taken) == [2]
    assert mmr(relevance, None, codes, 2, 0.0, CategoryLimits(per_category=2), taken) == [0, 2]


def test_similarity_is_relative_to_the_nearest_neighbor_and_at_least_that_of_a_shared_category() -> None:
    near = np.array([[1, 2], [0, -1], [0, 1], [-1, -1]], np.int32)
    amounts = np.array([[0.4, 0.1], [0.2, 0.0], [0.3, 0.03], [0.0, 0.0]], np.float32)
    places, codes = np.array([0, 2, 3, -1]), np.array([7, 8, 8, 7], np.int32)
    scratch = np.full(5, -1, np.int32)
    alike = similarity(near, amounts, places, codes, scratch)
    assert alike[0, 1] == alike[1, 0] == pytest.approx(1.0)  # 2's nearest is 0; the other way it is a quarter
    assert alike[1, 2] == pytest.approx(SAME_CATEGORY)
    assert alike[0, 3] == pytest.approx(SAME_CATEGORY)
    assert alike[0, 2] == alike[1, 3] == 0
    assert (scratch == -1).all()


def test_relevance_is_scaled_between_the_worst_and_the_best() -> None:
    assert by_relevance(np.array([-3.0, -1.0, -2.0], np.float32)).tolist() == [0.0, 1.0, 0.5]
    assert by_relevance(np.array([5.0, 5.0], np.float32)).tolist() == [1.0, 1.0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(1, 5))
def test_dpp_adds_the_item_that_raises_the_determinant_most(seed: int, m: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(m, 10))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    alike, relevance = (vectors @ vectors.T).astype(np.float64), rng.random(m).astype(np.float32)
    chosen = dpp(relevance, alike, n, 0.4)
    quality = np.exp((1 - 0.4) / (2 * 0.4) * relevance.astype(np.float64))
    kernel = quality[:, None] * alike * quality
    slow: list[int] = []
    for _ in range(min(n, m)):
        rest = [candidate for candidate in range(m) if candidate not in slow]
        values = [np.linalg.det(kernel[np.ix_([*slow, candidate], [*slow, candidate])]) for candidate in rest]
        slow.append(rest[int(np.argmax(values))])
    assert chosen == slow
