"""Small sets of interactions whose right answers are known by hand."""

import numpy as np
import pandas as pd

from features.activity import History
from features.catalogue import UserProfile
from models.data.profiles import ProfileHistory
from stream.events import KIND_CODES

VIEW = KIND_CODES["view"]
RING = 12
"""Users go round a ring of items: after item n comes n + 1."""
SATURDAY, MONDAY = 1_759_536_000_000, 1_759_708_800_000
"""Midnights, in UTC."""
YOUNG, OLD, STRANGE = ({"group": name} for name in ("young", "old", "martian"))


def ring(users: int = 60, steps: int = 20) -> pd.DataFrame:
    """Interactions of users who go round the ring, each from a place of its own."""
    rows = [
        (f"u{user}", f"i{(user + step) % RING}", "view", None, 1_000 * step + user)
        for step in range(steps)
        for user in range(users)
    ]
    rows += [("x", "i0", "view", None, 0)] * 5  # so that one item is the most popular
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "value", "at"]).sort_values("at", kind="stable")


def clubs() -> pd.DataFrame:
    """Half of the users take items 0 to 5, the others 6 to 11, each in an order of their own."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(80):
        first = 6 * (user % 2)
        for step, item in enumerate(rng.permutation(6)):
            rows.append((f"u{user}", f"i{first + item}", "view", None, 1_000 * step + user))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "value", "at"]).sort_values("at", kind="stable")


def history(*items: str, kind: int = VIEW) -> History:
    """A user's recent interactions, a second apart, all of one kind."""
    return History(list(items), [kind] * len(items), [1_000 * n for n in range(len(items))], [None] * len(items))


def starred() -> pd.DataFrame:
    """Everyone rates in a random order: even items get 5 stars, odd ones 1; item 0 has nothing but views."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item}", "rate" if item else "view", (1.0 if item % 2 else 5.0) if item else None, step * 1_000)
        for user in range(60)
        for step, item in enumerate(rng.permutation(RING))
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "value", "at"]).sort_values("at", kind="stable")


def tastes(by: str) -> tuple[pd.DataFrame, ProfileHistory]:
    """After `tea` the young take `a` and the old `b`; or everyone takes `a` on Mondays and `b` on Saturdays."""
    rows, people = [], []
    for user in range(60):
        group = "young" if user % 2 else "old"
        people.append(UserProfile(f"u{user}", 0, attributes={"group": group}))
        first = MONDAY if user % 4 < 2 else SATURDAY
        choice = group == "young" if by == "profile" else first == MONDAY
        rows += [(f"u{user}", "tea", "view", first + user), (f"u{user}", "a" if choice else "b", "view", first + 9_000)]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "kind", "at"]).sort_values("at", kind="stable")
    return frame, ProfileHistory.from_users(people)
