"""What every recommender offers, and what they share: the vocabulary and the weights of event kinds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from models.arrays import AnyArray, Float32, Int32
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary


class Recommender(Protocol):
    """Fitted on a log of interactions, then asked for scores of every item of its vocabulary."""

    name: str
    vocabulary: Vocabulary

    def fit(self, log: Interactions) -> None:
        """Learn from interactions."""

    def score(self, batch: Batch) -> Float32:
        """float32 [batch, items]: higher is better; finite; a history of nothing known gives popularity's order."""

    def probabilities(self, batch: Batch) -> Float32:
        """float32 [batch, items]: the same order as shares that sum to one, so that recommenders can be blended."""

    def add(self, out: Float32, batch: Batch, weights: Float32) -> None:
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
    result: Float32 = kept / np.maximum(kept.sum(axis=1, keepdims=True), np.float32(1e-12))
    return result


def write_arrays(folder: Path, prefix: str, arrays: Mapping[str, AnyArray]) -> list[str]:
    """Each array as `<prefix><name>.npy`; the names."""
    for name, array in arrays.items():
        np.save(folder / f"{prefix}{name}.npy", array, allow_pickle=False)
    return [f"{prefix}{name}.npy" for name in arrays]


def add_repeats(scores: Float32, items: Int32, repeats: Float32) -> None:
    """Add in place to `scores` float32 [batch, items] what items gain by being in the history.

    `items` int32 [batch, length]: item numbers, 0 for padding; `repeats` float32 [length]: the gain by the event's age.
    """
    rows, columns = np.nonzero(items)
    np.add.at(scores, (rows, items[rows, columns] - 1), repeats[items.shape[1] - 1 - columns])
