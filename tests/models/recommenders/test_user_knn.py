"""User-kNN against sums over all users in plain Python."""

from collections import defaultdict

import numpy as np
import pandas as pd
import pytest

from models.data.batch import batch_histories
from models.data.interactions import Interactions
from models.recommenders.user_knn import UserKNN
from testing.interactions import history

TAKEN = {
    "a": ["i0", "i1", "i2"],
    "b": ["i1", "i2", "i3", "i4"],
    "c": ["i0", "i4"],
    "d": ["i5", "i0", "i6", "i2"],
    "lonely": ["i7"],
}


def interactions() -> Interactions:
    rows = [
        (user, item, "view", 10_000 * number + at)
        for number, (user, items) in enumerate(TAKEN.items())
        for at, item in enumerate(items)
    ]
    return Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]))


def fitted(**params: float) -> UserKNN:
    recommender = UserKNN(UserKNN.Params(**params))  # type: ignore[arg-type]  # each parameter has a type of its own
    recommender.fit(interactions())
    return recommender


def scores_by_item(recommender: UserKNN, *items: str) -> dict[str, float]:
    """What a history of views adds to each item, zeros left out."""
    batch = batch_histories([history(*items)], recommender.vocabulary, 50)
    added = recommender.score(batch)[0] - recommender.prior
    ids = recommender.vocabulary.item_ids
    return {ids[place]: float(added[place]) for place in np.flatnonzero(added > 1e-8)}


def slow_scores(events: dict[str, float], **powers: float) -> dict[str, float]:
    """The formula of the class, user by user; `events` are weights by item."""
    users_of = {
        item: [user for user, taken in TAKEN.items() if item in taken]
        for item in {item for taken in TAKEN.values() for item in taken}
    }
    scores: dict[str, float] = defaultdict(float)
    for taken in TAKEN.values():
        if len(taken) < 2:
            continue
        overlap = sum(
            weight * len(users_of[item]) ** -powers["rarity"] for item, weight in events.items() if item in taken
        )
        for item in taken if overlap else []:
            gain = overlap ** powers["power"] * len(taken) ** -powers["size_power"]
            scores[item] += gain * len(users_of[item]) ** -powers["item_power"]
    return scores


def test_scores_are_sums_over_users() -> None:
    powers = {"power": 2.0, "size_power": 0.7, "item_power": 0.3, "rarity": 0.2}
    weights = {"i2": 0.3, "i0": 0.15}  # views, the older one half as much
    expected = slow_scores(weights, **powers)
    assert scores_by_item(fitted(decay=0.5, **powers), "i0", "i2") == pytest.approx(expected, rel=1e-4)


def test_only_the_best_users_count() -> None:
    plain = {"power": 2.0, "size_power": 0.0, "item_power": 0.0, "rarity": 0.0, "decay": 1.0}
    assert set(scores_by_item(fitted(neighbors=2, **plain), "i0", "i2")) == {"i0", "i1", "i2", "i5", "i6"}  # a and d
    assert set(scores_by_item(fitted(neighbors=1, **plain), "i0", "i2")) == {"i5", "i0", "i6", "i2"}  # d is newer


def test_the_newest_users_of_an_item_and_the_newest_items_of_a_user_count() -> None:
    assert set(scores_by_item(fitted(users_per_item=1), "i0")) == {"i5", "i0", "i6", "i2"}
    assert set(scores_by_item(fitted(events=2), "i2")) == {"i1", "i2", "i6"}
    assert len(fitted(users=2).user_starts) == 3


def test_a_user_of_one_item_is_left_out() -> None:
    assert scores_by_item(fitted(), "i7") == {}
    assert len(fitted().user_starts) == 5


@pytest.mark.parametrize("name", ["item_starts", "item_users", "user_starts", "user_items"])
def test_lists_that_do_not_fit_are_refused(name: str) -> None:
    recommender = fitted()
    arrays = recommender.arrays()
    with pytest.raises(ValueError, match="do not fit"):
        recommender.restore({**arrays, name: arrays[name] - 1})
