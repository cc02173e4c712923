"""What every recommender offers, and what they share: the vocabulary and the weights of event kinds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import numpy as np
import pandas as pd

from models.arrays import AnyArray, Float32
from stream.events import KINDS

if TYPE_CHECKING:
    from models.data.interactions import Batch, Log


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
"""How much an event of a kind says for its item; other kinds (skip, dislike, hide, remove, cancel): nothing.

A domain's preset may say otherwise: a vocabulary carries the table that it was made with.
"""


def weights_of(kinds: Mapping[str, float]) -> tuple[float, ...]:
    """The weights by event code, 0 for kinds that are not named."""
    return tuple(float(kinds.get(kind, 0.0)) for kind in KINDS)


WEIGHTS: Final = weights_of(KIND_WEIGHTS)
RECENCY_MS: Final = 28 * 24 * 60 * 60 * 1000
"""Half-life of the popularity that orders what nothing else tells apart."""


class Vocabulary(msgspec.Struct, frozen=True):
    """The items that a recommender knows, the most popular first: position is the item's index.

    `weights` says by event code how much an event speaks for its item; `recency_ms` is popularity's half-life.
    """

    item_ids: list[str]
    index: dict[str, int]
    weights: tuple[float, ...] = WEIGHTS
    recency_ms: float = RECENCY_MS

    @classmethod
    def of(
        cls, item_ids: Sequence[str], weights: tuple[float, ...] = WEIGHTS, recency_ms: float = RECENCY_MS
    ) -> "Vocabulary":
        return cls(list(item_ids), {item: number for number, item in enumerate(item_ids)}, weights, recency_ms)

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        min_count: int = 1,
        most: int = 1_000_000,
        weights: tuple[float, ...] = WEIGHTS,
        recency_ms: float = RECENCY_MS,
    ) -> "Vocabulary":
        """Items with at least `min_count` events, by falling count, ties by id."""
        counts = frame["item_id"].value_counts()
        kept = counts[counts >= min_count].reset_index()
        kept.columns = pd.Index(["item_id", "n"])
        ordered = kept.sort_values(["n", "item_id"], ascending=[False, True])["item_id"].tolist()
        return cls.of(ordered[:most], weights, recency_ms)

    def __len__(self) -> int:
        return len(self.item_ids)


class Recommender(Protocol):
    """Fitted on a log of interactions, then asked for scores of every item of its vocabulary."""

    name: str
    vocabulary: Vocabulary

    def fit(self, log: "Log") -> None:
        """Learn from interactions."""

    def score(self, batch: "Batch") -> Float32:
        """float32 [batch, items]: higher is better; finite; a history of nothing known gives popularity's order."""

    def probabilities(self, batch: "Batch") -> Float32:
        """float32 [batch, items]: the same order as shares that sum to one, so that recommenders can be blended."""

    def add(self, out: Float32, batch: "Batch", weights: Float32) -> None:
        """Add in place to `out` [batch, items] the probabilities times `weights` [batch]."""

    def save(self, folder: Path, prefix: str = "") -> list[str]:
        """Write the recommender's files into `folder`, each name beginning with `prefix`; their names."""

    def describe(self) -> dict[str, Any]:
        """Parameters, as JSON can hold them; with the files they are all that serving needs."""


def add_dense(out: Float32, probabilities: Float32, weights: Float32) -> None:
    """Add in place `weights` [batch] times whole rows."""
    out += weights[:, None] * probabilities


def shares(scores: Float32) -> Float32:
    """float32 [batch, items]: what is negative counts nothing, the rest sums to one in each row."""
    kept = np.maximum(scores, 0.0)
    return kept / np.maximum(kept.sum(axis=1, keepdims=True), np.float32(1e-12))


def write_arrays(folder: Path, prefix: str, arrays: Mapping[str, AnyArray]) -> list[str]:
    """Each array as `<prefix><name>.npy`; the names."""
    for name, array in arrays.items():
        np.save(folder / f"{prefix}{name}.npy", array, allow_pickle=False)
    return [f"{prefix}{name}.npy" for name in arrays]
