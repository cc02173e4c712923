"""Exact top k, against a full sort."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.recommenders.top_k import top_k


def slow(row: np.ndarray, k: int) -> list[int]:
    order = sorted(range(len(row)), key=lambda item: (-row[item], item))
    return [item for item in order if row[item] > -np.inf][:k]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 200, 5_000]), st.integers(1, 30), st.sampled_from([3, 10_000]))
def test_it_is_the_full_sort(seed: int, items: int, k: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (3, items)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.1] = -np.inf
    indices, best = top_k(scores, k)
    for row in range(3):
        expected = slow(scores[row], k)
        assert indices[row].tolist() == expected + [-1] * (k - len(expected))
        assert best[row, : len(expected)].tolist() == scores[row, expected].tolist()


def test_nothing_to_choose_from() -> None:
    indices, best = top_k(np.full((1, 300), -np.inf, np.float32), 2)
    assert indices.tolist() == [[-1, -1]]
    assert best.tolist() == [[-np.inf, -np.inf]]
