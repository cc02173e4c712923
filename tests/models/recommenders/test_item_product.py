"""Products and softmax over the catalogue, against NumPy."""

import threading

import numpy as np
import pytest

from models.data.batch import Batch
from models.data.vocabulary import Vocabulary
from models.recommenders import item_product
from models.recommenders.blend import BUCKETS, Blend
from models.recommenders.ease import EASE
from models.recommenders.item_knn import ItemKNN
from models.recommenders.item_product import Product, softmax
from models.recommenders.personal import Personal
from models.recommenders.top_k import top_k

rng = np.random.default_rng(0)


@pytest.mark.parametrize(("rows", "items", "size"), [(1, 5, 3), (3, 1, 8), (16, 5_003, 64), (7, 100, 1)])
def test_the_product_is_that_of_the_matrices(rows: int, items: int, size: int) -> None:
    vectors = rng.normal(size=(items, size)).astype(np.float32)
    hidden = rng.normal(size=(rows, size)).astype(np.float32)
    product = Product(vectors)
    expected = hidden @ vectors.T
    vectors[:] = np.nan  # it holds its own
    np.testing.assert_allclose(product(hidden), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [16, 48, 64])
def test_a_rough_product_has_the_exact_best_and_the_rest_within_a_hundredth(size: int) -> None:
    vectors = rng.normal(size=(30_001, size)).astype(np.float32) * rng.gamma(2, 1, (30_001, 1)).astype(np.float32)
    vectors[5] = 0
    hidden = rng.normal(size=(3, size)).astype(np.float32)
    exact, product = hidden @ vectors.T, Product(vectors, rough=2)
    scores = product(hidden[:2])
    assert np.ptp(scores - exact[:2]) > 1e-3  # it went through eight bits
    assert np.abs(scores - exact[:2]).max() < 0.02 * np.abs(exact).max()
    (best, values), (exact_best, those) = top_k(scores, 100), top_k(exact[:2], 100)
    np.testing.assert_array_equal(best, exact_best)
    np.testing.assert_allclose(values, those, rtol=1e-5)
    np.testing.assert_allclose(product(hidden), exact, rtol=1e-4, atol=1e-3)  # three are too many for it


def test_a_rough_product_of_a_history_of_nothing_is_zero_and_recomputes_no_item(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All its scores are equal, so that all items would be among the best."""
    product = Product(rng.normal(size=(30_000, 16)).astype(np.float32), rough=2)
    recomputed: list[int] = []
    monkeypatch.setattr(item_product, "candidates", lambda row, k: recomputed.append(k) or np.arange(k))
    hidden = np.stack([np.zeros(16), np.ones(16)]).astype(np.float32)
    scores = product(hidden)
    assert not scores[0].any()
    assert scores[1].any()
    assert recomputed == [item_product.EXACT]


@pytest.mark.parametrize(("items", "size"), [(29_999, 64), (30_000, 40)])
def test_a_small_matrix_and_an_odd_size_are_not_rough(items: int, size: int) -> None:
    assert Product(np.ones((items, size), np.float32), rough=2).rough == 0


def test_vectors_that_are_not_finite_are_not_rough() -> None:
    vectors = np.ones((30_000, 16), np.float32)
    vectors[7, 3] = np.nan
    product = Product(vectors, rough=2)
    assert product.rough == 0
    assert np.isnan(product(np.ones((1, 16), np.float32))[0, 7])


def test_what_pays_is_judged_alike_while_others_work() -> None:
    """Threads that want the interpreter: what is rough has to wait for it more often."""
    vectors = rng.normal(size=(100_000, 64)).astype(np.float32)
    if not Product(vectors).rough:
        pytest.skip("this processor is no quicker in eight bits")
    ended = threading.Event()
    others = [threading.Thread(target=_busy, args=(ended,)) for _ in range(2)]
    for thread in others:
        thread.start()
    try:
        assert Product(vectors).rough > 0
    finally:
        ended.set()
        for thread in others:
            thread.join()


def _busy(ended: threading.Event) -> None:
    while not ended.is_set():
        sum(range(1_000))


def test_a_rough_product_that_is_slower_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_product, "SLOWER", 0.0)
    assert Product(rng.normal(size=(30_000, 16)).astype(np.float32)).rough == 0


def test_a_rough_product_that_is_far_off_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = rng.normal(size=(30_000, 16)).astype(np.float32)
    right = item_product._in_eight_bits
    monkeypatch.setattr(item_product, "SLOWER", 1e9)
    assert Product(vectors).rough == 2
    monkeypatch.setattr(item_product, "_in_eight_bits", lambda these: right(these * np.float32(1.1)))
    assert Product(vectors).rough == 0


def test_a_product_over_no_items_is_empty() -> None:
    assert Product(np.zeros((0, 4), np.float32))(np.ones((2, 4), np.float32)).shape == (2, 0)


def test_softmax_is_the_exponentials_shares_however_large_the_scores() -> None:
    scores = rng.normal(0, 30, (4, 1_001)).astype(np.float32)
    scores[1] += 1e4
    exact = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(softmax(scores), exact / exact.sum(axis=1, keepdims=True), rtol=2e-3, atol=1e-6)
    assert softmax(np.zeros((0, 5), np.float32)).shape == (0, 5)


def counting(
    member: ItemKNN | EASE | Personal, popularity: np.ndarray, negative: bool = False
) -> ItemKNN | EASE | Personal:
    member.vocabulary, member.popularity = Vocabulary.from_items([f"i{n}" for n in range(len(popularity))]), popularity
    if not isinstance(member, Personal):
        member.neighbors = rng.integers(-1, len(popularity), (len(popularity), 6), np.int32)
        member.similarities = rng.random((len(popularity), 6), np.float32) - (0.5 if negative else 0.0)
    return member


@pytest.mark.parametrize("alike", [True, False])
def test_a_blend_is_the_weighed_sum_of_its_members_probabilities(alike: bool) -> None:
    popularity = [rng.random(40).astype(np.float32) for _ in range(3)]
    first, second, third = popularity if not alike else [popularity[0].copy() for _ in range(3)]
    members = [
        counting(Personal(), first),
        counting(ItemKNN(), second),
        counting(EASE(), third, negative=True),
    ]
    blend = Blend(members, rng.dirichlet(np.ones(3), BUCKETS))
    items = rng.integers(0, 41, (9, 12), np.int32)
    items[0] = 0
    batch = Batch(items, (items > 0).astype(np.int32), np.zeros_like(items))
    weights = blend.weights[np.searchsorted((1, 2, 3, 4, 5, 6, 11, 21), batch.lengths, side="right")]
    expected = sum(weights[:, [n]] * member.probabilities(batch) for n, member in enumerate(members))
    np.testing.assert_allclose(blend.score(batch), expected, rtol=1e-4, atol=1e-7)
    assert len({id(member.prior) for member in members}) == (1 if alike else 3)
