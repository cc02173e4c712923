"""A blend: a weighted sum of several recommenders' probabilities, with weights by the length of the history."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from models.arrays import Float32, Float64, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.base import Recommender, Scorer, SparseScores, StoredRecommender, ValueModel
from models.recommenders.sparse import add_prior

EDGES: Final = (1, 2, 3, 4, 5, 6, 11, 21)
"""Histories of 0, 1, 2, 3, 4, 5, 6 to 10 and 11 to 20 events, and longer ones, have weights of their own."""
BUCKETS: Final = len(EDGES) + 1


def bucket_of(lengths: Int64) -> Int64:
    """int64 [cases]: which row of the weights a history of a length has.

    >>> bucket_of(np.array([0, 1, 5, 6, 10, 11, 21])).tolist()
    [0, 1, 5, 6, 6, 7, 8]
    """
    return np.searchsorted(EDGES, lengths, side="right").astype(np.int64)


class BlendScorer(Scorer):
    """Scorers and their weights float64 [buckets, members]; scores are the weighted sum of probabilities.

    Raises:
        ValueError: the weights have another shape.
    """

    name = "blend"

    def __init__(self, members: Sequence[Scorer], weights: Float64) -> None:
        self._members = list(members)
        self.weights = np.asarray(weights, np.float32)
        if self.weights.shape != (BUCKETS, len(self._members)):
            expected = (BUCKETS, len(self._members))
            raise ValueError(f"weights of shape {self.weights.shape}; a blend of these members has {expected}")
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

    @property
    def reads_time(self) -> bool:
        return any(member.reads_time for member in self.members)

    @property
    def answers_empty_histories(self) -> bool:
        weights = zip(self.members, self.weights[0].tolist(), strict=True)
        return any(weight > 0 and member.answers_empty_histories for member, weight in weights)

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
        return {"members": members, "weights": [[float(f"{weight:.6g}") for weight in row] for row in self.weights]}


def share_priors(scorers: Sequence[SparseScores]) -> None:
    """Let scorers of the same popularity hold one array as their prior, which is then added once for all of them."""
    kept: list[Float32] = []
    for scorer in scorers:
        same = next((prior for prior in kept if np.array_equal(prior, scorer.prior)), None)
        if same is None:
            kept.append(scorer.prior)
        else:
            scorer.prior = same
