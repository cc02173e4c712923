"""The SVD filter against a dense decomposition of a small matrix, step by step."""

import numpy as np
import pytest

from models.data.batch import batch_histories
from models.data.interactions import Interactions
from models.recommenders.svd_filter import SVDFilter
from testing.interactions import clubs, history

PARAMS = SVDFilter.Params(rank=3, user_power=0.5, item_power=0.7, ridge=1.5, decay=0.5)


@pytest.fixture(scope="module")
def interactions() -> Interactions:
    return Interactions.from_frame(clubs().iloc[:300])


def slow_scores(interactions: Interactions, weights: np.ndarray) -> np.ndarray:
    """The formula of the class over dense float64 matrices."""
    matrix = interactions.user_item_matrix().toarray().astype(np.float64)
    matrix /= matrix.sum(axis=1, keepdims=True) ** 0.25
    lengths = np.linalg.norm(matrix, axis=0)
    _, values, rows = np.linalg.svd(matrix / lengths**0.7, full_matrices=False)
    squares, directions = values[:3] ** 2, rows[:3]
    kept = squares / (squares + 1.5 * squares[2])
    scores: np.ndarray = (weights @ directions.T * kept) @ directions * lengths**0.7
    return scores


def test_scores_are_those_of_the_dense_decomposition(interactions: Interactions) -> None:
    recommender = SVDFilter(PARAMS)
    recommender.fit(interactions)
    index = recommender.vocabulary.index
    batch = batch_histories([history("i1", "i7")], recommender.vocabulary, 50)
    weights = np.zeros(len(index))
    weights[index["i7"]], weights[index["i1"]] = 0.3, 0.15  # views, the older one half as much
    np.testing.assert_allclose(
        recommender.score(batch)[0] - recommender.prior, slow_scores(interactions, weights), atol=1e-4
    )


def test_the_same_seed_gives_the_same_scores(interactions: Interactions) -> None:
    first, second = SVDFilter(PARAMS), SVDFilter(PARAMS)
    for recommender in (first, second):
        recommender.fit(interactions)
    np.testing.assert_array_equal(first.inputs, second.inputs)


def test_items_beyond_the_most_popular_have_the_prior_alone(interactions: Interactions) -> None:
    recommender = SVDFilter(SVDFilter.Params(rank=2, most=8))
    recommender.fit(interactions)
    last = recommender.vocabulary.item_ids[-1]
    batch = batch_histories([history("i1"), history(last), history("i1", last)], recommender.vocabulary, 50)
    scores = recommender.score(batch)
    np.testing.assert_array_equal(scores[:, 8:], np.tile(recommender.prior[8:], (3, 1)))
    np.testing.assert_allclose(scores[1], recommender.prior)
    np.testing.assert_allclose(recommender.probabilities(batch).sum(axis=1), 1, atol=1e-5)
    out, expected = np.zeros_like(scores), 0.5 * recommender.probabilities(batch)
    recommender.add(out, batch, np.full(3, 0.5, np.float32))
    np.testing.assert_allclose(out, expected, atol=1e-6)


def test_arrays_that_do_not_fit_are_refused(interactions: Interactions) -> None:
    recommender = SVDFilter(PARAMS)
    recommender.fit(interactions)
    arrays = recommender.arrays()
    with pytest.raises(ValueError, match="do not fit 12 items"):
        recommender.restore({**arrays, "inputs": arrays["inputs"][:-1]})
