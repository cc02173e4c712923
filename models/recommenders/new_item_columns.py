"""What a history of known items says of items without events, from texts and categories: one column for each new item.

Every function returns float32 [known items, new items]: what an event of the row's item adds to the column's score.
"""

from typing import Final

import msgspec
import numpy as np
from scipy import sparse
from scipy.linalg import lapack

from models.arrays import Float32, Int32, Int64
from models.data.interactions import Interactions
from models.recommenders.cold_items import ColdItemInitializer

PSEUDO_USERS: Final = 20
"""So many users take a new item."""
PSEUDO_WEIGHT: Final = 0.3
"""How much such an event counts against a real one."""
SHRINK: Final = 5.0
MOST_TITLES: Final = 0.1
"""Letter groups of more titles are left out: they would relate every item to every other."""
FEWEST_TITLES: Final = 100


class ContentFeatures(msgspec.Struct, frozen=True):
    """TF-IDF of words and of letter groups, and the category of each item: sparse float32 [items, columns], rows of
    length 1, or empty. `codes` int32 [items]: categories, 0 for none; `vectors` float32 [items, size]: see
    `models.data.text_vectors`, or None."""

    words: sparse.csr_matrix
    letters: sparse.csr_matrix
    categories: sparse.csr_matrix
    codes: Int32
    vectors: Float32 | None

    @classmethod
    def fit(cls, interactions: Interactions) -> "ContentFeatures":
        """From titles and categories alone."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        size, codes = len(interactions.vocabulary), interactions.categories
        titles = list(interactions.titles or [""] * size)
        rare = max(MOST_TITLES, FEWEST_TITLES / max(1, size))
        coded = np.flatnonzero(codes)
        shape = (size, int(codes.max(initial=0)) + 1)
        return cls(
            _tfidf(TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)), titles),
            _tfidf(
                TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(3, 5), max_df=min(1.0, rare)),
                titles,
            ),
            sparse.csr_matrix((np.ones(len(coded), np.float32), (coded, codes[coded])), shape),
            codes,
            interactions.texts,
        )

    def permuted(self, order: Int64) -> "ContentFeatures":
        """The same with the texts and categories of other items: item i has those of item `order[i]`."""
        vectors = self.vectors[order] if self.vectors is not None else None
        return ContentFeatures(
            self.words[order], self.letters[order], self.categories[order], self.codes[order], vectors
        )

    def combined(self, category_share: float = 0.2) -> sparse.csr_matrix:
        """Words, letter groups and category in one row of length 1."""
        text = np.sqrt((1 - category_share) / 2)
        parts = [text * self.words, text * self.letters, np.sqrt(category_share) * self.categories]
        return _unit_rows(sparse.hstack(parts).tocsr().astype(np.float32))


def content_columns(
    features: sparse.csr_matrix,
    categories: sparse.csr_matrix,
    known: int,
    *,
    power: float,
    evenness: float,
    category_share: float,
) -> Float32:
    """Content-kNN: ((1 - share) cosine + share same category)^power, over the column's mean to the power `evenness`."""
    columns = (1 - category_share) * _products(features, known)
    if category_share:
        columns += category_share * _products(categories, known)
    if power != 1:
        np.power(np.maximum(columns, 0.0), power, out=columns)
    if evenness:
        means = columns.mean(axis=0)
        columns /= np.maximum(means, means.mean() * 1e-3 + 1e-12) ** evenness
    return columns.astype(np.float32)


def borrowed_columns(features: ContentFeatures, known: int, table: Float32) -> Float32:
    """The mean of the columns of similar known items in `table` float32 [known, known]: `ColdItemInitializer`."""
    initializer = ColdItemInitializer.fit(known, features.codes, features.vectors)
    columns: Float32 = np.ascontiguousarray(initializer.initialize(table.T).T)
    return columns


def pseudo_interactions(
    matrix: sparse.csr_matrix, similarities: Float32, users: int = PSEUDO_USERS
) -> sparse.csr_matrix:
    """float32 [users, new items]: `PSEUDO_WEIGHT` at the users whose items are the most similar to the new item.

    `matrix` [users, known items]: who took what; a user's score is the sum of similarities over the root of the number
    of items that the user took.
    """
    sizes = np.sqrt(np.maximum(np.diff(matrix.indptr), 1)).astype(np.float32)
    scores = (sparse.diags(1 / sizes) @ matrix).astype(np.float32) @ similarities
    count = min(users, len(scores))
    best = np.argpartition(-scores, count - 1, axis=0)[:count]
    positive = np.take_along_axis(scores, best, axis=0) > 0
    columns = np.broadcast_to(np.arange(scores.shape[1]), best.shape)
    rows, places = best[positive], columns[positive]
    weights = np.full(len(rows), PSEUDO_WEIGHT, np.float32)
    return sparse.csr_matrix((weights, (rows, places)), (matrix.shape[0], similarities.shape[1]))


def drawn_interactions(
    matrix: sparse.csr_matrix, like: sparse.csr_matrix, rng: np.random.Generator
) -> sparse.csr_matrix:
    """As many events for each new item as `like` has, by users drawn by how much they took."""
    sizes = np.diff(matrix.indptr).astype(np.float64)
    counts = np.diff(like.tocsc().indptr)
    drawn = [rng.choice(len(sizes), count, replace=False, p=sizes / sizes.sum()) for count in counts.tolist()]
    rows = np.concatenate([*drawn, np.zeros(0, np.int64)]).astype(np.int64)
    weights = np.full(len(rows), PSEUDO_WEIGHT, np.float32)
    return sparse.csr_matrix((weights, (rows, np.repeat(np.arange(len(counts)), counts))), like.shape)


def cosine_columns(shared: Float32, known_sizes: Float32, new_sizes: Float32) -> Float32:
    """Item-kNN of real and pseudo-interactions: `shared` float32 [known, new] users over the root of both items' sizes
    float32 [known], [new] plus `SHRINK` pseudo-interactions."""
    roots = np.sqrt(known_sizes)[:, None] * np.sqrt(new_sizes)[None]
    columns: Float32 = (shared / (roots + PSEUDO_WEIGHT * SHRINK)).astype(np.float32)
    return columns


def regressed_columns(shared: Float32, inverse: Float32) -> Float32:
    """EASE of real and pseudo-interactions: P X'Y, the ridge regression of a new item on the known ones.

    `shared` X'Y float32 [known, new]; `inverse` P float32 [known, known] = (X'X + reg I)^-1 (Steck, WWW 2019, eq. 8,
    for a column whose item is in no history).
    """
    columns: Float32 = inverse @ shared
    return columns


def ridge_columns(features: sparse.csr_matrix, known: int, table: Float32, reg: float) -> Float32:
    """Kernel ridge regression from texts to the columns of `table` float32 [known, known] (Saunders et al., ICML 1998).

    B (K + reg I)^-1 k, K the products of the known items' `features`, k those with the new items'.
    """
    kernel = np.asfortranarray((features[:known] @ features[:known].T).toarray(), np.float32)
    kernel[np.diag_indices(known)] += np.float32(reg)
    columns: Float32 = table @ _solved(kernel, _products(features, known))
    return columns


def text_row_columns(gram: Float32, features: sparse.csr_matrix, known: int, *, reg: float, weight: float) -> Float32:
    """EASE on [X; weight F']: words as further users, who took the items that they occur in.

    `gram` float32 [known, known]: X'X. A new item has these users alone.
    """
    both = np.asfortranarray(gram + weight * (features[:known] @ features[:known].T).toarray(), np.float32)
    both[np.diag_indices(known)] += np.float32(reg)
    return _solved(both, weight * _products(features, known))


def expected_popularity(features: sparse.csr_matrix, counts: Int64, reg: float = 2.0) -> Float32:
    """float32 [new items]: the users that a new item can expect, by kernel ridge regression of log(1 + count).

    `counts` int64 [known]: users of each known item; `features` sparse [items, columns], rows of length 1.
    """
    known = len(counts)
    logs = np.log1p(counts).astype(np.float32)
    kernel = np.asfortranarray((features[:known] @ features[:known].T).toarray(), np.float32)
    kernel[np.diag_indices(known)] += np.float32(reg)
    solution = _solved(kernel, (logs - logs.mean())[:, None])
    expected: Float32 = np.expm1(
        np.maximum(logs.mean() + (features[known:] @ (features[:known].T @ solution)).ravel(), 0.0)
    )
    return expected


def inverse_of(gram: Float32, reg: float) -> Float32:
    """(gram + reg I)^-1 for a symmetric gram float32 [n, n]."""
    regular = np.array(gram, np.float32, order="F")
    regular[np.diag_indices(len(gram))] += np.float32(reg)
    factor = _factor(regular)
    inverse, _ = lapack.spotri(factor, lower=1, overwrite_c=1)
    lower: Float32 = np.tril(inverse)
    lower += np.tril(inverse, -1).T
    return lower


def ease_table(inverse: Float32) -> Float32:
    """float32 [known, known]: EASE's weights B from P; what an event of the row's item adds to the column's."""
    table: Float32 = inverse / -np.diag(inverse)[None]
    table[np.diag_indices(len(table))] = 0.0
    return table


def _products(features: sparse.csr_matrix, known: int) -> Float32:
    products: Float32 = (features[:known] @ features[known:].T).toarray().astype(np.float32)
    return products


def _solved(matrix: Float32, right: Float32) -> Float32:
    solution, _ = lapack.spotrs(_factor(matrix), np.asfortranarray(right, np.float32), lower=1, overwrite_b=1)
    columns: Float32 = np.ascontiguousarray(solution)
    return columns


def _factor(matrix: Float32) -> Float32:
    factor, failed = lapack.spotrf(matrix, lower=1, overwrite_a=1, clean=0)
    if failed:
        raise ValueError(f"the item matrix is not positive definite (LAPACK spotrf: {failed}); give a larger reg")
    lower: Float32 = factor
    return lower


def _tfidf(vectorizer: object, titles: list[str]) -> sparse.csr_matrix:
    try:
        table: sparse.csr_matrix = vectorizer.fit_transform(titles).tocsr().astype(np.float32)  # type: ignore[attr-defined]
    except ValueError:  # no title has a word
        table = sparse.csr_matrix(np.zeros((len(titles), 1), np.float32))
    return table


def _unit_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    lengths = np.sqrt(np.asarray(matrix.power(2).sum(axis=1)).ravel())
    scaled: sparse.csr_matrix = (sparse.diags(1 / np.maximum(lengths, 1e-12)) @ matrix).tocsr().astype(np.float32)
    return scaled
