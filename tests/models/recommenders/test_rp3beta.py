"""RP3beta against the walk's probabilities, pair by pair."""

import numpy as np
import pandas as pd
import pytest

from models.data.interactions import Interactions
from models.recommenders.rp3beta import RP3Beta

TAKEN = {"a": "xy", "b": "xyz", "c": "xz", "d": "xw"}


def interactions() -> Interactions:
    rows = [(user, item, "view", at) for user, items in TAKEN.items() for at, item in enumerate(items)]
    return Interactions.from_frame(pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]))


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.7, 0.4)])
def test_similarities_are_those_of_the_walk(alpha: float, beta: float) -> None:
    recommender = RP3Beta(RP3Beta.Params(neighbors=3, alpha=alpha, beta=beta))
    recommender.fit(interactions())
    ids = recommender.vocabulary.item_ids
    count = {item: sum(item in items for items in TAKEN.values()) for item in ids}
    for row, item in enumerate(ids):
        expected = {
            other: sum(
                (count[item] * len(items)) ** -alpha * count[other] ** -beta
                for items in TAKEN.values()
                if item in items and other in items
            )
            for other in ids
            if other != item
        }
        expected = {other: value for other, value in expected.items() if value}
        near = recommender.neighbors[row]
        got = {ids[n]: float(recommender.similarities[row, k]) for k, n in enumerate(near) if n >= 0}
        assert got == pytest.approx(expected, rel=1e-5)
        assert np.all(np.diff(recommender.similarities[row]) <= 0)
