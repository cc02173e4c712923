"""Membership inference: can someone who holds a synthesizer and its output tell who was in its training data?

Three attacks give each candidate user a score, higher for members. Each is calibrated with users whom the synthesizer
never saw: what is typical of everyone proves nothing. The area under the ROC curve is 0.5 for an attack that guesses;
the true-positive rate at 1% false positives says how many users are exposed for sure (Carlini et al., S&P 2022).
"""

from typing import Final

import msgspec
import numpy as np
from scipy import sparse

from models.arrays import Float32, Float64
from models.synthesizers.base import Synthesizer
from models.synthesizers.fidelity import Reference, mean_vectors
from models.synthesizers.histories import Histories

NEIGHBORS: Final = 5
FALSE_POSITIVES: Final = 0.01
BLOCK: Final = 1_000


class AttackResult(msgspec.Struct, frozen=True):
    """How well an attack does: area under the ROC curve, true-positive rate at 1% false positives, the curve itself.

    `curve`: false-positive and true-positive rates at up to 101 thresholds.
    """

    attack: str
    auc: float
    tpr_at_1_percent: float
    curve: list[tuple[float, float]] = []


class CandidateUsers(msgspec.Struct, frozen=True):
    """The users of an attack: `members` were in the training data, `others` were not, nor were the `public` ones, with
    whom the attacker calibrates."""

    members: Histories
    others: Histories
    public: Histories


def attacks(
    synthesizer: Synthesizer | None,
    calibration: Synthesizer | None,
    synthetic: Histories,
    users: CandidateUsers,
    reference: Reference,
) -> list[AttackResult]:
    """Every attack that applies, the strongest first.

    `calibration` is a synthesizer that was fitted on the public users; with it, the likelihood attack needs
    `synthesizer`. The others need nothing but the `synthetic` histories.
    """
    groups = (users.members, users.others)
    results = [
        _result(
            "nearest-neighbor", *(nearest_similarity(group, synthetic, users.public, reference) for group in groups)
        ),
        _result("density-ratio", *(density_ratio(group, synthetic, users.public, reference) for group in groups)),
    ]
    if synthesizer is not None and calibration is not None:
        scores = [likelihood_ratio(group, synthesizer, calibration) for group in groups]
        if scores[0] is not None and scores[1] is not None:
            results.append(_result("likelihood-ratio", scores[0], scores[1]))
    return sorted(results, key=lambda result: -result.auc)


def likelihood_ratio(users: Histories, synthesizer: Synthesizer, calibration: Synthesizer) -> Float64 | None:
    """float64 [users]: log-likelihood per event under the synthesizer, minus that under a model of public users.

    None where one of them has no likelihood. Yeom et al. (CSF 2018), with the calibration of Watson et al. (ICLR 2022).
    """
    own, other = synthesizer.log_prob(users), calibration.log_prob(users)
    if own is None or other is None:
        return None
    return (own - other) / np.maximum(users.lengths, 1)


def nearest_similarity(users: Histories, synthetic: Histories, public: Histories, reference: Reference) -> Float64:
    """float64 [users]: cosine similarity of items and transitions to the nearest synthetic user, minus to the nearest
    public one. Rare items and transitions weigh more."""
    tables = [_items_and_transitions(part, len(reference.tail)) for part in (users, synthetic, public)]
    having = np.asarray((sparse.vstack(tables[1:]) > 0).sum(axis=0)).ravel()
    rarity = sparse.diags(np.log((1 + len(synthetic) + len(public)) / (1 + having)))
    scaled = [_unit_rows(table @ rarity) for table in tables]
    return _largest_product(scaled[0], scaled[1]) - _largest_product(scaled[0], scaled[2])


def density_ratio(users: Histories, synthetic: Histories, public: Histories, reference: Reference) -> Float64:
    """float64 [users]: the density of synthetic users over that of public ones, on a logarithmic scale.

    Both by the distance of the NEIGHBORS-th nearest user, among mean item vectors (DOMIAS: van Breugel et al., AISTATS
    2023, with nearest-neighbor densities).
    """
    points, generated, known = (mean_vectors(part, reference) for part in (users, synthetic, public))
    return np.log(_neighbor_distance(points, known) + 1e-6) - np.log(_neighbor_distance(points, generated) + 1e-6)


def exact_copies(histories: Histories, real: Histories, shortest: int = 4) -> float:
    """The share of histories of at least `shortest` events whose items are, in order, those of a real user."""
    known = set(_sequences(real))
    sequences = [items for items in _sequences(histories) if len(items) >= shortest * np.dtype(np.int32).itemsize]
    return float(np.mean([items in known for items in sequences])) if sequences else 0.0


def true_positive_rate(members: Float64, others: Float64, false_positives: float = FALSE_POSITIVES) -> float:
    """The share of members above the threshold that at most the share `false_positives` of the others exceeds.

    >>> true_positive_rate(np.array([3.0, 1.0]), np.arange(100) / 100)
    1.0
    """
    threshold = np.sort(others)[::-1][int(false_positives * len(others))]
    return float((members > threshold).mean())


def _result(name: str, members: Float64, others: Float64) -> AttackResult:
    from sklearn.metrics import roc_auc_score, roc_curve

    labels = np.repeat([1, 0], [len(members), len(others)])
    scores = np.concatenate([members, others])
    false, true, _ = roc_curve(labels, scores)
    kept = np.unique(np.linspace(0, len(false) - 1, min(101, len(false))).astype(np.int64))
    curve = [(round(float(x), 4), round(float(y), 4)) for x, y in zip(false[kept], true[kept], strict=True)]
    return AttackResult(name, float(roc_auc_score(labels, scores)), true_positive_rate(members, others), curve)


def _sequences(histories: Histories) -> list[bytes]:
    bounds = zip(histories.starts[:-1], histories.starts[1:], strict=True)
    return [histories.items[start:stop].astype(np.int32).tobytes() for start, stop in bounds]


def _items_and_transitions(histories: Histories, items: int) -> sparse.csr_matrix:
    """float64 [users, items + hashed transitions]: 1 for what a user has."""
    hashed = 1 << 18
    users = histories.users
    same = np.flatnonzero(users[1:] == users[:-1])
    pairs = histories.items[same].astype(np.int64) * items + histories.items[same + 1]
    rows = np.concatenate([users, users[same]])
    columns = np.concatenate([histories.items.astype(np.int64), items + pairs * 2654435761 % hashed])
    table: sparse.csr_matrix = sparse.csr_matrix(
        (np.ones(len(rows)), (rows, columns)), (len(histories), items + hashed)
    )
    table.data[:] = 1.0
    return table


def _unit_rows(table: sparse.csr_matrix) -> sparse.csr_matrix:
    lengths = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    unit: sparse.csr_matrix = (sparse.diags(1 / np.maximum(lengths, 1e-12)) @ table).tocsr()
    return unit


def _largest_product(left: sparse.csr_matrix, right: sparse.csr_matrix) -> Float64:
    """float64 [left]: the largest product of each row with a row of `right`."""
    parts = [
        np.asarray((left[start : start + BLOCK] @ right.T).max(axis=1).todense()).ravel()
        for start in range(0, left.shape[0], BLOCK)
    ]
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)


def _neighbor_distance(points: Float32, among: Float32) -> Float64:
    from sklearn.neighbors import NearestNeighbors

    distances = NearestNeighbors(n_neighbors=min(NEIGHBORS, len(among))).fit(among).kneighbors(points)[0]
    return np.asarray(distances[:, -1], np.float64)
