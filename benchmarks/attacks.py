"""Attacks on a log of interactions: false users that push one item, and noise among the events of real users.

An attack takes a frame [user_id, item_id, kind, value, at, ...] and gives another, longer one, in time order.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import pandas as pd

Chances = Callable[[np.ndarray], np.ndarray]
POPULAR: Final = 0.01
"""Half of what fills a bandwagon profile is of this share of the items, those of most events."""
SHILLING: Final[dict[str, Chances]] = {
    "random": lambda counts: np.ones(len(counts)),
    "average": lambda counts: counts,
    "bandwagon": lambda counts: np.where(counts >= np.quantile(counts, 1 - POPULAR), 1 / POPULAR, 1.0),
}
"""Chances of items to fill a profile, by their counts: evenly; as people take them; the most popular rather.

Without ratings the average attack of the literature (fillers rated as they are on average; Lam & Riedl, WWW 2004)
becomes fillers as frequent as they are.
"""
ATTACKS: Final = (*SHILLING, "noise")


def tail_item(frame: pd.DataFrame, rng: np.random.Generator) -> str:
    """One of the quarter of the items that have the fewest events, drawn."""
    counts = frame["item_id"].value_counts()
    rare = np.sort(counts[counts <= counts.quantile(0.25)].index.to_numpy(str))
    return str(rng.choice(rare))


def attacked(frame: pd.DataFrame, attack: str, share: float, target: str, rng: np.random.Generator) -> pd.DataFrame:
    """`share` of the users (shilling) or of the events (noise) is added.

    Raises:
        ValueError: no attack is called so.
    """
    if attack == "noise":
        more = noise(frame, share, rng)
    elif attack in SHILLING:
        more = profiles(frame, SHILLING[attack], share, target, rng)
    else:
        raise ValueError(f"no attack is called {attack!r}; there are {', '.join(ATTACKS)}")
    return pd.concat([frame, more]).sort_values("at", kind="stable").reset_index(drop=True)


def profiles(
    frame: pd.DataFrame, chances: Chances, share: float, target: str, rng: np.random.Generator
) -> pd.DataFrame:
    """False users as long as the median real one: fillers at times of real events, the target in the second half."""
    counts = frame["item_id"].value_counts().sort_index(kind="stable")
    weights = chances(counts.to_numpy(float))
    weights = np.where(counts.index == target, 0.0, weights)
    users = max(1, round(share * frame["user_id"].nunique()))
    length = max(2, int(frame.groupby("user_id").size().median()))
    length = min(length, int((weights > 0).sum()))
    kind, rows = frame["kind"].mode()[0], []
    for user in range(users):
        items = rng.choice(counts.index.to_numpy(str), length, replace=False, p=weights / weights.sum())
        items[rng.integers(length // 2, length)] = target
        times = np.sort(rng.choice(frame["at"].to_numpy(np.int64), length))
        rows += [(f"false-{user}", item, kind, np.nan, int(at)) for item, at in zip(items, times, strict=True)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "value", "at"])


def noise(frame: pd.DataFrame, share: float, rng: np.random.Generator) -> pd.DataFrame:
    """Events of real users with items drawn evenly, at times of events that they have."""
    rows = frame.iloc[np.sort(rng.choice(len(frame), max(1, round(share * len(frame)))))]
    items = rng.choice(np.sort(frame["item_id"].unique()), len(rows))
    return rows[["user_id", "kind", "value", "at"]].assign(item_id=items)
