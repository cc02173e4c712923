"""Small shops for tests: random events, and users on a ring of items."""

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

NOON: Final = 1_760_000_000_000
RING: Final = 30
"""Items of the ring."""


def random_shop(users: int = 40, seed: int = 0, *, fewest: int = 3) -> pd.DataFrame:
    """Users of `fewest` to 30 events on 25 items, in time order, with ties."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"u{user}", f"i{rng.integers(0, 25)}", "purchase", int(at))
        for user in range(users)
        for at in np.sort(rng.integers(0, 400, rng.integers(fewest, 31)))
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]).sort_values("at", kind="stable")


def write_ring_events(path: Path, users: int) -> Path:
    """A file of users who go round a ring of items; no item repeats within a user."""
    rng = np.random.default_rng(0)
    rows = ["user_id,item_id,at,kind"]
    for user in range(users):
        start = int(rng.integers(RING))
        rows += [
            f"u{user},i{(start + step) % RING},{NOON + 60_000 * int(rng.integers(5)) + 3_600_000 * step},purchase"
            for step in range(int(rng.integers(4, 26)))
        ]
    path.write_text("\n".join(rows) + "\n")
    return path
