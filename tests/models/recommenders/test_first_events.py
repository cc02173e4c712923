"""Popularity among first events, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from models.data.interactions import Interactions
from models.recommenders.blend import BUCKETS, Blend
from models.recommenders.first_events import FirstEvents
from models.recommenders.popularity import Popularity

ROWS = [
    ("u1", "a", "purchase", 1),
    ("u2", "b", "view", 2),
    ("u1", "a", "view", 3),
    ("u2", "c", "purchase", 4),
    ("u1", "c", "purchase", 5),
    ("u2", "c", "purchase", 6),
    ("u3", "d", "view", 9),
]


@pytest.mark.parametrize(
    ("events", "half_life_ms", "expected"),
    [
        (1, None, {"a": 1.0, "b": 0.3, "c": 0.0, "d": 0.3}),
        (2, None, {"a": 1.3, "b": 0.3, "c": 1.0, "d": 0.3}),
        (2, 1.0, {"a": 2**-8 + 0.3 * 2**-6, "b": 0.3 * 2**-7, "c": 2**-5, "d": 0.3}),
    ],
)
def test_counts_are_of_the_first_events(events: int, half_life_ms: float | None, expected: dict[str, float]) -> None:
    frame = pd.DataFrame(ROWS, columns=["user_id", "item_id", "kind", "at"])
    recommender = FirstEvents(FirstEvents.Params(events=events, half_life_ms=half_life_ms))
    recommender.fit(Interactions.from_frame(frame))
    got = dict(zip(recommender.vocabulary.item_ids, recommender.popularity.tolist(), strict=True))
    assert got == pytest.approx(expected, abs=2e-6)
    assert (
        np.argmax(recommender.popularity)
        == recommender.vocabulary.index[max(expected, key=lambda item: expected[item])]
    )


def test_a_blend_answers_for_an_empty_history_where_a_member_with_weight_does() -> None:
    first, other = FirstEvents(), Popularity()
    weights = np.zeros((BUCKETS, 2))
    weights[:, 1] = 1.0
    assert not Blend([first, other], weights).answers_empty_histories
    weights[0] = (0.2, 0.8)
    assert Blend([first, other], weights).answers_empty_histories
