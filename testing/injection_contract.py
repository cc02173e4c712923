"""What every arm of a cold-start experiment has to do: a scorer over the recommender's items, with or without imagined
events.

A test module of an arm is a subclass that builds it:

    class TestSoft(InjectionContract):
        def build(self, recommender: Scorer, weight: Sequence[float]) -> Scorer:
            return SoftInjection(recommender, walk(), weight=weight)
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
import pandas as pd
import pytest

from features.activity import History
from models.arrays import Float32
from models.data.batch import Batch, batch_histories
from models.data.interactions import Interactions
from models.injection.injection import Injection
from models.recommenders.base import Scorer
from models.recommenders.blend import BUCKETS, BlendScorer
from models.recommenders.item_knn import ItemKNN
from models.recommenders.sequential_rules import SequentialRules
from models.recommenders.svd_filter import SVDFilter
from stream.events import KIND_CODES
from testing.interactions import clubs, history


def shop() -> pd.DataFrame:
    """Users of two clubs, who take six items each, and others who take whatever they like."""
    rng, members = np.random.default_rng(1), clubs()
    items = [item for _ in range(40) for item in rng.choice(12, 6, replace=False)]
    users = [f"v{number // 6}" for number in range(len(items))]
    others = pd.DataFrame({"user_id": users, "item_id": [f"i{item}" for item in items], "kind": "view", "value": None})
    return pd.concat([members, others.assign(at=10_000 + np.arange(len(items)))], ignore_index=True)


LOG: Final = Interactions.from_frame(shop())
WEIGHTS: Final = (0.5, 0.5, 0.25)
"""Nothing is injected for users of three or more events."""


class ReadsEvents(Scorer):
    """An encoder in small: a fixed matrix of answers to the newest event, and to how many there are."""

    is_neural = True
    name = "reads-events"

    def __init__(self) -> None:
        self.vocabulary = LOG.vocabulary
        size = len(self.vocabulary)
        self._answers = np.random.default_rng(0).normal(size=(size + 1, size)).astype(np.float32)

    @property
    def scores_are_logits(self) -> bool:
        return True

    def score(self, batch: Batch) -> Float32:
        scores: Float32 = self._answers[batch.items[:, -1]] + batch.lengths[:, None] * self._answers[0]
        return scores.astype(np.float32)

    def probabilities(self, batch: Batch) -> Float32:
        shares = np.exp(self.score(batch))
        out: Float32 = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
        return out


def recommenders() -> dict[str, Scorer]:
    """A linear recommender, a projection, an encoder, and a blend of all three."""
    members: list[Scorer] = []
    for member in (ItemKNN(), SVDFilter(SVDFilter.Params(rank=3)), SequentialRules()):
        member.fit(LOG)
        members.append(member)
    encoder = ReadsEvents()
    blend = BlendScorer([*members, encoder], np.full((BUCKETS, 4), 0.25))
    return {"item-knn": members[0], "svd-filter": members[1], "encoder": encoder, "blend": blend}


class InjectionContract:
    """The suite that every arm passes."""

    injects: ClassVar[bool] = True
    """Whether it adds events to histories."""

    @abstractmethod
    def build(self, recommender: Scorer, weight: Sequence[float]) -> Scorer:
        """The arm over a recommender fitted on LOG, with weights by the number of real events."""

    @pytest.fixture(scope="class", params=["item-knn", "svd-filter", "encoder", "blend"])
    def recommender(self, request: pytest.FixtureRequest) -> Scorer:
        return recommenders()[request.param]

    @pytest.fixture(scope="class")
    def arm(self, recommender: Scorer) -> Scorer:
        return self.build(recommender, WEIGHTS)

    @pytest.fixture
    def batch(self) -> Batch:
        """Histories of 0 to 4 events, two of them equal, one with an item that nobody knows."""
        taken = [
            (),
            ("i0",),
            ("i7",),
            ("i0", "i2"),
            ("i7",),
            ("elsewhere",),
            ("i1", "i2", "i3"),
            ("i6", "i7", "i8", "i9"),
        ]
        return batch_of(*(bought(*items) for items in taken))

    def test_it_scores_every_item_of_the_recommender(self, arm: Scorer, recommender: Scorer, batch: Batch) -> None:
        assert arm.vocabulary.item_ids == recommender.vocabulary.item_ids == LOG.vocabulary.item_ids
        probabilities = arm.probabilities(batch)
        assert probabilities.shape == (len(batch), len(LOG.vocabulary))
        assert np.isfinite(probabilities).all()
        assert np.isfinite(arm.score(batch)).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-4)

    def test_it_gives_the_same_answers_again(self, arm: Scorer, recommender: Scorer, batch: Batch) -> None:
        again = self.build(recommender, WEIGHTS)
        np.testing.assert_array_equal(arm.probabilities(batch), again.probabilities(batch))
        np.testing.assert_array_equal(arm.probabilities(batch), arm.probabilities(batch))

    def test_a_history_alone_gets_what_it_gets_among_others(self, arm: Scorer, batch: Batch) -> None:
        together = arm.probabilities(batch)
        for row in range(len(batch)):
            np.testing.assert_allclose(arm.probabilities(batch.slice(row, row + 1))[0], together[row], atol=1e-5)
        backwards = np.arange(len(batch))[::-1].copy()
        np.testing.assert_allclose(arm.probabilities(batch.take(backwards)), together[::-1], atol=1e-5)

    def test_it_adds_its_probabilities_to_others(self, arm: Scorer, batch: Batch) -> None:
        weights = np.linspace(0.0, 1.0, len(batch)).astype(np.float32)
        out = np.full((len(batch), len(LOG.vocabulary)), 0.125, np.float32)
        arm.add(out, batch, weights)
        np.testing.assert_allclose(out, 0.125 + weights[:, None] * arm.probabilities(batch), atol=1e-5)

    def test_its_histories_are_left_as_they_were(self, arm: Scorer, batch: Batch) -> None:
        before = batch.items.copy()
        arm.probabilities(batch)
        np.testing.assert_array_equal(batch.items, before)
        assert batch.imagined is None

    def test_no_weight_is_the_recommender(self, recommender: Scorer, batch: Batch) -> None:
        if not self.injects:
            pytest.skip("it injects nothing")
        arm = self.build(recommender, (0.0, 0.0, 0.0))
        np.testing.assert_allclose(arm.probabilities(batch), recommender.probabilities(batch), atol=1e-6)
        assert isinstance(arm, Injection)
        assert not arm.injected_events(batch).any()

    def test_users_of_enough_events_get_nothing(self, arm: Scorer, recommender: Scorer, batch: Batch) -> None:
        if not self.injects:
            pytest.skip("it injects nothing")
        assert isinstance(arm, Injection)
        cold = batch.lengths < len(WEIGHTS)
        assert (arm.injected_events(batch)[cold] > 0).all()
        assert not arm.injected_events(batch)[~cold].any()
        plain, answers = recommender.probabilities(batch), arm.probabilities(batch)
        np.testing.assert_allclose(answers[~cold], plain[~cold], atol=1e-6)
        assert np.abs(answers - plain)[cold].max() > 1e-6


def bought(*items: str) -> History:
    """Purchases, a second apart."""
    return history(*items, kind=KIND_CODES["purchase"])


def batch_of(*histories: History) -> Batch:
    """The histories as recommenders fitted on LOG read them."""
    return batch_histories(histories, LOG.vocabulary, 8)
