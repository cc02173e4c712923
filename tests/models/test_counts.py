"""Popularity and item-kNN by hand."""

import numpy as np
import pandas as pd
import pytest

from features.activity import Recent
from models.recommenders.counts import DAY_MS, ItemKNN, Popularity
from stream.events import KIND_CODES


def frame(*rows: tuple[str, str, str, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]).assign(value=None)


def test_windowed_popularity_prefers_the_newest() -> None:
    events = frame(("u", "old", "view", 0), ("v", "old", "view", 0), ("w", "new", "view", 56 * DAY_MS))
    all_time, windowed = Popularity(half_life_ms=None), Popularity()
    for one in (all_time, windowed):
        one.fit(events)
    assert all_time.counts.tolist() == pytest.approx([0.6, 0.3])
    assert windowed.counts.tolist() == pytest.approx([2 * 0.3 / 4, 0.3])


def test_similarity_is_shrunk_cosine() -> None:
    events = frame(
        *[
            (user, item, "view", 0)
            for user, items in {"u": "ab", "v": "ab", "w": "ac", "x": "d"}.items()
            for item in items
        ]
    )
    model = ItemKNN(neighbours=2, shrink=1.0)
    model.fit(events)
    index = model.vocabulary.index
    near = dict(zip(model.indices[index["a"]].tolist(), model.weights[index["a"]].tolist(), strict=True))
    assert near == pytest.approx({index["b"]: 2 / (np.sqrt(6) + 1), index["c"]: 1 / (np.sqrt(3) + 1)}, rel=1e-6)
    assert model.indices[index["d"]].tolist() == [-1, -1]


def test_the_newest_item_of_a_history_weighs_most() -> None:
    events = frame(
        *[(user, item, "view", 0) for user, items in {"u": "ax", "v": "by", "w": "z"}.items() for item in items]
    )
    model = ItemKNN(shrink=0.0)
    model.fit(events)
    view = KIND_CODES["view"]
    scores = model.scores([Recent(["a", "b"], [view, view], [0, 1], [None, None])])[0]
    index = model.vocabulary.index
    assert scores[index["y"]] > scores[index["x"]] > scores[index["z"]]
    assert scores[index["x"]] == pytest.approx(0.85 * scores[index["y"]], rel=1e-4)


def test_a_skip_is_no_shared_interest() -> None:
    model = ItemKNN()
    model.fit(frame(("u", "a", "skip", 0), ("u", "b", "view", 0), ("v", "a", "view", 0)))
    assert (model.indices == -1).all()
