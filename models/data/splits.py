"""What is held out: splits of a log of interactions, and the cases that they make."""

from collections.abc import Sequence
from typing import Final, Literal, get_args

import msgspec
import numpy as np
import pandas as pd

from features.activity import History
from models.data.interactions import Batch, batch_of
from models.data.profiles import Asking, Attributes, Profiles
from models.errors import ModelError
from models.recommenders.base import WEIGHTS, Vocabulary
from stream.events import KIND_CODES

Name = Literal["leave-one-out", "last-days", "last-share", "random"]
NAMES: Final = get_args(Name)
LEAST: Final = 3
"""Leave-one-out holds nothing out of a user with fewer events that speak for an item."""


class SplitError(ModelError):
    """A split that does not exist, or that does not fit."""


class Protocol(msgspec.Struct, frozen=True):
    """`leave-one-out`, `last-days:7`, `last-share:0.05` or `random:0.2`; `amount` is in days, or a share."""

    name: Name
    amount: float = 0.0

    @classmethod
    def of(cls, text: str) -> "Protocol":
        """Read a protocol as it is written.

        Raises:
            SplitError: naming what was given and what may be.
        """
        name, _, rest = text.strip().partition(":")
        if name == "leave-one-out" and not rest:
            return cls("leave-one-out")
        try:
            amount = float(rest)
        except ValueError:
            amount = float("nan")
        if name == "last-days" and 0 < amount < float("inf"):
            return cls("last-days", amount)
        if name in {"last-share", "random"} and 0 < amount < 1:
            return cls("last-share" if name == "last-share" else "random", amount)
        raise SplitError(
            f"{text!r} is no split; give leave-one-out, last-days:N (N days), last-share:S or random:S (0 < S < 1)"
        )

    def __str__(self) -> str:
        return self.name if self.name == "leave-one-out" else f"{self.name}:{self.amount:g}"


class Case(msgspec.Struct, frozen=True):
    """A user as of the cut.

    `history`: the newest events before it, oldest first. `targets`: the distinct held-out items whose kind speaks for
    them, in order. `at`: time of the first target, epoch ms. `seen`: every item with an event before the cut.
    `negatives`: held-out items whose kind says nothing for them (skip, dislike, hide), unless they are targets too.
    `profile`: what was known of the user before `at`.
    """

    user_id: str
    history: History
    targets: list[str]
    at: int = 0
    seen: frozenset[str] = frozenset()
    negatives: list[str] = []
    profile: Attributes | None = None

    @property
    def asking(self) -> Asking:
        """Who asks, and when: the moment of the first target."""
        return Asking(self.profile, self.at)


def split(
    frame: pd.DataFrame, protocol: Protocol, seed: int = 0, weights: tuple[float, ...] = WEIGHTS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Interactions that may be learned from, and those held out; each event is in exactly one of the two.

    `frame` [user_id, item_id, kind, value, at] is in time order. Leave-one-out holds out each user's last event that
    speaks for an item, and what the user did after it; a user with fewer than three such events stays whole. The others
    hold out events of every kind. `weights` say by event code what speaks for an item.
    """
    at = frame["at"].to_numpy(np.int64)
    if not len(frame):
        return frame, frame
    match protocol.name:
        case "last-days":
            out = at >= at.max() - round(protocol.amount * 24 * 60 * 60 * 1000)
        case "last-share":
            out = at >= int(frame["at"].quantile(1 - protocol.amount, interpolation="higher"))
        case "random":
            out = np.random.default_rng(seed).random(len(frame)) < protocol.amount
        case "leave-one-out":
            out = _from_last(frame, weights)
    return frame[~out], frame[out]


def cases(
    before: pd.DataFrame,
    after: pd.DataFrame,
    length: int = 50,
    most: int | None = None,
    seed: int = 0,
    weights: tuple[float, ...] = WEIGHTS,
    profiles: Profiles | None = None,
) -> list[Case]:
    """A case for every user with events before and a target after; a seeded sample of `most` where there are more.

    With `profiles` each has what was known of its user before the first target.
    """
    wanted = after[_speaks(after, weights)]
    users = np.intersect1d(before["user_id"].unique(), wanted["user_id"].unique())
    if most is not None and len(users) > most:
        users = np.sort(np.random.default_rng(seed).choice(users, most, replace=False))
    known, held = _rows_of(before, users), _rows_of(after, users)
    made = []
    for user in users:
        old, new = known[user], held[user]
        speaks = np.array(weights)[new[1]] > 0
        targets = list(dict.fromkeys(new[0][speaks].tolist()))
        against = dict.fromkeys(new[0][~speaks].tolist())
        items, kinds, times = (column[-length:].tolist() for column in old)
        history = History(items, kinds, times, [None] * len(items))
        at, seen = int(new[2][speaks][0]), frozenset(old[0].tolist())
        profile = profiles.at(str(user), at) if profiles is not None else None
        negatives = [one for one in against if one not in targets]
        made.append(Case(str(user), history, targets, at, seen, negatives, profile))
    return made


def batch(held_out: Sequence[Case], vocabulary: Vocabulary, length: int) -> Batch:
    """The cases as a recommender is asked for them."""
    histories, asking = [one.history for one in held_out], [one.asking for one in held_out]
    return batch_of(histories, vocabulary, length, asking)


def repeated(held_out: Sequence[Case]) -> float:
    """The share of targets that their user had before."""
    pairs = [item in case.seen for case in held_out for item in case.targets]
    return float(np.mean(pairs)) if pairs else 0.0


def _codes(frame: pd.DataFrame) -> np.ndarray:
    return frame["kind"].map(KIND_CODES).to_numpy(np.int64)


def _speaks(frame: pd.DataFrame, weights: tuple[float, ...]) -> np.ndarray:
    return np.asarray(np.array(weights)[_codes(frame)] > 0)


def _from_last(frame: pd.DataFrame, weights: tuple[float, ...]) -> np.ndarray:
    """bool [events]: from each user's last event that speaks for an item on, of users with at least three of them."""
    users = pd.factorize(frame["user_id"])[0]
    speaks = _speaks(frame, weights)
    last = np.full(int(users.max()) + 1, -1, np.int64)
    last[users[speaks]] = np.flatnonzero(speaks)  # the last assignment stays: rows are in time order
    enough = np.bincount(users[speaks], minlength=len(last)) >= LEAST
    found: np.ndarray = enough[users] & (np.arange(len(frame)) >= last[users])
    return found


def _rows_of(frame: pd.DataFrame, users: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Items, kind codes and times of each of `users`, in time order."""
    part = frame[frame["user_id"].isin(users)]
    codes, names = pd.factorize(part["user_id"].to_numpy())
    order = np.argsort(codes, kind="stable")
    columns = (part["item_id"].to_numpy()[order], _codes(part)[order], part["at"].to_numpy(np.int64)[order])
    cuts = np.searchsorted(codes[order], np.arange(1, len(names)))
    pieces = [np.split(column, cuts) for column in columns]
    return {str(name): (pieces[0][n], pieces[1][n], pieces[2][n]) for n, name in enumerate(names)}
