"""Recommenders that only count: popularity, and item-kNN over users' histories. Fitted in seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from features.activity import Recent
from models.recommenders.base import KIND_WEIGHTS, Floats, Vocabulary, positive

RECENCY: Final = 0.85
"""What a history's item weighs against the one after it."""
TIE: Final = 1e-6
"""Weight of popularity beside the neighbours' sum: it orders what has no neighbour in the history."""
DAY_MS: Final = 24 * 60 * 60 * 1000


class Popularity:
    """Events per item, each weighing 2^(-age / half-life); the same answer for everyone."""

    name = "popularity"

    def __init__(self, half_life_ms: int | None = 28 * DAY_MS, min_count: int = 1) -> None:
        self.half_life_ms = half_life_ms
        self.min_count = min_count
        self.vocabulary = Vocabulary.of([])
        self.counts: Floats = np.zeros(0, np.float32)

    def fit(self, frame: pd.DataFrame) -> None:
        self.vocabulary = Vocabulary.fit(frame, self.min_count)
        self.counts = popularity_of(frame, self.vocabulary, self.half_life_ms)

    def scores(self, histories: Sequence[Recent]) -> Floats:
        return np.tile(self.counts, (len(histories), 1))

    def save(self, folder: Path) -> list[str]:
        np.save(folder / "popularity.npy", self.counts, allow_pickle=False)
        return ["popularity.npy"]


class ItemKNN:
    """Cosine similarity between items over the users that share them, shrunk, the nearest `neighbours` kept.

    sim(i, j) = c_ij / (sqrt(c_i c_j) + shrink), with c_ij the users who took both (Sarwar et al., WWW 2001, section 3;
    shrinkage as in Dacrema et al., RecSys 2019).
    """

    name = "item-knn"

    def __init__(self, neighbours: int = 50, shrink: float = 10.0, min_count: int = 1) -> None:
        self.neighbours = neighbours
        self.shrink = shrink
        self.min_count = min_count
        self.vocabulary = Vocabulary.of([])
        self.popularity: Floats = np.zeros(0, np.float32)
        self.indices: npt.NDArray[np.int32] = np.zeros((0, neighbours), np.int32)
        self.weights: Floats = np.zeros((0, neighbours), np.float32)

    def fit(self, frame: pd.DataFrame) -> None:
        self.fit_to(frame, Vocabulary.fit(frame, self.min_count))

    def fit_to(self, frame: pd.DataFrame, vocabulary: Vocabulary) -> None:
        """Fit over a vocabulary that is given: a neural release keeps neighbours for its own items."""
        self.vocabulary = vocabulary
        self.popularity = popularity_of(frame, vocabulary, 28 * DAY_MS)
        self.indices, self.weights = neighbours(_matrix(frame, self.vocabulary), self.neighbours, self.shrink)

    def scores(self, histories: Sequence[Recent]) -> Floats:
        return knn_scores(histories, self.vocabulary, self.indices, self.weights, self.popularity)

    def save(self, folder: Path) -> list[str]:
        arrays = {"popularity": self.popularity, "neighbours": self.indices, "similarities": self.weights}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        return [f"{name}.npy" for name in arrays]


def knn_scores(
    histories: Sequence[Recent],
    vocabulary: Vocabulary,
    indices: npt.NDArray[np.int32],
    weights: Floats,
    popularity: Floats,
) -> Floats:
    """float32 [batch, items]: the sum of similarities to a history's items, recent ones weighing more."""
    out = np.tile(popularity * (TIE / max(float(popularity.max(initial=0.0)), 1e-12)), (len(histories), 1))
    for row, history in enumerate(histories):
        known, kinds = positive(history, vocabulary)
        if not known:
            continue
        age = np.arange(len(known) - 1, -1, -1)
        factor = np.asarray(kinds, np.float32) * np.float32(RECENCY) ** age
        near, amount = indices[known], weights[known] * factor[:, None]
        kept = near >= 0
        out[row] += np.bincount(near[kept], amount[kept], len(vocabulary)).astype(np.float32)
    return out.astype(np.float32, copy=False)


def popularity_of(frame: pd.DataFrame, vocabulary: Vocabulary, half_life_ms: int | None) -> Floats:
    """float32 [items]: kind-weighted counts, decayed towards the newest event where a half-life is given."""
    codes = frame["item_id"].map(vocabulary.index).to_numpy(np.float64, na_value=-1.0).astype(np.int64)
    weights = frame["kind"].map(KIND_WEIGHTS).fillna(0.0).to_numpy(np.float64)
    if half_life_ms is not None and len(frame):
        at = frame["at"].to_numpy(np.int64)
        weights = weights * np.exp2(-(at.max() - at) / half_life_ms)
    known = codes >= 0
    return np.bincount(codes[known], weights[known], len(vocabulary)).astype(np.float32)


def neighbours(matrix: sparse.csr_matrix, k: int, shrink: float) -> tuple[npt.NDArray[np.int32], Floats]:
    """The k most similar items of each item: int32 and float32 [items, k], nearest first, -1 where there are fewer.

    Works through 2,000 items at a time, so memory is bounded whatever the catalogue.
    """
    items = matrix.shape[1]
    norm = np.sqrt(np.asarray(matrix.power(2).sum(axis=0)).ravel()).astype(np.float32)
    columns = matrix.T.tocsr()
    indices = np.full((items, k), -1, np.int32)
    weights = np.zeros((items, k), np.float32)
    for start in range(0, items, 2_000):
        block = (columns[start : start + 2_000] @ matrix).tocsr()
        for row in range(block.shape[0]):
            first, last = block.indptr[row], block.indptr[row + 1]
            others, shared = block.indices[first:last], block.data[first:last]
            item = start + row
            apart = others != item
            others = others[apart]
            similar = shared[apart] / (norm[others] * norm[item] + shrink)
            if len(others) > k:
                best = np.argpartition(-similar, k)[:k]
                others, similar = others[best], similar[best]
            order = np.lexsort((others, -similar))
            indices[item, : len(order)] = others[order]
            weights[item, : len(order)] = similar[order]
    return indices, weights


def _matrix(frame: pd.DataFrame, vocabulary: Vocabulary, most_per_user: int = 500) -> sparse.csr_matrix:
    """float32 [users, items], 1 where a user took an item; a user's newest `most_per_user` distinct items count."""
    weighty = frame[frame["kind"].map(KIND_WEIGHTS).fillna(0.0) > 0]
    pairs = weighty[["user_id", "item_id"]].drop_duplicates(keep="last")
    pairs = pairs.groupby("user_id", sort=False).tail(most_per_user)
    columns = pairs["item_id"].map(vocabulary.index)
    known = columns.notna().to_numpy()
    rows = pd.factorize(pairs["user_id"])[0][known]
    ones = np.ones(len(rows), np.float32)
    shape = (int(rows.max(initial=-1)) + 1, len(vocabulary))
    return sparse.csr_matrix((ones, (rows, columns[known].to_numpy(np.int64))), shape)
