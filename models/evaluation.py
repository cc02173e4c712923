"""Ranking metrics over the full catalogue, on a split in time."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
import pandas as pd

from features.activity import Recent
from models.ranking import top_k
from models.recommenders.base import KIND_WEIGHTS, Floats, Vocabulary
from stream.events import KIND_CODES

BATCH: Final = 256


class Case(msgspec.Struct, frozen=True):
    """A user as of the cut: the history before it, the distinct items taken after it, in order."""

    user_id: str
    history: Recent
    targets: list[str]


def split(frame: pd.DataFrame, share: float) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Interactions before and from the cut on, and the cut (epoch ms): the newest `share` of events is held out."""
    cut = int(frame["at"].quantile(1 - share, interpolation="higher"))
    return frame[frame["at"] < cut], frame[frame["at"] >= cut], cut


def cases(
    before: pd.DataFrame, after: pd.DataFrame, length: int = 50, most: int | None = None, seed: int = 0
) -> list[Case]:
    """A case for every user with events on both sides; a seeded sample of `most` of them where there are more."""
    wanted = after[after["kind"].map(KIND_WEIGHTS).fillna(0.0) > 0]
    users = np.intersect1d(before["user_id"].unique(), wanted["user_id"].unique())
    if most is not None and len(users) > most:
        users = np.sort(np.random.default_rng(seed).choice(users, most, replace=False))
    known = before[before["user_id"].isin(users)].groupby("user_id", sort=True).tail(length)
    histories = {user: _recent(part) for user, part in known.groupby("user_id", sort=True)}
    targets = wanted[wanted["user_id"].isin(users)].drop_duplicates(["user_id", "item_id"])
    ordered = targets.groupby("user_id", sort=True)["item_id"].apply(list)
    return [Case(str(user), histories[user], list(ordered[user])) for user in users]


def evaluate(
    scores: Callable[[Sequence[Recent]], Floats],
    vocabulary: Vocabulary,
    held_out: Sequence[Case],
    k: int = 10,
    *,
    mask_seen: bool = False,
) -> dict[str, float]:
    """NDCG, HR, recall, MRR at k, averaged over users, and coverage: the share of the catalogue that is recommended.

    Every target counts, also those that the vocabulary lacks. With `mask_seen` a history's items cannot be recommended.
    """
    per_user = per_user_metrics(scores, vocabulary, held_out, k, mask_seen=mask_seen)
    figures = {name: float(values.mean()) if len(values) else 0.0 for name, values in per_user[0].items()}
    return {**figures, f"coverage@{k}": per_user[1] / max(1, len(vocabulary)), "users": float(len(held_out))}


def per_user_metrics(
    scores: Callable[[Sequence[Recent]], Floats],
    vocabulary: Vocabulary,
    held_out: Sequence[Case],
    k: int,
    *,
    mask_seen: bool,
) -> tuple[dict[str, np.ndarray], int]:
    """Each metric as float64 [users], and how many distinct items were recommended.

    NDCG as in Järvelin & Kekäläinen, TOIS 2002, with binary gains; its ideal has min(k, targets) hits.
    """
    discount = 1 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discount)
    found: dict[str, list[np.ndarray]] = {f"{name}@{k}": [] for name in ("ndcg", "hr", "recall", "mrr")}
    shown: set[int] = set()
    for start in range(0, len(held_out), BATCH):
        part = held_out[start : start + BATCH]
        table = np.array(scores([case.history for case in part]), np.float32)
        if mask_seen:
            for row, case in enumerate(part):
                table[
                    row, [vocabulary.index[item] for item in case.history.items if item in vocabulary.index]
                ] = -np.inf
        best, _ = top_k(table, k)
        shown.update(best.ravel().tolist())
        hits = np.array([_hits(best[row], case, vocabulary) for row, case in enumerate(part)], np.float64)
        sizes = np.array([len(case.targets) for case in part])
        found[f"ndcg@{k}"].append(hits @ discount / ideal[np.minimum(sizes, k) - 1])
        found[f"hr@{k}"].append(np.asarray(hits.any(axis=1), np.float64))
        found[f"recall@{k}"].append(hits.sum(axis=1) / sizes)
        found[f"mrr@{k}"].append(np.where(hits.any(axis=1), 1 / (1 + hits.argmax(axis=1)), 0.0))
    joined = {name: np.concatenate(values) if values else np.zeros(0) for name, values in found.items()}
    return joined, len(shown - {-1})


def interval(values: np.ndarray, rng: np.random.Generator, resamples: int = 2_000) -> tuple[float, float]:
    """95% interval of the mean by bootstrap over users."""
    drawn = rng.choice(values, (resamples, len(values)), replace=True).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _hits(best: np.ndarray, case: Case, vocabulary: Vocabulary) -> np.ndarray:
    wanted = {vocabulary.index[item] for item in case.targets if item in vocabulary.index}
    return np.array([place in wanted for place in best.tolist()])


def _recent(part: pd.DataFrame) -> Recent:
    kinds = [KIND_CODES[kind] for kind in part["kind"]]
    return Recent(part["item_id"].tolist(), kinds, part["at"].tolist(), [None] * len(part))
