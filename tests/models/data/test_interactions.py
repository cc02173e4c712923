"""Interactions of odd events."""

import warnings

import pandas as pd

from models.data.interactions import Interactions


def test_values_beyond_float32_are_bounded_without_a_warning() -> None:
    rows = {"user_id": ["u"] * 4, "item_id": ["a", "b", "c", "d"], "kind": "view", "at": [1, 2, 3, 4]}
    frame = pd.DataFrame(rows | {"value": [1e300, -1e300, None, 2.5]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = Interactions.from_frame(frame).values
    assert values is not None
    assert values[[0, 1, 3]].tolist() == pd.Series([1e15, -1e15, 2.5]).astype("float32").tolist()
    assert bool(pd.isna(values[2]))
