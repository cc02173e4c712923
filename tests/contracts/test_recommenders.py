"""What every recommender has to do, and what the same recommender does once it is a release."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.activity import History
from models.data.batch import Batch, batch_histories
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.recommenders.base import Recommender
from models.recommenders.blend import EDGES, Blend
from models.recommenders.item_item import ItemKNN, SequentialRules
from models.recommenders.registry import CANDIDATES, NEURAL, Situation, make
from models.releases import release_store
from models.releases.manifest import Manifest, new_id
from models.releases.release import Release
from stream.events import KIND_CODES
from testing.interactions import RING, clubs, history, ring

SKIP = KIND_CODES["skip"]
ORDERLESS = {"popularity", "personal", "item-knn", "ease", "ials", "blend"}
SMALL = {
    "embedding_size": 16,
    "blocks": 1,
    "heads": 1,
    "length": 8,
    "dropout": 0.0,
    "epochs": 40,
    "learning_rate": 1e-2,
    "compiled": False,
    "adversarial": 0.0,
}


def build(name: str) -> Recommender:
    if name == "blend":
        return Blend([ItemKNN(), SequentialRules()], np.full((len(EDGES) + 1, 2), 0.5))
    situation = Situation(repeats=name in {"dnn", "transformer"})
    return make(name, SMALL if name in NEURAL else {"factors": 8} if name == "ials" else {}, situation)


NAMES = [*CANDIDATES, "blend"]


def asked(made: Recommender, *histories: History, length: int = 50) -> Batch:
    return batch_histories(histories, made.vocabulary, length)


@pytest.fixture(scope="module", params=NAMES)
def fitted(request: pytest.FixtureRequest) -> Recommender:
    made = build(request.param)
    made.fit(Interactions.from_frame(ring()))
    return made


def test_scores_are_finite_one_for_each_item(fitted: Recommender) -> None:
    long = history(*[f"i{n % RING}" for n in range(500)])
    batch = asked(fitted, history(), history("i1"), long, history("nothing of this"), history("i1", "elsewhere"))
    scores = fitted.score(batch)
    assert scores.shape == (5, RING)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert fitted.vocabulary.item_ids[0] == "i0"
    np.testing.assert_allclose(scores[4], scores[1], atol=1e-5)  # an item that is not known changes nothing


def test_probabilities_are_shares_in_the_same_order(fitted: Recommender) -> None:
    batch = asked(fitted, history("i1", "i2", "i3"), history("i7"), history())
    shares, scores = fitted.probabilities(batch), fitted.score(batch)
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-4)
    assert (shares >= 0).all()
    for row in range(3):
        assert scores[row, int(np.argmax(shares[row]))] == pytest.approx(scores[row].max(), abs=1e-6)


def test_what_it_adds_to_a_blend_are_its_probabilities(fitted: Recommender) -> None:
    batch = asked(fitted, history("i1", "i2", "i1"), history("i7"), history(), history("i4", "i5"))
    weights = np.array([0.5, 2.0, 1.0, 0.0], np.float32)
    out = np.ones((4, RING), np.float32)
    fitted.add(out, batch, weights)
    np.testing.assert_allclose(out, 1 + weights[:, None] * fitted.probabilities(batch), atol=1e-5)


def test_the_same_history_gives_the_same_scores_in_any_batch(fitted: Recommender) -> None:
    one, two = history("i1", "i2"), history("i7")
    together = fitted.score(asked(fitted, one, two))
    np.testing.assert_allclose(together[0], fitted.score(asked(fitted, one))[0], atol=1e-5)
    np.testing.assert_allclose(together[1], fitted.score(asked(fitted, two))[0], atol=1e-5)


def test_padding_changes_nothing(fitted: Recommender) -> None:
    one = history("i1", "i2", "i3")
    wide, narrow = asked(fitted, one, length=50), asked(fitted, one, length=8)
    np.testing.assert_allclose(fitted.score(wide), fitted.score(narrow), atol=1e-5)


def test_what_nothing_is_known_of_gets_the_most_popular_first(fitted: Recommender) -> None:
    for nothing in (history(), history("elsewhere"), history("i3", kind=SKIP)):
        assert int(np.argmax(fitted.score(asked(fitted, nothing))[0])) == 0


def test_it_learns_what_comes_next(fitted: Recommender) -> None:
    if fitted.name in ORDERLESS:
        pytest.skip("knows no order, or half of it: on a ring every item is near to every other")
    batch = asked(fitted, *[history(*[f"i{(start + step) % RING}" for step in range(4)]) for start in range(RING)])
    index = fitted.vocabulary.index
    wanted = [index[f"i{(start + 4) % RING}"] for start in range(RING)]
    best = np.argsort(-fitted.score(batch), axis=1, kind="stable")
    assert best[:, 0].tolist() == wanted


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"popularity", "personal"}])
def test_what_others_took_together_comes_first(name: str) -> None:
    made = build(name)
    made.fit(Interactions.from_frame(clubs()))
    scores = made.score(asked(made, history("i0", "i1", "i2"), history("i9", "i7")))
    near = [made.vocabulary.index[f"i{n}"] for n in (3, 4, 5)]
    far = [made.vocabulary.index[f"i{n}"] for n in (6, 8, 10, 11)]
    assert scores[0, near].min() > scores[0, far].max()
    assert scores[1, far].min() > scores[1, near].max()


@pytest.fixture(scope="module")
def released(fitted: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Release:
    if fitted.name in CANDIDATES and not CANDIDATES[fitted.name].trains:
        pytest.skip("no release is made of it")
    root = tmp_path_factory.mktemp("releases")
    beside = ItemKNN()
    beside.fit(Interactions.from_frame(ring(), fitted.vocabulary))

    def write(folder: Path) -> list[str]:
        return list({*fitted.save(folder, release_store.prefix_of(fitted.name)), *beside.save(folder)})

    params = fitted.describe()
    whole = Manifest(new_id(), "shop", fitted.name, 0, 0, 0, 0, 0, {}, params, {"ndcg@10": 0.5}, "none")
    made = release_store.save(root, whole, fitted.vocabulary.item_ids, write)
    return release_store.load(root / "shop" / made.id)


def test_a_release_scores_as_its_recommender_does(fitted: Recommender, released: Release) -> None:
    batch = [history("i1", "i2", "i3"), history("i9"), history(*[f"i{n % RING}" for n in range(30)]), history()]
    np.testing.assert_allclose(released.scores(batch), fitted.score(asked(fitted, *batch)), atol=1e-4)
    out, weights = np.zeros((4, RING), np.float32), np.array([1.0, 0.0, 0.5, 1.0], np.float32)
    released.recommender.add(out, asked(fitted, *batch), weights)
    expected = weights[:, None] * fitted.probabilities(asked(fitted, *batch))
    np.testing.assert_allclose(out, expected, atol=1e-4)
    assert int(np.argmax(released.scores([history()])[0])) == 0


def test_a_release_has_neighbours(released: Release) -> None:
    near = released.similar("i3", 4)
    assert len(near) == 4
    assert "i3" not in [item for item, _ in near]
    assert [score for _, score in near] == sorted((score for _, score in near), reverse=True)
    assert released.similar("elsewhere", 4) == []


@pytest.mark.parametrize("name", sorted(NEURAL))
def test_an_item_is_reached_through_its_category(name: str) -> None:
    """Items 12 and 13 are seen once; with categories they are nearer to the club of their own category."""
    frame = clubs()
    rare = [("y", "i12", "view", None, 10_000), ("z", "i13", "view", None, 10_001)]
    whole = pd.concat([frame, pd.DataFrame(rare, columns=frame.columns)])
    categories = {f"i{n}": "left" if n < 6 or n == 12 else "right" for n in range(14)}
    made = build(name)
    made.fit(Interactions.from_frame(whole, categories=categories))
    scores = made.score(asked(made, history("i0", "i1", "i2"), history("i9", "i7", "i10")))
    left, right = made.vocabulary.index["i12"], made.vocabulary.index["i13"]
    assert scores[0, left] > scores[0, right]
    assert scores[1, right] > scores[1, left]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in {"dnn", "cnn", "rnn", "transformer"}])
def test_items_that_nobody_took_are_scored_too(name: str) -> None:
    made = build(name)
    made.fit(Interactions.from_frame(ring(), item_features=ItemFeatures(["new", "i3"])))
    assert made.vocabulary.item_ids[-1] == "new"
    scores = made.score(asked(made, history("i1"), history("new"), history()))
    assert scores.shape == (3, RING + 1)
    assert np.isfinite(scores).all()
