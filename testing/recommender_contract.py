"""What every recommender has to do, and what the same recommender does once a release of it is loaded.

A test module of a recommender is a subclass that names it:

    class TestPopularity(RecommenderContract):
        name = "popularity"
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from features.activity import History
from models.data.batch import Batch, batch_histories
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.recommenders import registry
from models.recommenders.base import Recommender, TuningContext
from models.recommenders.item_knn import ItemKNN
from models.releases import release_store
from models.releases.manifest import Manifest, new_id
from models.releases.release import Release
from stream.events import KIND_CODES
from testing.interactions import RING, clubs, history, ring

SKIP = KIND_CODES["skip"]


class RecommenderContract:
    """The suite that every recommender passes. What a recommender cannot know is said by the class attributes."""

    name: ClassVar[str]
    params: ClassVar[dict[str, Any]] = {}
    repeats: ClassVar[bool] = False
    """Whether it is created for a domain in which items may be recommended again."""
    knows_order: ClassVar[bool] = False
    """Whether it learns which item follows which."""
    knows_neighbors: ClassVar[bool] = True
    """Whether it learns which items are taken together."""
    scores_cold_items: ClassVar[bool] = True
    """Whether the suite looks at scores of items without events."""

    def build(self) -> Recommender:
        """An unfitted recommender."""
        return registry.create(self.name, self.params, TuningContext(repeats=self.repeats))

    @pytest.fixture(scope="class")
    def fitted(self) -> Recommender:
        recommender = self.build()
        recommender.fit(Interactions.from_frame(ring()))
        return recommender

    @pytest.fixture(scope="class")
    def released(self, fitted: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Release:
        if fitted.name not in {*registry.releasable_names(), "blend"}:
            pytest.skip("no release is made of it")
        return save_and_load(fitted, tmp_path_factory.mktemp("releases"))

    def test_scores_are_finite_one_for_each_item(self, fitted: Recommender) -> None:
        long = history(*[f"i{n % RING}" for n in range(500)])
        batch = batch_of(fitted, history(), history("i1"), long, history("nothing of this"), history("i1", "elsewhere"))
        scores = fitted.score(batch)
        assert scores.shape == (5, RING)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
        assert fitted.vocabulary.item_ids[0] == "i0"
        np.testing.assert_allclose(scores[4], scores[1], atol=1e-5)  # an unknown item changes nothing

    def test_probabilities_are_shares_in_the_same_order(self, fitted: Recommender) -> None:
        batch = batch_of(fitted, history("i1", "i2", "i3"), history("i7"), history())
        shares, scores = fitted.probabilities(batch), fitted.score(batch)
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-4)
        assert (shares >= 0).all()
        for row in range(3):
            assert scores[row, int(np.argmax(shares[row]))] == pytest.approx(scores[row].max(), abs=1e-6)

    def test_it_adds_its_probabilities_to_a_blend(self, fitted: Recommender) -> None:
        batch = batch_of(fitted, history("i1", "i2", "i1"), history("i7"), history(), history("i4", "i5"))
        weights = np.array([0.5, 2.0, 1.0, 0.0], np.float32)
        out = np.ones((4, RING), np.float32)
        fitted.add(out, batch, weights)
        np.testing.assert_allclose(out, 1 + weights[:, None] * fitted.probabilities(batch), atol=1e-5)

    def test_the_same_history_gets_the_same_scores_in_any_batch(self, fitted: Recommender) -> None:
        first, second = history("i1", "i2"), history("i7")
        together = fitted.score(batch_of(fitted, first, second))
        np.testing.assert_allclose(together[0], fitted.score(batch_of(fitted, first))[0], atol=1e-5)
        np.testing.assert_allclose(together[1], fitted.score(batch_of(fitted, second))[0], atol=1e-5)

    def test_padding_changes_nothing(self, fitted: Recommender) -> None:
        events = history("i1", "i2", "i3")
        wide, narrow = batch_of(fitted, events, length=50), batch_of(fitted, events, length=8)
        np.testing.assert_allclose(fitted.score(wide), fitted.score(narrow), atol=1e-5)

    def test_a_history_without_known_positive_events_gets_the_most_popular_first(self, fitted: Recommender) -> None:
        for empty in (history(), history("elsewhere"), history("i3", kind=SKIP)):
            assert int(np.argmax(fitted.score(batch_of(fitted, empty))[0])) == 0

    def test_it_learns_what_comes_next(self, fitted: Recommender) -> None:
        if not self.knows_order:
            pytest.skip("knows no order, or half of it: on a ring every item is near to every other")
        starts = [history(*[f"i{(start + step) % RING}" for step in range(4)]) for start in range(RING)]
        expected = [fitted.vocabulary.index[f"i{(start + 4) % RING}"] for start in range(RING)]
        best = np.argsort(-fitted.score(batch_of(fitted, *starts)), axis=1, kind="stable")
        assert best[:, 0].tolist() == expected

    def test_items_that_others_took_together_come_first(self) -> None:
        if not self.knows_neighbors:
            pytest.skip("knows nothing of items that are taken together")
        recommender = self.build()
        recommender.fit(Interactions.from_frame(clubs()))
        scores = recommender.score(batch_of(recommender, history("i0", "i1", "i2"), history("i9", "i7")))
        near = [recommender.vocabulary.index[f"i{n}"] for n in (3, 4, 5)]
        far = [recommender.vocabulary.index[f"i{n}"] for n in (6, 8, 10, 11)]
        assert scores[0, near].min() > scores[0, far].max()
        assert scores[1, far].min() > scores[1, near].max()

    def test_items_without_events_are_scored_too(self) -> None:
        if not self.scores_cold_items:
            pytest.skip("cold items have tests of their own")
        recommender = self.build()
        recommender.fit(Interactions.from_frame(ring(), item_features=ItemFeatures(["new", "i3"])))
        assert recommender.vocabulary.item_ids[-1] == "new"
        scores = recommender.score(batch_of(recommender, history("i1"), history("new"), history()))
        assert scores.shape == (3, RING + 1)
        assert np.isfinite(scores).all()

    def test_a_release_scores_as_its_recommender_does(self, fitted: Recommender, released: Release) -> None:
        batch = [history("i1", "i2", "i3"), history("i9"), history(*[f"i{n % RING}" for n in range(30)]), history()]
        np.testing.assert_allclose(released.scores(batch), fitted.score(batch_of(fitted, *batch)), atol=1e-4)
        out, weights = np.zeros((4, RING), np.float32), np.array([1.0, 0.0, 0.5, 1.0], np.float32)
        released.recommender.add(out, batch_of(fitted, *batch), weights)
        expected = weights[:, None] * fitted.probabilities(batch_of(fitted, *batch))
        np.testing.assert_allclose(out, expected, atol=1e-4)
        assert int(np.argmax(released.scores([history()])[0])) == 0

    def test_a_release_has_neighbors(self, released: Release) -> None:
        near = released.similar("i3", 4)
        assert len(near) == 4
        assert "i3" not in [item for item, _ in near]
        assert [score for _, score in near] == sorted((score for _, score in near), reverse=True)
        assert released.similar("elsewhere", 4) == []


def batch_of(recommender: Recommender, *histories: History, length: int = 50) -> Batch:
    """The histories as the recommender reads them."""
    return batch_histories(histories, recommender.vocabulary, length)


def save_and_load(recommender: Recommender, root: Path) -> Release:
    """A release of a recommender that was fitted on the ring, saved below `root` and loaded again."""
    item_knn = ItemKNN()
    item_knn.fit(Interactions.from_frame(ring(), recommender.vocabulary))

    def write(folder: Path) -> list[str]:
        return list({*recommender.save(folder, release_store.prefix_of(recommender.name)), *item_knn.save(folder)})

    manifest = Manifest(
        id=new_id(),
        domain="shop",
        recommender=recommender.name,
        created_at=0,
        cutoff_at=0,
        items=0,
        events=0,
        users=0,
        files={},
        params=recommender.describe(),
        metrics={"ndcg@10": 0.5},
        protocol="none",
    )
    saved = release_store.save(root, manifest, recommender.vocabulary.item_ids, write)
    return release_store.load(root / "shop" / saved.id)
