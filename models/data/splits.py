"""Splits of interactions into training and held-out events, and the evaluation cases that a split gives."""

from collections.abc import Sequence
from typing import Final, Literal, get_args

import msgspec
import numpy as np
import pandas as pd

from features.activity import History
from models.arrays import AnyArray, Bool, Int64
from models.data.batch import Batch, batch_histories
from models.data.profiles import Profile, ProfileHistory, RequestContext
from models.data.vocabulary import DEFAULT_KIND_WEIGHTS, Vocabulary
from models.errors import ModelError
from stream.events import KIND_CODES

SplitName = Literal["leave-one-out", "last-days", "last-share", "random"]
SPLIT_NAMES: Final = get_args(SplitName)
MIN_EVENTS: Final = 3
"""Leave-one-out holds nothing out of a user with fewer positive events."""
DAY_MS: Final = 24 * 60 * 60 * 1000


class SplitError(ModelError):
    """The split does not exist, or its amount is out of range."""


class SplitProtocol(msgspec.Struct, frozen=True):
    """`leave-one-out`, `last-days:7`, `last-share:0.05` or `random:0.2`; `amount` is in days, or a share."""

    name: SplitName
    amount: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "SplitProtocol":
        """Read a protocol from its text.

        Raises:
            SplitError: naming what was given and what is allowed.
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


class EvaluationCase(msgspec.Struct, frozen=True):
    """A user at the cut, and what the user did after it.

    `history`: the newest events before the cut, oldest first. `targets`: the distinct items of held-out positive
    events, in order. `at`: time of the first target, epoch ms. `seen`: every item with an event before the cut.
    `negatives`: items of held-out events without weight (skip, dislike, hide) that are not targets. `profile`: what was
    known of the user before `at`.
    """

    user_id: str
    history: History
    targets: list[str]
    at: int = 0
    seen: frozenset[str] = frozenset()
    negatives: list[str] = []
    profile: Profile | None = None

    @property
    def context(self) -> RequestContext:
        """The request as it would come at the first target."""
        return RequestContext(self.profile, self.at)


def split(
    frame: pd.DataFrame,
    protocol: SplitProtocol,
    seed: int = 0,
    kind_weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training events and held-out events; each event is in exactly one of the two.

    `frame` [user_id, item_id, kind, value, at] is in time order. Leave-one-out holds out each user's last positive
    event and all that follows it; a user with fewer than three positive events is not split. The other protocols hold
    out events of every kind. `kind_weights`, by event code, say which events are positive.
    """
    at = frame["at"].to_numpy(np.int64)
    if not len(frame):
        return frame, frame
    match protocol.name:
        case "last-days":
            held_out = at >= at.max() - round(protocol.amount * DAY_MS)
        case "last-share":
            held_out = at >= int(frame["at"].quantile(1 - protocol.amount, interpolation="higher"))
        case "random":
            held_out = np.random.default_rng(seed).random(len(frame)) < protocol.amount
        case "leave-one-out":
            held_out = _from_last_positive(frame, kind_weights)
    return frame[~held_out], frame[held_out]


def evaluation_cases(
    before: pd.DataFrame,
    after: pd.DataFrame,
    length: int = 50,
    max_users: int | None = None,
    seed: int = 0,
    kind_weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS,
    profiles: ProfileHistory | None = None,
) -> list[EvaluationCase]:
    """A case for every user with events before the cut and a target after it; a seeded sample of `max_users`.

    With `profiles` each case has what was known of its user before the first target.
    """
    positive = after[_is_positive(after, kind_weights)]
    users = np.intersect1d(before["user_id"].unique(), positive["user_id"].unique())
    if max_users is not None and len(users) > max_users:
        users = np.sort(np.random.default_rng(seed).choice(users, max_users, replace=False))
    known, held_out = _columns_of(before, users), _columns_of(after, users)
    evaluation_cases = []
    for user in users:
        old, new = known[user], held_out[user]
        chosen = np.array(kind_weights)[new[1]] > 0
        targets = list(dict.fromkeys(new[0][chosen].tolist()))
        rejected = dict.fromkeys(new[0][~chosen].tolist())
        items, kinds, times = (column[-length:].tolist() for column in old)
        at = int(new[2][chosen][0])
        evaluation_cases.append(
            EvaluationCase(
                user_id=str(user),
                history=History(items, kinds, times, [None] * len(items)),
                targets=targets,
                at=at,
                seen=frozenset(old[0].tolist()),
                negatives=[item for item in rejected if item not in targets],
                profile=profiles.before(str(user), at) if profiles is not None else None,
            )
        )
    return evaluation_cases


def batch_cases(evaluation_cases: Sequence[EvaluationCase], vocabulary: Vocabulary, length: int) -> Batch:
    """The cases' histories and contexts as a batch."""
    histories, contexts = [case.history for case in evaluation_cases], [case.context for case in evaluation_cases]
    return batch_histories(histories, vocabulary, length, contexts)


def repeat_share(evaluation_cases: Sequence[EvaluationCase]) -> float:
    """The share of targets that their user took before."""
    pairs = [item in case.seen for case in evaluation_cases for item in case.targets]
    return float(np.mean(pairs)) if pairs else 0.0


def _codes(frame: pd.DataFrame) -> Int64:
    """int64 [events]: event codes."""
    return np.asarray(frame["kind"].map(KIND_CODES), np.int64)


def _is_positive(frame: pd.DataFrame, kind_weights: tuple[float, ...]) -> Bool:
    """bool [events]: whether an event's kind has a weight above 0."""
    return np.asarray(np.array(kind_weights)[_codes(frame)] > 0)


def _from_last_positive(frame: pd.DataFrame, kind_weights: tuple[float, ...]) -> Bool:
    """bool [events]: each user's last positive event and all after it, of users with at least three positive events."""
    users = pd.factorize(frame["user_id"])[0]
    positive = _is_positive(frame, kind_weights)
    last = np.full(int(users.max()) + 1, -1, np.int64)
    last[users[positive]] = np.flatnonzero(positive)  # the last assignment stays: rows are in time order
    enough = np.bincount(users[positive], minlength=len(last)) >= MIN_EVENTS
    held_out: Bool = enough[users] & (np.arange(len(frame)) >= last[users])
    return held_out


def _columns_of(frame: pd.DataFrame, users: AnyArray) -> dict[str, tuple[AnyArray, Int64, Int64]]:
    """Items, event codes and times (epoch ms) of each of `users`, in time order."""
    part = frame[frame["user_id"].isin(users)]
    codes, names = pd.factorize(part["user_id"].to_numpy())
    order = np.argsort(codes, kind="stable")
    columns = (part["item_id"].to_numpy()[order], _codes(part)[order], part["at"].to_numpy(np.int64)[order])
    cuts = np.searchsorted(codes[order], np.arange(1, len(names)))
    pieces = [np.split(column, cuts) for column in columns]
    return {str(name): (pieces[0][n], pieces[1][n], pieces[2][n]) for n, name in enumerate(names)}
