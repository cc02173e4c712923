"""A blend: several recommenders' probabilities, weighed by how much is known of the user."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from models.arrays import Bool, Float32, Float64, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.base import Recommender
from models.recommenders.popularity import Tied, add_ties

EDGES: Final = (3, 6, 11, 21)
"""Histories of fewer than 3, 6, 11, 21 events, and longer ones, have weights of their own."""
SHRINK: Final = 200.0
"""A bucket's own weights count n / (n + SHRINK) for its n users, those of all users the rest."""
CANDIDATES: Final = 100
"""Of each member's answer this many items enter the search for weights."""
TRIES: Final = 400
BLOCK: Final = 256


class Evidence(msgspec.Struct, frozen=True):
    """What weights are sought on: each case's candidates and what each member gives them.

    `amounts` float32 [cases, candidates, members], `hits` bool [cases, candidates], `targets` int64 [cases]: how many
    are wanted (also those that no member offers), `lengths` int64 [cases].
    """

    names: tuple[str, ...]
    amounts: Float32
    hits: Bool
    targets: Int64
    lengths: Int64

    def of(self, cases: Int64) -> "Evidence":
        return Evidence(self.names, self.amounts[cases], self.hits[cases], self.targets[cases], self.lengths[cases])

    def ndcg(self, weights: Float64, k: int = 10) -> Float64:
        """float64 [cases] for weights [members], or [cases, members]. Of equal scores the first candidate is ahead."""
        each = np.atleast_2d(weights).astype(np.float32)
        found = np.zeros(len(self.targets))
        some = self.hits.any(axis=1)
        wanted = slice(None) if some.all() else np.flatnonzero(some)
        amounts, hits = self.amounts[wanted], self.hits[wanted]
        scores = np.matmul(amounts, (each if len(each) == 1 else each[wanted])[:, :, None])[:, :, 0]
        row, place = np.nonzero(hits)
        own = scores[row, place][:, None]
        others = scores[row]
        ahead = (others > own) | ((others == own) & (np.arange(scores.shape[1]) < place[:, None]))
        rank = ahead.sum(axis=1)
        discount = 1 / np.log2(np.arange(2, k + 2))
        gains = np.where(rank < k, discount[np.minimum(rank, k - 1)], 0.0)
        best = np.cumsum(discount)[np.minimum(self.targets[wanted], k) - 1]
        found[wanted] = np.bincount(row, gains, minlength=len(hits)) / best
        return found


def evidence_of(
    members: Mapping[str, Recommender],
    batch: Batch,
    targets: Sequence[Sequence[str]],
    seen: Sequence[Sequence[int]] | None = None,
) -> Evidence:
    """Candidates of every member over the cases of `batch`; `seen` are the items that each case may not be given."""
    names = tuple(members)
    vocabulary = members[names[0]].vocabulary
    most = min(CANDIDATES, len(vocabulary))
    shape = (len(batch), most * len(names))
    amounts, hits = np.zeros((*shape, len(names)), np.float32), np.zeros(shape, np.bool_)
    for start in range(0, len(batch), BLOCK):
        part = batch.slice(start, start + BLOCK)
        tables = [one.probabilities(part) for one in members.values()]
        for row in range(len(part)):
            case = start + row
            barred = list(seen[case]) if seen is not None else []
            chosen: set[int] = set()
            for table in tables:
                table[row, barred] = -1.0
                chosen.update(np.argpartition(-table[row], most - 1)[:most].tolist())
            places = np.array(sorted(chosen - set(barred)), np.int64)
            for number, table in enumerate(tables):
                amounts[case, : len(places), number] = table[row, places]
            wanted = [vocabulary.index[item] for item in targets[case] if item in vocabulary.index]
            hits[case, : len(places)] = np.isin(places, wanted)
    counts = np.array([len(one) for one in targets], np.int64)
    return Evidence(names, amounts, hits, counts, batch.lengths)


def best_weights(evidence: Evidence, rng: np.random.Generator, tries: int = TRIES) -> Float64:
    """float64 [buckets, members]: weights of highest NDCG@10, by random search on the simplex, then nearby.

    A bucket's weights are drawn towards those of all users, the more the fewer users it has.
    """
    overall = near_weights(evidence, rng, tries, None)
    rows = []
    for bucket in range(len(EDGES) + 1):
        inside = np.flatnonzero(bucket_of(evidence.lengths) == bucket)
        if len(inside) < 30:
            rows.append(overall)
            continue
        own = near_weights(evidence.of(inside), rng, tries // 2, overall)
        share = len(inside) / (len(inside) + SHRINK)
        rows.append(share * own + (1 - share) * overall)
    return np.array(rows)


def bucket_of(lengths: Int64) -> Int64:
    """int64 [cases]: which row of the weights a history of a length has."""
    return np.searchsorted(EDGES, lengths, side="right").astype(np.int64)


def cross_validated(evidence: Evidence, rng: np.random.Generator, folds: int = 5) -> Float64:
    """float64 [cases]: NDCG@10 of each case under weights that were sought on the other folds' cases."""
    fold = rng.permutation(len(evidence.targets)) % folds
    found = np.zeros(len(evidence.targets))
    for number in range(folds):
        inside = np.flatnonzero(fold == number)
        if not len(inside):
            continue
        weights = best_weights(evidence.of(np.flatnonzero(fold != number)), rng, TRIES // 2)
        part = evidence.of(inside)
        found[inside] = part.ndcg(weights[bucket_of(part.lengths)])
    return found


def near_weights(evidence: Evidence, rng: np.random.Generator, tries: int, start: Float64 | None) -> Float64:
    """float64 [members]: one row of weights for all cases, sought near `start` where one is given."""
    members = len(evidence.names)
    evidence = evidence.of(np.flatnonzero(evidence.hits.any(axis=1)))  # no weights help where nobody offers a target
    if not len(evidence.targets):
        return start if start is not None else np.full(members, 1 / members)
    corners = list(np.eye(members))
    best = start if start is not None else np.full(members, 1 / members)
    value = float(evidence.ndcg(best).mean())
    for number in range(tries):
        if number < members:
            tried = corners[number]
        elif number < tries // 2 and start is None:
            tried = rng.dirichlet(np.full(members, 0.5))
        else:  # near the best so far, on a scale of ratios: small weights matter too
            tried = (best + 1e-3) * np.exp(rng.normal(0, 0.7, members))
            tried = tried / tried.sum()
        reached = float(evidence.ndcg(tried).mean())
        if reached > value:
            best, value = tried, reached
    return best


class Blend:
    """Fitted members and their weights [buckets, members]; scores are the weighed sum of probabilities."""

    name = "blend"

    def __init__(self, members: Sequence[Recommender], weights: Float64) -> None:
        self.members = list(members)
        self.weights = np.asarray(weights, np.float32)
        self.vocabulary: Vocabulary = self.members[0].vocabulary
        numbers = range(len(self.members))
        self._order = sorted(numbers, key=lambda number: isinstance(self.members[number], Tied))
        share_ties(self.members)

    def fit(self, log: Interactions) -> None:
        for member in self.members:
            member.fit(log)
        self.vocabulary = log.vocabulary
        share_ties(self.members)

    def score(self, batch: Batch) -> Float32:
        each, numbers = self.weights[bucket_of(batch.lengths)], self._order
        first = numbers[0]
        if isinstance(self.members[first], Tied) or not each[:, first].all():
            out = np.zeros((len(batch), len(self.vocabulary)), np.float32)
        else:
            out = self.members[first].probabilities(batch)  # its table takes in what the others add
            out *= each[:, first, None]
            numbers = numbers[1:]
        self._add(out, batch, each, numbers)
        return out

    def probabilities(self, batch: Batch) -> Float32:
        return self.score(batch)

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        self._add(out, batch, self.weights[bucket_of(batch.lengths)] * weights[:, None], self._order)

    def _add(self, out: Float32, batch: Batch, each: Float32, numbers: Sequence[int]) -> None:
        """Add the members of these numbers, each weighed by its column of `each` [batch, members]."""
        ties: list[tuple[Float32, Float32]] = []
        for number in numbers:
            member = self.members[number]
            if not each[:, number].any():
                continue
            if not isinstance(member, Tied):
                member.add(out, batch, each[:, number])
                continue
            factors = member.add_offered(out, batch, each[:, number])
            same = next((owed for tie, owed in ties if tie is member.tie), None)
            if same is None:
                ties.append((member.tie, factors))
            else:
                same += factors
        for tie, owed in ties:
            add_ties(out, tie, owed)

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        files = [one.save(folder, f"{prefix}{one.name}.") for one in self.members]
        return [name for names in files for name in names]

    def describe(self) -> dict[str, Any]:
        members = [{"recommender": one.name, **one.describe()} for one in self.members]
        return {"members": members, "weights": [[round(float(one), 6) for one in row] for row in self.weights]}


def share_ties(members: Sequence[Recommender]) -> None:
    """Let members of one popularity hold one array of ties, which is then added once for all of them."""
    kept: list[Float32] = []
    for member in members:
        if isinstance(member, Tied):
            same = next((one for one in kept if np.array_equal(one, member.tie)), None)
            if same is None:
                kept.append(member.tie)
            else:
                member.tie = same


def members(recommender: Recommender) -> list[Recommender]:
    """A blend's members; any other recommender alone."""
    return recommender.members if isinstance(recommender, Blend) else [recommender]
