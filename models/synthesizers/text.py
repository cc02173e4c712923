"""Synthetic users from what items say: for shops with few events, and items without any."""

from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta
from scipy import sparse

from models.arrays import Float32, Float64, Int32, Int64
from models.data.interactions import Interactions
from models.recommenders.item_item import nearest_by_product
from models.synthesizers.chain import Chain, Link, row_stochastic, shares
from models.synthesizers.histories import Histories
from models.synthesizers.item_chain import ItemChain, item_positions
from models.synthesizers.markov import category_counts, observed_pairs, transition_counts
from models.synthesizers.text_index import TextIndex
from models.synthesizers.walk import neighbor_matrix

BOUNDS: Final = (1, 3, 8, 20, 50)
"""Bounds of the buckets by how many other transitions an item has: each bucket has weights of its own."""
ROUNDS: Final = 50
"""Rounds of expectation maximization."""
FOLLOWING: Final = 32
"""Only this many most frequent categories after each count, which bounds memory."""
PRIOR: Final = 10.0
"""Transitions by which a bucket's weights are drawn towards those of all."""


class Text(ItemChain):
    """P(j | i) = l1 n(i, j) / n(i) + l2 C(j | c(i)) + l3 S(j | i) + l4 P0(j): transitions, transitions between
    categories, similar titles, popularity.

    C goes from the category of i to another by counts, and to an item within it by popularity. S is proportional to the
    cosine of titles (words and bigrams, TF-IDF) times the root of popularity, over the `neighbors` most similar items.
    P0 adds `smoothing` to every count, so items without events have a share. The weights come from deleted
    interpolation (Jelinek and Mercer 1980, by expectation maximization), for buckets of items by how often they were
    followed: an item without events has the weights of those whose only transition is left out, and reads its title and
    category alone. Backward, transitions are reversed.
    """

    name = "text"

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """Parameters of the formula above; `window`, `decay`: see `Markov`."""

        neighbors: Annotated[int, Meta(ge=1)] = 64
        smoothing: Annotated[float, Meta(gt=0)] = 0.5
        window: Annotated[int, Meta(ge=1, le=50)] = 5
        decay: Annotated[float, Meta(gt=0, le=1)] = 0.7

    def chains(self, interactions: Interactions) -> tuple[Chain, Chain]:
        params, size = self.params, len(interactions.vocabulary)
        histories = Histories.from_interactions(interactions)
        counts = transition_counts(histories, size, params.window, params.decay)
        popularity = shares(np.bincount(histories.items, minlength=size) + params.smoothing)
        first = histories.items[item_positions(histories) < 1]
        beginnings = shares(np.bincount(first, minlength=size) + params.smoothing)
        similar = similar_titles(self.preferences.texts, popularity, params.neighbors)
        forward = interpolated_chain(counts, interactions.categories, similar, popularity, beginnings)
        backward = interpolated_chain(counts.T.tocsr(), interactions.categories, similar, popularity, popularity)
        return forward, backward


def interpolated_chain(
    counts: sparse.csr_matrix,
    categories: Int32,
    similar: sparse.csr_matrix,
    popularity: Float32,
    start: Float32,
) -> Chain:
    """The chain of `Text`: `counts` of transitions and `similar` [items, items], `categories` int32 [items]."""
    items = np.arange(len(popularity), dtype=np.int32)
    parts = [
        (items, row_stochastic(counts)),
        (categories, between_categories(counts, categories, popularity)),
        (items, similar),
        (np.zeros_like(items), sparse.csr_matrix(popularity)),
    ]
    pairs = observed_pairs(counts)
    deleted = np.minimum(pairs.counts, 1.0)
    left = pairs.totals - deleted
    observed = [
        np.where(left > 0, (pairs.counts - deleted) / np.maximum(left, 1e-9), 0.0),
        *(np.asarray(matrix[rows[pairs.sources], pairs.targets], np.float64).ravel() for rows, matrix in parts[1:]),
    ]
    usable = np.array([np.diff(matrix.indptr)[rows] > 0 for rows, matrix in parts])
    table = deleted_weights(np.array(observed), np.digitize(left, BOUNDS), pairs.counts)
    buckets = np.digitize(np.asarray(counts.sum(axis=1)).ravel(), BOUNDS)
    weights = np.where(usable, table[buckets].T, 0.0)
    weights[-1] += 1e-6  # an item without any other part follows popularity
    weights = (weights / weights.sum(axis=0)).astype(np.float32)
    return Chain([Link(weights[number], *part) for number, part in enumerate(parts)], start)


def deleted_weights(observed: Float64, buckets: Int64, amounts: Float64) -> Float64:
    """float64 [buckets, parts]: the weights that make transitions most likely, `amounts` float64 [n] of each.

    `observed` float64 [parts, n]: each part's probability of a transition without itself; `buckets` int64 [n].
    """
    parts = len(observed)
    overall = _maximized(observed, amounts, np.full(parts, 1.0 / parts))
    table = np.tile(overall, (len(BOUNDS) + 1, 1))
    for bucket in range(len(BOUNDS) + 1):
        kept = buckets == bucket
        if kept.any():
            table[bucket] = _maximized(observed[:, kept], amounts[kept], overall)
    return table


def _maximized(observed: Float64, amounts: Float64, prior: Float64) -> Float64:
    weights = prior.copy()
    for _ in range(ROUNDS):
        joint = weights[:, None] * observed
        posterior = joint / np.maximum(joint.sum(axis=0), 1e-30)
        counts = posterior @ amounts + PRIOR * prior
        weights = counts / counts.sum()
    return weights


def between_categories(counts: sparse.csr_matrix, categories: Int32, popularity: Float32) -> sparse.csr_matrix:
    """float32 [categories + 1, items]: P(c' | c) P0(j) / P0(c') over the FOLLOWING most frequent c'.

    Rows sum to one; row 0 (no category) is empty.
    """
    groups = int(categories.max(initial=0)) + 1
    items = np.arange(len(categories))
    members = sparse.csr_matrix((np.ones(len(items), np.float32), (categories, items)), (groups, len(items)))
    table = (category_counts(counts, categories) @ members.T).toarray()
    table[0], table[:, 0] = 0.0, 0.0
    if groups > FOLLOWING:
        table[table < np.partition(table, -FOLLOWING, axis=1)[:, -FOLLOWING, None]] = 0.0
    masses = np.maximum(members @ popularity, 1e-30)
    shared = sparse.csr_matrix(table / masses)
    return row_stochastic((shared @ members @ sparse.diags(popularity)).tocsr())


def similar_titles(texts: TextIndex | None, popularity: Float32, neighbors: int) -> sparse.csr_matrix:
    """float32 [items, items]: the most similar titles of each, by cosine times the root of popularity; rows sum to one.

    Empty where there are no texts.
    """
    size = len(popularity)
    if texts is None:
        return sparse.csr_matrix(([], ([], [])), (size, size), np.float32)
    matrix, root = texts.matrix, np.sqrt(popularity)
    nearest = nearest_by_product(matrix, matrix.T.tocsr(), neighbors, lambda _, others, cosines: cosines * root[others])
    return neighbor_matrix(*nearest)


class PseudoUsers(msgspec.Struct, frozen=True):
    """Users that stand for what items have in common: `names` of words, bigrams and categories, and their items.

    `matrix` float32 [users, items]: rows of length 1, weighted by how much a word says of an item.
    """

    names: list[str]
    matrix: sparse.csr_matrix


def pseudo_users(interactions: Interactions, min_items: int = 2) -> PseudoUsers:
    """A user for each word, bigram and category of at least `min_items` items: rows to add to a matrix of users."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    names: list[str] = []
    rows: list[sparse.csr_matrix] = []
    if interactions.titles and any(interactions.titles):
        words = TfidfVectorizer(ngram_range=(1, 2), min_df=min_items, sublinear_tf=True, dtype=np.float32)
        rows.append(normalize(words.fit_transform(interactions.titles).T.tocsr()))
        names += words.get_feature_names_out().tolist()
    categories = interactions.categories
    counts = np.bincount(categories)
    for code in np.flatnonzero(counts >= min_items).tolist():
        if code:
            row = (categories == code).astype(np.float32) / np.float32(np.sqrt(counts[code]))
            rows.append(sparse.csr_matrix(row))
            names.append(f"category {interactions.category_names[code - 1]}")
    empty = sparse.csr_matrix(([], ([], [])), (0, len(interactions.vocabulary)), np.float32)
    return PseudoUsers(names, sparse.vstack([empty, *rows]).tocsr())
