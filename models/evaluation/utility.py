"""Utility of synthetic histories: what a recommender learns from them, measured on real users."""

from collections.abc import Sequence
from functools import cached_property

import msgspec
import numpy as np
import pandas as pd

from models.arrays import Float64
from models.data import splits
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.evaluation import metrics
from models.recommenders.base import TuningContext
from models.recommenders.registry import create

RECOMMENDERS: tuple[str, ...] = ("ease", "sequential-rules", "item-knn")
"""The best of these on the synthetic events counts, and the best of these on the real ones."""


class Utility(msgspec.Struct, frozen=True):
    """NDCG@10 on held-out real users: of the best recommender trained on real events, on as many synthetic users, on
    both together, and of popularity. `both_ratio`: both over real, with its 95% interval."""

    real: float
    synthetic: float
    both: float
    popularity: float
    both_ratio: tuple[float, float, float]

    @property
    def ratio(self) -> float:
        """Trained on synthetic over trained on real events."""
        return self.synthetic / max(self.real, 1e-12)


class UtilityTest:
    """Trains recommenders on events and measures them on the last events of `held_out` real users.

    `real`: the real events [user_id, item_id, kind, value, at] that synthetic ones are compared with.
    """

    def __init__(self, held_out: pd.DataFrame, real: pd.DataFrame, vocabulary: Vocabulary, seed: int = 0) -> None:
        self.real, self.vocabulary, self.seed = real, vocabulary, seed
        before, after = splits.split(held_out, splits.SplitProtocol("leave-one-out"), seed, vocabulary.kind_weights)
        self.cases = splits.evaluation_cases(before, after, kind_weights=vocabulary.kind_weights)
        self.batch = splits.batch_cases(self.cases, vocabulary, 50)

    def best(self, frames: Sequence[pd.DataFrame]) -> Float64:
        """float64 [cases]: NDCG@10 of the recommender that is best after training on `frames` together."""
        interactions = self._interactions(frames)
        values = [self._ndcg(name, interactions) for name in RECOMMENDERS]
        return max(values, key=lambda column: float(column.mean()))

    @cached_property
    def best_of_real(self) -> Float64:
        """float64 [cases]: NDCG@10 of the recommender that is best after training on the real events."""
        return self.best([self.real])

    @cached_property
    def popularity(self) -> float:
        """NDCG@10 of the most popular items of the real events."""
        return float(self._ndcg("popularity", self._interactions([self.real])).mean())

    def _interactions(self, frames: Sequence[pd.DataFrame]) -> Interactions:
        columns = ["user_id", "item_id", "kind", "value", "at"]
        frame = pd.concat([frame[columns] for frame in frames]).sort_values("at", kind="stable", ignore_index=True)
        return Interactions.from_frame(frame, self.vocabulary)

    def _ndcg(self, name: str, interactions: Interactions) -> Float64:
        recommender = create(name, {}, TuningContext(items=len(self.vocabulary)), self.seed)
        recommender.fit(interactions)
        ranked = metrics.rank(
            lambda start, stop: recommender.score(self.batch.slice(start, stop)),
            self.vocabulary,
            self.cases,
            10,
            mask_seen=True,
        )
        return metrics.per_user(ranked, self.vocabulary, self.cases, (10,))["ndcg@10"]


def utility_of(test: UtilityTest, synthetic: pd.DataFrame, rng: np.random.Generator) -> Utility:
    """The utility of synthetic events [user_id, item_id, kind, value, at] next to the real ones."""
    from models.evaluation.bootstrap import compare

    real, generated, both = test.best_of_real, test.best([synthetic]), test.best([test.real, synthetic])
    compared = compare([both], [real], rng)[0]
    return Utility(
        float(real.mean()),
        float(generated.mean()),
        float(both.mean()),
        test.popularity,
        (compared.ratio, compared.low, compared.high),
    )
