"""How closely synthetic histories resemble real ones: distributions, sequences, variety. No model, only counts.

A figure says little alone: two halves of the real users differ too. So each is compared with its ceiling, the same
figure between two halves of the real data (`compare` for both).
"""

from typing import Final

import msgspec
import numpy as np
from scipy import sparse
from scipy.spatial.distance import cdist

from models.arrays import AnyArray, Bool, Float32, Float64, Int32, Int64
from models.data.interactions import Interactions
from models.synthesizers.details import gap_classes
from models.synthesizers.histories import Histories

HOUR_MS: Final = 3_600_000
VALUE_BINS: Final = 20
LONGEST: Final = 64
"""Histories of more events count as one length."""
HEAD_SHARE: Final = 0.2
"""The tail are the items outside this share of the most popular ones."""
LAGS: Final = (1, 2, 3, 5, 8)
"""Distances at which items of one history are compared for long-range structure."""
GROUPS: Final = 64
"""Item groups for mutual information, where categories are missing or more."""
DIRECTIONS: Final = 32
NEAREST: Final = 5
MOST_COMPARED: Final = 2_000
"""Users that enter precision and recall, which compare every pair."""


class Reference(msgspec.Struct, frozen=True):
    """What fidelity is measured with, from the real training data.

    Per item: `tail` bool [items], `groups` int32 [items] (categories, or the nearest direction of co-occurrence),
    `vectors` float32 [items, size]. `value_edges` float64: bins of values.
    """

    tail: Bool
    groups: Int32
    vectors: Float32
    value_edges: Float64

    @classmethod
    def fit(cls, interactions: Interactions, seed: int = 0) -> "Reference":
        """From the interactions that synthesizers learn from."""
        counts = np.bincount(interactions.items, minlength=len(interactions.vocabulary))
        tail = np.ones(len(counts), np.bool_)
        tail[np.argsort(-counts, kind="stable")[: max(1, round(HEAD_SHARE * len(counts)))]] = False
        vectors = item_directions(interactions, seed)
        values = interactions.values
        known = values[~np.isnan(values)] if values is not None else np.zeros(0)
        edges = np.unique(np.quantile(known, np.linspace(0, 1, VALUE_BINS + 1)[1:-1])) if len(known) else np.zeros(0)
        return cls(tail, item_groups(interactions, vectors), vectors, edges.astype(np.float64))


class Distribution(msgspec.Struct, frozen=True):
    """`outcomes` int64 [n], ascending, and the share of each, float64 [n]."""

    outcomes: Int64
    shares: Float64


class Statistics(msgspec.Struct, frozen=True):
    """What histories look like: distributions and single figures, by name."""

    distributions: dict[str, Distribution]
    figures: dict[str, float]


def compare(real: Histories, other: Histories, reference: Reference) -> dict[str, float]:
    """Similarity of two sets of histories by aspect, 1 for the same.

    For distributions 1 - total variation distance: items, pairs within a user, transitions, transitions between groups,
    lengths, gaps, hours, weekdays, kinds, values, sessions. For single figures the smaller over the larger: repeat
    rate, coverage, tail share, distinct sequences, mutual information by lag. `precision` and `recall` of the
    distributions (Kynkaanniemi et al., NeurIPS 2019) are shares of users.
    """
    left, right = statistics_of(real, reference), statistics_of(other, reference)
    similar = {name: overlap(left.distributions[name], right.distributions[name]) for name in left.distributions}
    ratios = {name: ratio(value, right.figures[name]) for name, value in left.figures.items()}
    first = [part.take(np.arange(min(len(part), MOST_COMPARED))) for part in (real, other)]
    precision, recall = precision_recall(*(mean_vectors(part, reference) for part in first))
    return {**similar, **ratios, "precision": precision, "recall": recall}


def statistics_of(histories: Histories, reference: Reference) -> Statistics:
    """The distributions and figures of histories."""
    items, groups = len(reference.tail), int(reference.groups.max(initial=0)) + 1
    first, second = _pairs(histories, 1)
    gaps = histories.at[second] - histories.at[first]
    left, right = histories.items[first], histories.items[second]
    values = histories.values[~np.isnan(histories.values)]
    hours = histories.at // HOUR_MS
    sessions = np.bincount(histories.users, _session_starts(histories), minlength=len(histories)).astype(np.int64)
    distributions = {
        "items": counted(histories.items),
        "pairs": _co_occurrences(histories, items),
        "transitions": counted(left.astype(np.int64) * items + right),
        "group-transitions": counted(reference.groups[left] * np.int64(groups) + reference.groups[right]),
        "lengths": counted(np.minimum(histories.lengths, LONGEST)),
        "gaps": counted(gap_classes(gaps)),
        "hours": counted(hours % 24),
        "weekdays": counted((hours // 24 + 3) % 7),
        "kinds": counted(histories.kinds),
        "sessions": counted(np.minimum(sessions, LONGEST)),
        **({"values": counted(np.searchsorted(reference.value_edges, values))} if len(values) else {}),
    }
    return Statistics(distributions, _figures(histories, reference))


def _figures(histories: Histories, reference: Reference) -> dict[str, float]:
    total = max(1, len(histories.items))
    repeats = 1 - len(np.unique(histories.users * np.int64(len(reference.tail)) + histories.items)) / total
    sequences = {
        histories.items[start:stop].tobytes()
        for start, stop in zip(histories.starts[:-1], histories.starts[1:], strict=True)
    }
    information = {f"information-lag-{lag}": mutual_information(histories, reference.groups, lag) for lag in LAGS}
    return {
        "repeat-rate": repeats,
        "coverage": len(np.unique(histories.items)) / max(1, len(reference.tail)),
        "tail-share": float(reference.tail[histories.items].mean()) if len(histories.items) else 0.0,
        "distinct-sequences": len(sequences) / max(1, len(histories)),
        **information,
    }


def overlap(left: Distribution, right: Distribution) -> float:
    """1 - the total variation distance; 0 where one of them has no outcome, 1 where neither has."""
    if not (len(left.outcomes) and len(right.outcomes)):
        return float(len(left.outcomes) == len(right.outcomes))
    _, ours, theirs = np.intersect1d(left.outcomes, right.outcomes, assume_unique=True, return_indices=True)
    return float(np.minimum(left.shares[ours], right.shares[theirs]).sum())


def ratio(left: float, right: float) -> float:
    """The smaller over the larger of two figures that are not negative; 1 where both are about zero.

    >>> ratio(0.2, 0.1)
    0.5
    """
    small, large = sorted((max(left, 0.0), max(right, 0.0)))
    return 1.0 if large < 1e-9 else small / large


def mutual_information(histories: Histories, groups: Int32, lag: int) -> float:
    """Mutual information (nats) of the groups of two items `lag` events apart in one history, corrected for its bias.

    The bias of each plug-in entropy is taken as (outcomes that were seen - 1) / 2n (Miller, 1955).
    """
    first, second = _pairs(histories, lag)
    size = int(groups.max(initial=0)) + 1
    table = np.zeros((size, size))
    np.add.at(table, (groups[histories.items[first]], groups[histories.items[second]]), 1.0)
    total = table.sum()
    if not total:
        return 0.0
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    expected = np.outer(rows, columns) / total
    some = table > 0
    information = float((table[some] * np.log(table[some] / expected[some])).sum() / total)
    bias = (some.sum() - (rows > 0).sum() - (columns > 0).sum() + 1) / (2 * total)
    return max(0.0, information - float(bias))


def precision_recall(real: Float32, other: Float32) -> tuple[float, float]:
    """Shares of `other` that lie among `real` users, and of `real` that lie among the `other`, from user vectors.

    A point lies among others where it is nearer to one of them than that one's NEAREST-th neighbor (Kynkaanniemi et
    al., NeurIPS 2019).
    """
    from sklearn.neighbors import NearestNeighbors

    def covered(points: Float32, among: Float32) -> float:
        if not len(points) or len(among) <= NEAREST:
            return 0.0
        radii = NearestNeighbors(n_neighbors=NEAREST + 1).fit(among).kneighbors(among)[0][:, -1]
        return float((cdist(points, among) <= radii + 1e-6).any(axis=1).mean())

    return covered(other, real), covered(real, other)


def mean_vectors(histories: Histories, reference: Reference) -> Float32:
    """float32 [users, size]: the mean of the vectors of each user's items."""
    ones = np.ones(len(histories.items), np.float32)
    table = sparse.csr_matrix((ones, histories.items, histories.starts), (len(histories), len(reference.tail)))
    return np.asarray((table @ reference.vectors) / np.maximum(histories.lengths, 1)[:, None], np.float32)


def item_directions(interactions: Interactions, seed: int = 0) -> Float32:
    """float32 [items, size]: items by who took them, from a truncated SVD of the interaction matrix, length 1."""
    from sklearn.utils.extmath import randomized_svd

    matrix = interactions.user_item_matrix()
    size = min(DIRECTIONS, min(matrix.shape) - 1)
    if size < 1:
        return np.ones((matrix.shape[1], 1), np.float32)
    _, weights, right = randomized_svd(matrix, size, random_state=seed)
    vectors = right.T * weights
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9), np.float32)


def item_groups(interactions: Interactions, vectors: Float32) -> Int32:
    """int32 [items]: categories from 0, if there are 2 to GROUPS of them, else clusters of `vectors`."""
    if 2 <= len(np.unique(interactions.categories)) <= GROUPS:
        return interactions.categories
    from sklearn.cluster import MiniBatchKMeans

    clusters = min(GROUPS, len(np.unique(vectors, axis=0)))
    groups: Int32 = MiniBatchKMeans(clusters, random_state=0, n_init=3).fit_predict(vectors).astype(np.int32)
    return groups


def _pairs(histories: Histories, lag: int) -> tuple[Int64, Int64]:
    """Positions of events of one user that are `lag` events apart."""
    users = histories.users
    first = np.flatnonzero(users[lag:] == users[:-lag]) if len(users) > lag else np.zeros(0, np.int64)
    return first, first + lag


def _session_starts(histories: Histories) -> Float64:
    first, second = _pairs(histories, 1)
    starts = np.ones(len(histories.items))
    starts[second] = histories.sessions[second] != histories.sessions[first]
    return starts


def counted(outcomes: AnyArray) -> Distribution:
    """How often each outcome (an integer) comes."""
    values, counts = np.unique(np.asarray(outcomes, np.int64), return_counts=True)
    return Distribution(values, counts / max(1, len(outcomes)))


def _co_occurrences(histories: Histories, items: int) -> Distribution:
    """Unordered pairs of different items of one user, each user once a pair."""
    matrix = sparse.csr_matrix(
        (np.ones(len(histories.items)), histories.items.copy(), histories.starts), (len(histories), items)
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    upper = sparse.triu(matrix.T @ matrix, k=1).tocoo()
    keys = upper.row.astype(np.int64) * items + upper.col
    order = np.argsort(keys)
    return Distribution(keys[order], upper.data[order] / max(1.0, float(upper.data.sum())))
