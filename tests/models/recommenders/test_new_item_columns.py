"""Columns of new items from texts, by hand; the scorer of the full catalogue."""

import numpy as np
import pytest
from scipy import sparse

from models.data.batch import Batch
from models.data.vocabulary import Vocabulary
from models.recommenders.new_item_columns import (
    content_columns,
    cosine_columns,
    drawn_interactions,
    ease_table,
    expected_popularity,
    inverse_of,
    pseudo_interactions,
    regressed_columns,
    ridge_columns,
    text_row_columns,
)
from models.recommenders.new_item_scorer import ItemTableScorer, NewItemScorer

HALF = np.sqrt(0.5)
TEXTS = sparse.csr_matrix(np.array([[1, 0], [0, 1], [HALF, HALF], [1, 0]], np.float32))
"""Two known items without a common word, a new one with both words, a new one like the first."""
NO_CATEGORY = sparse.csr_matrix((4, 1), dtype=np.float32)
TAKEN = sparse.csr_matrix(np.array([[1, 0], [1, 1], [0, 1], [0, 1]], np.float32))


def test_content_columns_are_cosines_mixed_with_categories() -> None:
    plain = content_columns(TEXTS, NO_CATEGORY, 2, power=1.0, evenness=0.0, category_share=0.0)
    assert plain == pytest.approx(np.array([[HALF, 1], [HALF, 0]]))
    squared = content_columns(TEXTS, NO_CATEGORY, 2, power=2.0, evenness=0.0, category_share=0.0)
    assert squared == pytest.approx(np.array([[0.5, 1], [0.5, 0]]))
    groups = sparse.csr_matrix(np.array([[1, 0], [0, 1], [0, 1], [1, 0]], np.float32))
    mixed = content_columns(TEXTS, groups, 2, power=1.0, evenness=0.0, category_share=0.5)
    assert mixed == pytest.approx(np.array([[HALF / 2, 1], [HALF / 2 + 0.5, 0]]))


def test_evenness_divides_by_what_a_column_has_in_all() -> None:
    columns = content_columns(TEXTS, NO_CATEGORY, 2, power=1.0, evenness=1.0, category_share=0.0)
    assert columns == pytest.approx(np.array([[1, 2], [1, 0]]))


def test_the_most_similar_users_take_a_new_item() -> None:
    pseudo = pseudo_interactions(TAKEN, np.array([[1.0], [0.0]], np.float32), users=1)
    assert pseudo.toarray().ravel() == pytest.approx([0.3, 0, 0, 0])  # 1 against 1/sqrt(2)
    both = pseudo_interactions(TAKEN, np.array([[1.0], [0.0]], np.float32), users=4)
    assert both.toarray().ravel() == pytest.approx([0.3, 0.3, 0, 0])  # users without similar items do not


def test_drawn_interactions_have_the_same_volume() -> None:
    like = pseudo_interactions(TAKEN, np.array([[1.0, 1.0], [0.0, 1.0]], np.float32), users=3)
    drawn = drawn_interactions(TAKEN, like, np.random.default_rng(0))
    assert np.diff(drawn.tocsc().indptr).tolist() == np.diff(like.tocsc().indptr).tolist() == [2, 3]


def test_refits_with_pseudo_interactions() -> None:
    shared = np.array([[0.6], [0.3]], np.float32)
    sizes = np.array([2.0, 3.0], np.float32)
    columns = cosine_columns(shared, sizes, np.array([0.18], np.float32))
    assert columns.ravel() == pytest.approx([0.6 / (0.6 + 1.5), 0.3 / (np.sqrt(3 * 0.18) + 1.5)])
    gram = (TAKEN.T @ TAKEN).toarray()
    inverse = np.linalg.inv(gram + 2 * np.eye(2))
    kept = gram.copy()
    assert inverse_of(gram, 2.0) == pytest.approx(inverse, abs=1e-6)
    assert np.array_equal(gram, kept)
    assert regressed_columns(shared, inverse_of(gram, 2.0)) == pytest.approx(inverse @ shared, abs=1e-6)


def test_ease_of_known_items() -> None:
    gram = (TAKEN.T @ TAKEN).toarray()
    inverse = np.linalg.inv(gram + 2 * np.eye(2))
    expected = -inverse / np.diag(inverse)[None] * (1 - np.eye(2))
    assert ease_table(inverse_of(gram, 2.0)) == pytest.approx(expected, abs=1e-6)


def test_ridge_gives_a_new_item_the_columns_of_similar_ones() -> None:
    table = np.array([[0.0, 0.4], [0.2, 0.0]], np.float32)
    columns = ridge_columns(TEXTS, 2, table, reg=1.0)
    assert columns[:, 1] == pytest.approx(table[:, 0] / 2)  # (1 + reg)^-1 times the column of the first item
    assert columns[:, 0] == pytest.approx((table[:, 0] + table[:, 1]) * HALF / 2)


def test_words_as_users() -> None:
    gram = (TAKEN.T @ TAKEN).toarray().astype(np.float32)
    known, new = TEXTS[:2].toarray(), TEXTS[2:].toarray()
    expected = np.linalg.solve(gram + 4 * known @ known.T + 2 * np.eye(2), 4 * known @ new.T)
    assert text_row_columns(gram, TEXTS, 2, reg=2.0, weight=4.0) == pytest.approx(expected, abs=1e-6)


def test_similar_items_let_expect_similar_popularity() -> None:
    counts = np.array([7, 0], np.int64)
    both, first = expected_popularity(TEXTS, counts, reg=1.0)
    assert first == pytest.approx(2 ** (0.5 * 3 + 0.25 * 3) - 1, rel=1e-5)  # halfway from the mean of logs to log 8
    assert both == pytest.approx(2**1.5 - 1, rel=1e-5)


def test_a_scorer_of_the_full_catalogue_gives_new_items_their_share() -> None:
    vocabulary = Vocabulary.from_items(["a", "b", "x", "y"])
    table = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    base = ItemTableScorer(vocabulary, table, np.zeros(4, np.float32), decay=1.0)
    scorer = NewItemScorer("text", base, np.array([[3.0, 1.0], [0.0, 0.0]], np.float32), decay=1.0, share=0.2)
    items = np.array([[1], [2]], np.int32)
    batch = Batch(items, np.ones_like(items), np.ones_like(items), (1.0,))
    scores = scorer.score(batch)
    assert scores[0] == pytest.approx([0, 0.8, 0.15, 0.05])
    assert scores[1] == pytest.approx([1, 0, 0, 0])  # nothing is known of new items here
