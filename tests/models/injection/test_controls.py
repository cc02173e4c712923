"""Where the events of controls come from."""

import numpy as np
import pandas as pd
import pytest

from features.activity import History
from models.arrays import Float32
from models.data.batch import Batch, batch_histories
from models.data.interactions import Interactions
from models.injection.controls import CroppedUsers, NeighborItems, OtherUsers, PopularityEvents, ensemble
from models.injection.imagination import Imagination, Imagined
from models.recommenders.base import Scorer
from models.recommenders.item_knn import ItemKNN
from testing.interactions import history

USERS = {"a": "pqrs", "b": "stuv", "c": "xy"}
LOG = Interactions.from_frame(
    pd.DataFrame(
        [(user, item, "view", at) for user, items in USERS.items() for at, item in enumerate(items)],
        columns=["user_id", "item_id", "kind", "at"],
    )
)


class Paths(Imagination):
    """Three paths of two events each, the last one shorter; of the newest event and item 1."""

    vocabulary = LOG.vocabulary

    def __init__(self, *, alternatives: bool = True) -> None:
        super().__init__()
        self.are_alternatives = alternatives

    def imagine(self, batch: Batch) -> Imagined:
        items = np.zeros((len(batch), 3, 2), np.int32)
        items[:, :, 0] = np.maximum(batch.items[:, -1:], 1)
        items[:, :2, 1] = 1
        return Imagined(items, np.tile(np.array([0.5, 0.3, 0.2], np.float32), (len(batch), 1)))


def batch_for(*histories: History) -> Batch:
    return batch_histories(histories, LOG.vocabulary, 6)


def names(path: Float32) -> str:
    return "".join(LOG.vocabulary.item_ids[number - 1] for number in path.tolist() if number)


def test_popularity_draws_popular_items_only() -> None:
    popularity = np.zeros(len(LOG.vocabulary), np.float32)
    popularity[[LOG.vocabulary.index["q"], LOG.vocabulary.index["v"]]] = 3.0, 1.0
    batch = batch_for(*(history(item) for item in LOG.vocabulary.item_ids))
    items = np.concatenate([PopularityEvents(Paths(), popularity, seed=seed).of(batch).items for seed in range(40)])
    drawn = pd.Series(list("".join(names(path) for row in items for path in row))).value_counts(normalize=True)
    assert set(drawn.index) == {"q", "v"}
    assert drawn["q"] == pytest.approx(0.75, abs=0.04)


def test_alternative_paths_are_crops_of_a_user_each() -> None:
    stretches = {items[at] + items[(at + 1) % len(items)] for items in USERS.values() for at in range(len(items))}
    items = CroppedUsers(Paths(), LOG).of(batch_for(history("p"), history("t"), history())).items
    paths = [names(path) for row in items for path in row]
    assert [len(path) for path in paths] == [2, 2, 1] * 3
    assert {path for path in paths if len(path) == 2} <= stretches


def test_an_expectation_is_one_user_as_a_whole() -> None:
    for row in CroppedUsers(Paths(alternatives=False), LOG).of(batch_for(history("p"), history("t"))).items:
        assert any(set(names(row.ravel())) <= set(items) for items in USERS.values())


def test_neighbors_are_the_best_items_of_the_scorer() -> None:
    knn = ItemKNN()
    knn.fit(LOG)
    batch = batch_for(history("x"))
    imagined, shares = NeighborItems(knn, Paths()).of(batch), knn.probabilities(batch)[0]
    assert imagined.counts.tolist() == Paths().of(batch).counts.tolist() == [5]
    assert names(imagined.items[0, 0]) == "y"
    best = np.sort(shares)[::-1][:5]
    np.testing.assert_allclose(imagined.shares[0, :5], best / best.sum(), rtol=1e-5)


def test_another_user_of_as_many_events_is_imagined_for() -> None:
    """Paths begin with the newest known event: here that of the other user, whose first three events are known."""
    items = np.concatenate(
        [OtherUsers(Paths(), LOG, seed=seed).of(batch_for(history("x", "y", "x"))).items for seed in range(20)]
    )
    assert {names(row[0])[0] for row in items} == {"r", "u"}


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    class Constant(Scorer):
        name = "constant"
        vocabulary = LOG.vocabulary

        def __init__(self, item: int) -> None:
            self.item = item

        def score(self, batch: Batch) -> Float32:
            scores = np.zeros((len(batch), len(self.vocabulary)), np.float32)
            scores[:, self.item] = 1.0
            return scores

    scores = ensemble([Constant(1), Constant(1), Constant(4), Constant(2)]).probabilities(batch_for(history("p")))
    assert scores[0, [1, 2, 4]].tolist() == [0.5, 0.25, 0.25]
