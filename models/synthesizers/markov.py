"""A Markov chain over items, forward and backward, with back-off to categories and popularity."""

from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta
from scipy import sparse

from models.arrays import Float32, Float64, Int32, Int64
from models.data.interactions import Interactions
from models.synthesizers.chain import Chain, backing_off, row_stochastic, shares
from models.synthesizers.histories import Histories
from models.synthesizers.item_chain import ItemChain, item_positions

STRENGTHS: Final[Float64] = np.geomspace(0.25, 1_000.0, 25)
"""Back-off strengths among which the deleted estimate is the most likely."""
PAIRS: Final = 4_000_000
"""Distinct transitions that estimate a strength, at most."""


class Markov(ItemChain):
    """P(j | i) = (n(i, j) + b C(j | i)) / (n(i) + b), C(j | i) = (n(c(i), j) + a P0(j)) / (n(c(i)) + a).

    n(i, j) counts transitions, n(c, j) those from any item of category c to j, P0 popularity with `smoothing` added to
    every count (hierarchical Dirichlet smoothing: MacKay and Peto 1995). Transitions over up to `window` events count
    `decay` times less with every event between them. Backward, the counts are transposed. The strengths b and a are
    `back_off` and `category_back_off`, or by deleted estimation (Jelinek and Mercer 1980): those that make the observed
    transitions most likely, each left out of its own count. Several steps ahead the distribution is a power of the
    transition matrix: no sampling.
    """

    name = "markov"

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """Parameters of the formula above. `first_events`: popularity at the start counts users' first events only."""

        back_off: Annotated[float, Meta(gt=0)] | None = None
        category_back_off: Annotated[float, Meta(gt=0)] | None = None
        smoothing: Annotated[float, Meta(ge=0)] = 0.1
        window: Annotated[int, Meta(ge=1, le=50)] = 1
        decay: Annotated[float, Meta(gt=0, le=1)] = 0.5
        first_events: Annotated[int, Meta(ge=1)] = 3

    def chains(self, interactions: Interactions) -> tuple[Chain, Chain]:
        params, size = self.params, len(interactions.vocabulary)
        histories = Histories.from_interactions(interactions)
        counts = transition_counts(histories, size, params.window, params.decay)
        popularity = shares(np.bincount(histories.items, minlength=size) + params.smoothing)
        first = histories.items[item_positions(histories) < params.first_events]
        beginnings = shares(np.bincount(first, minlength=size) + params.smoothing)
        forward = self._chain(counts, interactions.categories, popularity, beginnings)
        return forward, self._chain(counts.T.tocsr(), interactions.categories, popularity, popularity)

    def _chain(self, counts: sparse.csr_matrix, categories: Int32, popularity: Float32, start: Float32) -> Chain:
        items = np.arange(len(popularity), dtype=np.int32)
        table = category_counts(counts, categories)
        pairs = observed_pairs(counts)
        lower = popularity[pairs.targets].astype(np.float64)
        levels = []
        if table.shape[0] > 1:
            grouped = pairs.of(table, categories)
            strength = self.params.category_back_off or deleted_strength(grouped, lower)
            share = certainty(table, strength)[categories]
            levels.append((np.where(categories > 0, share, 0.0).astype(np.float32), categories, row_stochastic(table)))
            lower = np.where(categories[pairs.sources] > 0, grouped.interpolated(lower, strength), lower)
        strength = self.params.back_off or deleted_strength(pairs, lower)
        levels.insert(0, (certainty(counts, strength), items, row_stochastic(counts)))
        return Chain(backing_off(levels, popularity), start)


class ObservedPairs(msgspec.Struct, frozen=True):
    """Transitions from `sources` to `targets`, int64 [n] each: `counts` of each, of `totals` from its source, and the
    `weights` of each in a likelihood, float64 [n]."""

    sources: Int64
    targets: Int64
    counts: Float64
    totals: Float64
    weights: Float64

    def of(self, table: sparse.csr_matrix, rows: Int32) -> "ObservedPairs":
        """The same transitions counted in a `table` [groups, items] whose rows stand for groups `rows` of items."""
        groups = rows[self.sources]
        counts = np.asarray(table[groups, self.targets], np.float64).ravel()
        totals = np.asarray(table.sum(axis=1), np.float64).ravel()[groups]
        return msgspec.structs.replace(self, counts=counts, totals=totals)

    def interpolated(self, lower: Float64, strength: float) -> Float64:
        """float64 [n]: the probability of each transition without itself, backing off to `lower` float64 [n]."""
        deleted = np.minimum(self.counts, 1.0)
        shares: Float64 = (self.counts - deleted + strength * lower) / (self.totals - deleted + strength)
        return shares


def observed_pairs(counts: sparse.csr_matrix) -> ObservedPairs:
    """The transitions of a matrix of counts [items, items], an even sample of at most PAIRS."""
    table = counts.tocoo()
    kept = np.arange(0, table.nnz, max(1, -(-table.nnz // PAIRS)))
    sources, amounts = table.row[kept].astype(np.int64), table.data[kept].astype(np.float64)
    totals = np.asarray(counts.sum(axis=1), np.float64).ravel()[sources]
    return ObservedPairs(sources, table.col[kept].astype(np.int64), amounts, totals, amounts)


def deleted_strength(pairs: ObservedPairs, lower: Float64) -> float:
    """The strength of STRENGTHS that makes the transitions most likely, each left out of its own count."""
    if not len(pairs.counts):
        return float(STRENGTHS[-1])
    likelihoods = [
        float(pairs.weights @ np.log(np.maximum(pairs.interpolated(lower, strength), 1e-12)))
        for strength in STRENGTHS.tolist()
    ]
    return float(STRENGTHS[int(np.argmax(likelihoods))])


def certainty(counts: sparse.csr_matrix, strength: float) -> Float32:
    """float32 [rows]: n / (n + strength) with n the sum of each row."""
    sums = np.asarray(counts.sum(axis=1), np.float64).ravel()
    shares: Float32 = (sums / (sums + strength)).astype(np.float32)
    return shares


def category_counts(counts: sparse.csr_matrix, categories: Int32) -> sparse.csr_matrix:
    """float32 [categories + 1, items]: transitions from any item of a category; row 0: from items without one."""
    groups = int(categories.max(initial=0)) + 1
    items = np.arange(len(categories))
    members = sparse.csr_matrix((np.ones(len(items), np.float32), (categories, items)), (groups, len(items)))
    table: sparse.csr_matrix = (members @ counts).tocsr()
    return table


def transition_counts(histories: Histories, items: int, window: int = 1, decay: float = 0.5) -> sparse.csr_matrix:
    """float32 [items, items]: how often an item follows another, `decay` times less for every event between them."""
    users = histories.users
    sources, targets, amounts = [], [], []
    for distance in range(1, window + 1):
        same = users[distance:] == users[:-distance]
        sources.append(histories.items[:-distance][same])
        targets.append(histories.items[distance:][same])
        amounts.append(np.full(int(same.sum()), decay ** (distance - 1), np.float32))
    pairs = (np.concatenate(sources), np.concatenate(targets))
    counts: sparse.csr_matrix = sparse.csr_matrix((np.concatenate(amounts), pairs), (items, items))
    counts.sort_indices()
    return counts
