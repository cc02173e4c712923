"""A blend: a weighted sum of several recommenders' probabilities, with weights by the length of the history."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from models.arrays import Bool, Float32, Float64, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.base import Recommender, Scorer, SparseScores, StoredRecommender, ValueModel
from models.recommenders.sparse import add_prior

EDGES: Final = (3, 6, 11, 21)
"""Histories of fewer than 3, 6, 11, 21 events, and longer ones, have weights of their own."""
SHRINK: Final = 200.0
"""A bucket's own weights count n / (n + SHRINK) for its n users, those of all users the rest."""
CANDIDATES: Final = 100
"""Of each member's answer this many items enter the search for weights."""
TRIES: Final = 400
BLOCK: Final = 256


class Evidence(msgspec.Struct, frozen=True):
    """What weights are fitted on: each case's candidates and what each member gives them.

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
        ndcg = np.zeros(len(self.targets))
        some = self.hits.any(axis=1)
        selected = slice(None) if some.all() else np.flatnonzero(some)
        amounts, hits = self.amounts[selected], self.hits[selected]
        scores = np.matmul(amounts, (each if len(each) == 1 else each[selected])[:, :, None])[:, :, 0]
        row, place = np.nonzero(hits)
        own = scores[row, place][:, None]
        others = scores[row]
        ahead = (others > own) | ((others == own) & (np.arange(scores.shape[1]) < place[:, None]))
        rank = ahead.sum(axis=1)
        discount = 1 / np.log2(np.arange(2, k + 2))
        gains = np.where(rank < k, discount[np.minimum(rank, k - 1)], 0.0)
        best = np.cumsum(discount)[np.minimum(self.targets[selected], k) - 1]
        ndcg[selected] = np.bincount(row, gains, minlength=len(hits)) / best
        return ndcg


def evidence_of(
    members: Mapping[str, Scorer],
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
        tables = [member.probabilities(part) for member in members.values()]
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
            target_places = [vocabulary.index[item] for item in targets[case] if item in vocabulary.index]
            hits[case, : len(places)] = np.isin(places, target_places)
    counts = np.array([len(case_targets) for case_targets in targets], np.int64)
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
    """float64 [cases]: NDCG@10 of each case under weights that were fitted on the other folds' cases."""
    fold = rng.permutation(len(evidence.targets)) % folds
    ndcg = np.zeros(len(evidence.targets))
    for number in range(folds):
        inside = np.flatnonzero(fold == number)
        if not len(inside):
            continue
        weights = best_weights(evidence.of(np.flatnonzero(fold != number)), rng, TRIES // 2)
        part = evidence.of(inside)
        ndcg[inside] = part.ndcg(weights[bucket_of(part.lengths)])
    return ndcg


def near_weights(evidence: Evidence, rng: np.random.Generator, tries: int, start: Float64 | None) -> Float64:
    """float64 [members]: one row of weights for all cases, searched near `start` where one is given."""
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


class BlendScorer(Scorer):
    """Scorers and their weights float64 [buckets, members]; scores are the weighted sum of probabilities."""

    name = "blend"

    def __init__(self, members: Sequence[Scorer], weights: Float64) -> None:
        self._members = list(members)
        self.weights = np.asarray(weights, np.float32)
        self.vocabulary: Vocabulary = self._members[0].vocabulary
        sparse = [(number, member.sparse) for number, member in enumerate(self._members)]
        self._sparse = [(number, scorer) for number, scorer in sparse if scorer is not None]
        self._dense = [number for number, scorer in sparse if scorer is None]
        share_priors([member for _, member in self._sparse])

    @property
    def members(self) -> Sequence[Scorer]:
        return self._members

    @property
    def value_model(self) -> ValueModel | None:
        return next((model for member in self.members if (model := member.value_model) is not None), None)

    @property
    def reads_profiles(self) -> bool:
        return any(member.reads_profiles for member in self.members)

    def score(self, batch: Batch) -> Float32:
        weights, dense = self.weights[bucket_of(batch.lengths)], self._dense
        if dense and weights[:, dense[0]].all():
            out = self._members[dense[0]].probabilities(batch)  # its array takes in what the others add
            out *= weights[:, dense[0], None]
            dense = dense[1:]
        else:
            out = np.zeros((len(batch), len(self.vocabulary)), np.float32)
        self._add(out, batch, weights, dense)
        return out

    def probabilities(self, batch: Batch) -> Float32:
        return self.score(batch)

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
        self._add(out, batch, self.weights[bucket_of(batch.lengths)] * weights[:, None], self._dense)

    def _add(self, out: Float32, batch: Batch, weights: Float32, dense: Sequence[int]) -> None:
        """Add the dense members of these numbers and all sparse ones, weighted by their columns of `weights`
        float32 [batch, members]; a prior that several members share is added once."""
        for number in dense:
            if weights[:, number].any():
                self._members[number].add(out, batch, weights[:, number])
        priors: list[tuple[Float32, Float32]] = []
        for number, member in self._sparse:
            if not weights[:, number].any():
                continue
            factors = member.add_event_scores(out, batch, weights[:, number])
            same = next((total for prior, total in priors if prior is member.prior), None)
            if same is None:
                priors.append((member.prior, factors))
            else:
                same += factors
        for prior, factors in priors:
            add_prior(out, prior, factors)

    def contributions(self, batch: Batch, items: Int64) -> Float32 | None:
        """float32 [items, length], of the members that have contributions: their scores enter as shares of their sum,
        times the member's weight."""
        weights = self.weights[bucket_of(batch.lengths)][0]
        total: Float32 | None = None
        for member, weight in zip(self.members, weights.tolist(), strict=True):
            part = member.contributions(batch, items) if weight else None
            if part is None:
                continue
            part *= np.float32(weight / max(member.score_sum(batch), 1e-12))
            total = part if total is None else total + part
        return total

    def score_sum(self, batch: Batch) -> float:  # noqa: ARG002 - the members' shares sum to one
        return 1.0

    def refit(self, interactions: Interactions) -> None:
        for member in self.members:
            member.refit(interactions)
        self.vocabulary = interactions.vocabulary
        share_priors([scorer for _, scorer in self._sparse])

    @classmethod
    def load(cls, stored: StoredRecommender) -> Scorer:
        """A blend as a release stores it: each member's files begin with its name."""
        members = [stored.part(params) for params in stored.params["members"]]
        return BlendScorer(members, np.array(stored.params["weights"], np.float64))


class Blend(BlendScorer, Recommender):
    """A blend of recommenders that can be fitted and saved."""

    def __init__(self, members: Sequence[Recommender], weights: Float64) -> None:
        super().__init__(members, weights)
        self.recommenders = list(members)

    @property
    def members(self) -> Sequence[Recommender]:
        return self.recommenders

    def fit(self, interactions: Interactions) -> None:
        for member in self.recommenders:
            member.fit(interactions)
        self.vocabulary = interactions.vocabulary
        share_priors([scorer for _, scorer in self._sparse])

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        """Write the members' files, each name beginning with the member's name; their names."""
        return [name for member in self.recommenders for name in member.save(folder, f"{prefix}{member.name}.")]

    def describe(self) -> dict[str, Any]:
        """Members with their parameters, and weights, as JSON values."""
        members = [{"recommender": member.name, **member.describe()} for member in self.recommenders]
        return {"members": members, "weights": [[round(float(weight), 6) for weight in row] for row in self.weights]}


def share_priors(scorers: Sequence[SparseScores]) -> None:
    """Let scorers of the same popularity hold one array as their prior, which is then added once for all of them."""
    kept: list[Float32] = []
    for scorer in scorers:
        same = next((prior for prior in kept if np.array_equal(prior, scorer.prior)), None)
        if same is None:
            kept.append(scorer.prior)
        else:
            scorer.prior = same
