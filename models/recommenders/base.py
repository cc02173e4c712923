"""What every recommender offers, and what they share: the vocabulary and the weights of event kinds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from features.activity import Recent
from stream.events import KINDS

Floats = npt.NDArray[np.float32]

KIND_WEIGHTS: Final[Mapping[str, float]] = {
    "view": 0.3,
    "click": 0.5,
    "read": 0.7,
    "play": 0.7,
    "cart": 0.8,
    "save": 0.8,
    "like": 1.0,
    "rate": 1.0,
    "purchase": 1.0,
}
"""How much an event of a kind says for its item; other kinds (skip, dislike, hide, remove, cancel): nothing."""
CODE_WEIGHTS: Final = np.array([KIND_WEIGHTS.get(kind, 0.0) for kind in KINDS], np.float32)
REPEATS: Final = frozenset({"shop", "music"})
"""Domains in which an item that was seen is a fair answer again, unless a request says otherwise."""


class Vocabulary(msgspec.Struct, frozen=True):
    """The items that a recommender knows, the most popular first: position is the item's index."""

    item_ids: list[str]
    index: dict[str, int]

    @classmethod
    def of(cls, item_ids: Sequence[str]) -> "Vocabulary":
        return cls(list(item_ids), {item: number for number, item in enumerate(item_ids)})

    @classmethod
    def fit(cls, frame: pd.DataFrame, min_count: int = 1, most: int = 1_000_000) -> "Vocabulary":
        """Items with at least `min_count` events, by falling count, ties by id."""
        counts = frame["item_id"].value_counts()
        kept = counts[counts >= min_count].reset_index()
        kept.columns = pd.Index(["item_id", "n"])
        ordered = kept.sort_values(["n", "item_id"], ascending=[False, True])["item_id"].tolist()
        return cls.of(ordered[:most])

    def __len__(self) -> int:
        return len(self.item_ids)


class Recommender(Protocol):
    """Fitted on interactions, then asked for scores of every item of its vocabulary."""

    name: str
    vocabulary: Vocabulary

    def fit(self, frame: pd.DataFrame) -> None:
        """Learn from interactions [user_id, item_id, kind, value, at], in time order."""

    def scores(self, histories: Sequence[Recent]) -> Floats:
        """float32 [batch, items]: higher is better; finite; a history of nothing known gives popularity's order."""

    def save(self, folder: Path) -> list[str]:
        """Write the recommender's files into `folder`; their names."""


def positive(history: Recent, vocabulary: Vocabulary) -> tuple[list[int], list[float]]:
    """Indices and kind weights of a history's known items that speak for themselves, oldest first."""
    indices, weights = [], []
    for item, kind in zip(history.items, history.kinds, strict=True):
        place = vocabulary.index.get(item)
        weight = float(CODE_WEIGHTS[kind])
        if place is not None and weight > 0:
            indices.append(place)
            weights.append(weight)
    return indices, weights
