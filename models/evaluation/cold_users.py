"""Cold-user folds: users are held out whole, and asked for what they took after their first few events.

Every user with six or more positive events is cold in exactly one fold. Of a cold user the first k events are known,
and the events 1 to 5 places after them are the targets, each asked at its own moment. Within each fold some of the
training users are held out in the same way: parameters and weights are tuned on them, and never on cold users.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import numpy as np
import pandas as pd

from features.activity import FoldSettings, History
from models.arrays import Bool, Int64, Objects
from models.data.profiles import Profile, ProfileHistory, RequestContext
from models.data.vocabulary import DEFAULT_KIND_WEIGHTS
from models.errors import TrainingError
from stream.events import KIND_CODES

KNOWN: Final = (0, 1, 2, 3, 5)
"""Numbers of known events, unless others are given."""
HORIZONS: Final = 5
"""The events so many places after the known ones are asked."""
MIN_EVENTS: Final = 6
"""A user with fewer positive events is never cold."""
SAME_TARGET: Final = 5
"""The position (from 0) of the target that is the same for every k: the sixth event."""
WARM_EVENTS: Final = 20
"""A user with as many positive events is warm."""
TUNED_EVENTS: Final = 7
"""A training user with as many positive events may be asked for the last one while weights are tuned."""


SHORT_USERS: Final = 300
"""At most so many users are held out for the weights of short histories."""
SHORT_FOLDS: Final = 10
"""Of the users who could be held out for them, one in so many is."""
FEWEST_SHORT_USERS: Final = 20
"""With fewer of them nobody is held out."""
SHORT_KS: Final = (0, 1, 2, 3, 4, 5)


class FoldPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How users are held out.

    `ks`: numbers of known events, ascending. `most_users`: at most so many cold users in all folds together (None:
    all). `tuning_users`: at most so many users of a fold are held out for tuning, and a fifth of those that could be.
    `weights`: kind weights by event code. `length`: newest events of a warm user's history.
    """

    ks: tuple[int, ...] = KNOWN
    horizons: int = HORIZONS
    folds: int = 5
    seed: int = 0
    most_users: int | None = None
    tuning_users: int = 1_000
    weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS
    length: int = FoldSettings().history_length


class Episode(msgspec.Struct, frozen=True):
    """What is known of a user, and the events that are asked.

    `k`: number of known events. `history`: those events, oldest first. `targets`, `times` (epoch ms), `horizons`: the
    item, the moment, and the distance from the last known event of each asked event. `seen`: items of known events.
    `profile`: what was known of the user before the first asked event.
    """

    user_id: str
    k: int
    history: History
    targets: list[str]
    times: list[int]
    horizons: list[int]
    seen: frozenset[str]
    profile: Profile | None = None

    def context(self, question: int) -> RequestContext:
        """The request for one of the asked events."""
        return RequestContext(self.profile, self.times[question])


class Holdout(msgspec.Struct, frozen=True):
    """Events to fit on, the episodes of users who are not in them, and warm users' last events.

    `warm`: one episode for each warm user, whose history is all but the last event; `training` has that history.
    """

    training: pd.DataFrame
    cold: list[Episode]
    warm: list[Episode]


class ColdFold(msgspec.Struct, frozen=True):
    """A fold. `tuning` holds out other users of `test.training`; it knows nothing of the cold users of `test`."""

    number: int
    test: Holdout
    tuning: Holdout


class ColdUserFolds:
    """The folds of a frame [user_id, item_id, kind, at]; iterate over them.

    Raises:
        TrainingError: there are fewer cold users than folds.
    """

    def __init__(
        self, frame: pd.DataFrame, plan: FoldPlan | None = None, profiles: ProfileHistory | None = None
    ) -> None:
        self.plan, self.profiles = plan or FoldPlan(), profiles
        self.frame = frame.sort_values("at", kind="stable").reset_index(drop=True)
        codes, names = pd.factorize(self.frame["user_id"].to_numpy())
        self._codes, self._names = codes.astype(np.int64), np.asarray(names, object)
        kinds = self.frame["kind"].map(KIND_CODES).to_numpy(np.int64)
        positive = np.array(self.plan.weights)[kinds] > 0
        rows = np.flatnonzero(positive)
        rows = rows[np.argsort(self._codes[rows], kind="stable")]
        self._rows = np.split(rows, np.searchsorted(self._codes[rows], np.arange(1, len(names))))
        self._counts = np.array([len(own) for own in self._rows], np.int64)
        self._items, self._kinds = self.frame["item_id"].to_numpy(object), kinds
        self._times = self.frame["at"].to_numpy(np.int64)
        self._fold = self._assigned()
        cold = int((self._fold >= 0).sum())
        if cold < self.plan.folds:
            raise TrainingError(
                f"{cold} users have {MIN_EVENTS} or more events; {self.plan.folds} folds of cold users need more, "
                "or fewer folds"
            )

    @property
    def users(self) -> list[str]:
        """Every user who is cold in a fold, in the order of their first event."""
        return [str(name) for name in self._names[self._fold >= 0]]

    @property
    def repeat_share(self) -> float:
        """The share of cold users' events whose item they took before."""
        repeats = [len(own) - len(set(self._items[own].tolist())) for own in self._rows]
        return float(sum(repeats) / max(1, int(self._counts.sum())))

    def __len__(self) -> int:
        return self.plan.folds

    def __iter__(self) -> Iterator[ColdFold]:
        return (self.fold(number) for number in range(self.plan.folds))

    def fold(self, number: int) -> ColdFold:
        """The fold of a number from 0."""
        plan = self.plan
        cold = np.flatnonzero(self._fold == number)
        warm = np.flatnonzero((self._fold == (number + 1) % plan.folds) & (self._counts >= WARM_EVENTS))
        held_out = np.zeros(len(self._names), np.bool_)
        held_out[cold] = True
        last = self._last_rows(warm)
        kept = ~held_out[self._codes] & ~self._after(last)
        test = Holdout(self.frame[kept], self._episodes(cold), self._warm_episodes(warm, last))
        assert not set(test.training["user_id"].unique()) & {episode.user_id for episode in test.cold}
        return ColdFold(number, test, self._tuning(number, kept, np.flatnonzero(~held_out)))

    def cold_only(self, number: int) -> Holdout:
        """A fold's cold users alone: nothing is held out of the other users."""
        cold = np.flatnonzero(self._fold == number)
        others = ~np.isin(self._codes, cold)
        return Holdout(self.frame[others], self._episodes(cold), [])

    def _tuning(self, number: int, kept: Bool, users: Int64) -> Holdout:
        """Some training users held out whole, and the last event of others, from the events that are `kept`."""
        rng = np.random.default_rng([self.plan.seed, number])
        users = rng.permutation(users[self._counts[users] >= MIN_EVENTS])
        cold = np.sort(users[: min(self.plan.tuning_users, len(users) // 5)])
        rows = [own[kept[own]] for own in self._rows]
        others = users[len(cold) :]
        warm = np.sort([user for user in others if len(rows[user]) >= TUNED_EVENTS][: self.plan.tuning_users])
        last = np.array([rows[user][-1] for user in warm], np.int64)
        held_out = np.zeros(len(self._names), np.bool_)
        held_out[cold] = True
        fitted = kept & ~held_out[self._codes] & ~self._after(last)
        return Holdout(self.frame[fitted], self._episodes(cold, rows), self._warm_episodes(warm, last))

    def _assigned(self) -> Int64:
        """int64 [users]: the fold in which each user is cold, -1 for none."""
        able = np.flatnonzero(self._counts >= MIN_EVENTS)
        able = np.random.default_rng(self.plan.seed).permutation(able)[: self.plan.most_users]
        fold = np.full(len(self._names), -1, np.int64)
        fold[able] = np.arange(len(able)) % self.plan.folds
        return fold

    def _last_rows(self, users: Int64) -> Int64:
        return np.array([self._rows[user][-1] for user in users], np.int64)

    def _after(self, rows: Int64) -> Bool:
        """bool [events]: the events at these rows, and all later ones of their users."""
        first = np.full(len(self._names), len(self.frame), np.int64)
        first[self._codes[rows]] = rows
        after: Bool = np.arange(len(self.frame)) >= first[self._codes]
        return after

    def _episodes(self, users: Int64, rows: Sequence[Int64] | None = None) -> list[Episode]:
        rows = rows if rows is not None else self._rows
        return [
            self._episode(rows[user], k, _asked(k, len(rows[user]), self.plan.horizons))
            for user in users
            for k in self.plan.ks
            if len(rows[user]) > max(k, SAME_TARGET)
        ]

    def _warm_episodes(self, users: Int64, last: Int64) -> list[Episode]:
        episodes = []
        for user, row in zip(users.tolist(), last.tolist(), strict=True):
            own = self._rows[user]
            position = int(np.searchsorted(own, row))
            episodes.append(self._episode(own, position, [position]))
        return episodes

    def _episode(self, rows: Int64, k: int, positions: list[int]) -> Episode:
        known, targets = rows[:k], rows[positions]
        newest = known[-self.plan.length :]
        user = str(self._names[self._codes[rows[0]]])
        items = [str(item) for item in self._items[newest]]
        history = History(items, self._kinds[newest].tolist(), self._times[newest].tolist(), [None] * len(items))
        times = self._times[targets].tolist()
        profile = self.profiles.before(user, times[0]) if self.profiles is not None else None
        horizons = [position - k + 1 for position in positions]
        seen = frozenset(_strings(self._items[known]))
        return Episode(user, k, history, _strings(self._items[targets]), times, horizons, seen, profile)


def short_histories(
    frame: pd.DataFrame, weights: tuple[float, ...], seed: int, profiles: ProfileHistory | None = None
) -> tuple[pd.DataFrame, list[Episode]]:
    """The events without some users, and those users' first events and next ones: weights of short histories.

    Members that learned from a user would know that user's events, and their weights would be those of warm users.
    """
    most = SHORT_FOLDS * SHORT_USERS
    plan = FoldPlan(ks=SHORT_KS, folds=SHORT_FOLDS, seed=seed, most_users=most, weights=weights)
    try:
        held_out = ColdUserFolds(frame, plan, profiles).cold_only(0)
    except TrainingError:  # hardly anyone has six events
        return frame, []
    enough = len({episode.user_id for episode in held_out.cold}) >= FEWEST_SHORT_USERS
    return (held_out.training, held_out.cold) if enough else (frame, [])


def _asked(k: int, events: int, horizons: int) -> list[int]:
    """The positions of the events that are asked when the first k of a user's events are known."""
    positions = set(range(k, min(events, k + horizons)))
    return sorted(positions | ({SAME_TARGET} if k <= SAME_TARGET < events else set()))


def _strings(items: Objects) -> list[str]:
    return [str(item) for item in items]
