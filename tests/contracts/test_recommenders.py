"""What every recommender has to do, and what the same recommender does once it is a release."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.activity import Recent
from models import releases
from models.recommenders.base import Recommender
from models.recommenders.counts import ItemKNN, Popularity
from models.releases import COUNTS, NEURAL, Manifest
from stream.events import KIND_CODES

VIEW, SKIP = KIND_CODES["view"], KIND_CODES["skip"]
RING = 12
"""Users go round a ring of items: after item n comes n + 1."""


def ring(users: int = 60, steps: int = 20) -> pd.DataFrame:
    rows = [
        (f"u{user}", f"i{(user + step) % RING}", "view", None, 1_000 * step + user)
        for step in range(steps)
        for user in range(users)
    ]
    rows += [("x", "i0", "view", None, 0)] * 5  # so that one item is the most popular
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "value", "at"]).sort_values("at", kind="stable")


def history(*items: str, kind: int = VIEW) -> Recent:
    return Recent(list(items), [kind] * len(items), list(range(len(items))), [None] * len(items))


def sasrec() -> Recommender:
    from models.recommenders.sasrec import Params, SASRec

    return SASRec(Params(embedding_size=16, blocks=1, heads=1, length=8, dropout=0.0, epochs=40, learning_rate=1e-2))


KINDS: dict[str, Callable[[], Recommender]] = {"popularity": Popularity, "item-knn": ItemKNN, "sasrec": sasrec}


@pytest.fixture(scope="module", params=list(KINDS))
def fitted(request: pytest.FixtureRequest) -> Recommender:
    made = KINDS[request.param]()
    made.fit(ring())
    return made


def test_scores_are_finite_one_for_each_item(fitted: Recommender) -> None:
    long = history(*[f"i{n % RING}" for n in range(500)])
    batch = [history(), history("i1"), long, history("nothing of this"), history("i1", "elsewhere")]
    scores = fitted.scores(batch)
    assert scores.shape == (5, RING)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert fitted.vocabulary.item_ids[0] == "i0"


def test_the_same_history_gives_the_same_scores_in_any_batch(fitted: Recommender) -> None:
    one, two = history("i1", "i2"), history("i7")
    together = fitted.scores([one, two])
    np.testing.assert_allclose(together[0], fitted.scores([one])[0], atol=1e-5)
    np.testing.assert_allclose(together[1], fitted.scores([two])[0], atol=1e-5)


def test_what_nothing_is_known_of_gets_the_most_popular_first(fitted: Recommender) -> None:
    for nothing in (history(), history("elsewhere"), history("i3", kind=SKIP)):
        assert int(np.argmax(fitted.scores([nothing])[0])) == 0


def test_it_learns_what_comes_next(fitted: Recommender) -> None:
    if fitted.name in {"popularity", "item-knn"}:
        pytest.skip("knows no order: on a ring every item is near to every other")
    asked = [history(*[f"i{(start + step) % RING}" for step in range(4)]) for start in range(RING)]
    index = fitted.vocabulary.index
    wanted = [index[f"i{(start + 4) % RING}"] for start in range(RING)]
    best = np.argsort(-fitted.scores(asked), axis=1, kind="stable")
    assert best[:, 0].tolist() == wanted


@pytest.mark.parametrize("name", [name for name in KINDS if name != "popularity"])
def test_what_others_took_together_comes_first(name: str) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(80):
        first = 6 * (user % 2)
        for step, item in enumerate(rng.permutation(6)):
            rows.append((f"u{user}", f"i{first + item}", "view", None, 1_000 * step + user))
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "value", "at"]).sort_values("at", kind="stable")
    made = KINDS[name]()
    made.fit(frame)
    scores = made.scores([history("i0", "i1", "i2"), history("i9", "i7")])
    asked = (
        [made.vocabulary.index[f"i{n}"] for n in (3, 4, 5)],
        [made.vocabulary.index[f"i{n}"] for n in (6, 8, 10, 11)],
    )
    near, far = scores[0, asked[0]], scores[0, asked[1]]
    assert near.min() > far.max()
    assert scores[1, asked[1]].min() > scores[1, asked[0]].max()


def manifest(fitted: Recommender) -> Manifest:
    kind = NEURAL if fitted.name == "sasrec" else COUNTS
    return Manifest(releases.new_id(), "shop", kind, 0, 0, 0, 0, 0, {}, {"length": 8}, {"ndcg@10": 0.5}, "none")


@pytest.fixture(scope="module")
def released(fitted: Recommender, tmp_path_factory: pytest.TempPathFactory) -> releases.Release:
    if fitted.name == "popularity":
        pytest.skip("a release has neighbours")
    root = tmp_path_factory.mktemp("releases")
    beside = ItemKNN()
    beside.fit_to(ring(), fitted.vocabulary)

    def write(folder: Path) -> list[str]:
        return [*fitted.save(folder), *(beside.save(folder) if fitted.name == "sasrec" else [])]

    made = releases.save(root, manifest(fitted), fitted.vocabulary.item_ids, write)
    return releases.load(root / "shop" / made.id)


def test_a_release_scores_as_its_recommender_does(fitted: Recommender, released: releases.Release) -> None:
    batch = [history("i1", "i2", "i3"), history("i9"), history(*[f"i{n % RING}" for n in range(30)])]
    np.testing.assert_allclose(released.scores(batch), fitted.scores(batch), atol=1e-4)
    assert int(np.argmax(released.scores([history()])[0])) == 0


def test_a_release_has_neighbours(released: releases.Release) -> None:
    near = released.similar("i3", 4)
    assert len(near) == 4
    assert "i3" not in [item for item, _ in near]
    assert [score for _, score in near] == sorted((score for _, score in near), reverse=True)
    assert released.similar("elsewhere", 4) == []
