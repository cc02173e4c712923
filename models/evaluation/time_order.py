"""Progressive evaluation of blends: events in the order of time, each asked before it is applied (prequential).

Recommenders are trained again at a stated interval, on what came before, as a training run does it: tuned or with
their defaults, weights fitted on tuning users. Live popularity counts until each event. What folds without a causal
cut hide is seen here: members that go stale, and training on later events.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from features.activity import History
from models.arrays import Bool, Float32, Float64, Int64
from models.data.batch import Batch, batch_histories
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.profiles import ProfileHistory, RequestContext
from models.data.vocabulary import Vocabulary
from models.errors import TrainingError
from models.evaluation.cold_ranking import MISSED, ranks_of
from models.evaluation.experiment import Experiment, ExperimentPlan
from models.evaluation.progressive import mean_interval, mean_ratio
from models.recommenders.base import Recommender
from models.recommenders.blend import bucket_of
from models.recommenders.registry import half_life_of, is_neural, spec
from stream.events import KIND_CODES
from stream.files import replacing

BLEND: Final = "blend"
NO_CLOCK: Final = "blend without live popularity"
GROUPS: Final = ("0", "1", "2", "3", "4", "5", "6-19", "20+")
"""Numbers of known events that are reported apart."""
EDGES: Final = (1, 2, 3, 4, 5, 6, 20)
BLOCK: Final = 64
Progress = Callable[[str, float, dict[str, float]], None]


class TimeOrderPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is trained and asked.

    `members`: of the blend, by name. `retrain_ms`: between two trainings. `warm_up`: share of the events, the oldest,
    that only train. `most_users`: at most so many users are asked, drawn with the seed (None: all). `training`: what
    each training is like.
    """

    members: tuple[str, ...]
    retrain_ms: int
    training: ExperimentPlan
    warm_up: float = 0.5
    most_users: int | None = None
    seed: int = 0


class Period(msgspec.Struct, frozen=True):
    """The answers between two trainings: `users` (codes) and `known` (earlier events) int64 [questions], and `ranks`
    int64 [questions, arms], 0 the best."""

    start: int
    users: Int64
    known: Int64
    ranks: Int64


class TimeOrder:
    """A log [user_id, item_id, kind, at] in time order, with the questions that are asked of it.

    Raises:
        TrainingError: no user has an event after the warm-up.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        plan: TimeOrderPlan,
        progress: Progress | None = None,
        *,
        catalogue: ItemFeatures | None = None,
        categories: Mapping[str, str] | None = None,
        profiles: ProfileHistory | None = None,
    ) -> None:
        codes = frame["kind"].map(KIND_CODES).to_numpy(np.int64)
        positive = np.array(plan.training.weights)[codes] > 0
        self.frame = frame[positive].sort_values("at", kind="stable").reset_index(drop=True)
        self.plan, self.progress = plan, progress or (lambda _stage, _done, _figures: None)
        self._known: dict[str, Any] = {"catalogue": catalogue, "categories": categories, "profiles": profiles}
        self._profiles = profiles
        self.times = self.frame["at"].to_numpy(np.int64)
        self.users = pd.factorize(self.frame["user_id"])[0].astype(np.int64)
        self._items = self.frame["item_id"].to_numpy(object)
        self._kinds = self.frame["kind"].map(KIND_CODES).to_numpy(np.int64)
        order = np.argsort(self.users, kind="stable")
        self._own = np.split(order, np.flatnonzero(np.diff(self.users[order])) + 1)
        self.start = int(self.times[min(int(plan.warm_up * len(self.times)), len(self.times) - 1)])
        self.rows = self._asked()
        if not len(self.rows):
            raise TrainingError("no user has an event after the warm-up: give a longer log")
        self.members = list(plan.members)
        self.cold_users = len(np.unique(self.users[self.rows][self.known(self.rows) == 0]))

    @property
    def arms(self) -> list[str]:
        return [*self.members, NO_CLOCK, BLEND]

    @property
    def starts(self) -> list[int]:
        """The times of the trainings (epoch ms) after which something is asked."""
        blocks = np.unique((self.times[self.rows] - self.start) // self.plan.retrain_ms)
        return [self.start + int(block) * self.plan.retrain_ms for block in blocks]

    def known(self, rows: Int64) -> Int64:
        """int64 [rows]: how many events of the user came before each; those of the same time are not known yet."""
        return np.array([len(self._before(int(row))) for row in rows], np.int64)

    def periods(self, folder: Path | None = None) -> Iterator[Period]:
        """The answers after each training; those that `folder` keeps are read from there."""
        for number, start in enumerate(self.starts):
            kept = folder / f"{start}.npz" if folder is not None else None
            period = _read(kept) if kept is not None and kept.exists() else self._period(start, kept)
            self.progress("questions", (number + 1) / len(self.starts), {})
            yield period

    def _period(self, start: int, kept: Path | None) -> Period:
        inside = (self.times[self.rows] >= start) & (self.times[self.rows] < start + self.plan.retrain_ms)
        rows = self.rows[inside]
        members, weights, masked = self._trained(start)
        ranks = [
            self._ranks(rows[first : first + BLOCK], members, weights, masked=masked)
            for first in range(0, len(rows), BLOCK)
        ]
        period = Period(start, self.users[rows], self.known(rows), np.concatenate(ranks))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with replacing(kept) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, users=period.users, known=period.known, ranks=period.ranks)
        return period

    def _trained(self, start: int) -> tuple[dict[str, Recommender], Float64, bool]:
        """The useful members as a training at `start` makes them, the weights float64 [2, buckets, members] without
        the clock and with it, and whether items of the history are masked."""
        before = self.frame[self.times < start]
        experiment = Experiment(before, self.plan.training, self.progress, **self._known)
        useful = [name for name in self.members if spec(name).useful(experiment.situation)]
        tuned = [experiment.tune(name) for name in useful]
        blended = experiment.blend(tuned)
        without = experiment.blend([member for member in tuned if half_life_of(member.name) is None])
        log = self._log(before, experiment.test.log.vocabulary if any(map(is_neural, useful)) else None)
        stream = Interactions.from_frame(self.frame, log.vocabulary)
        fitted = {
            member.name: experiment.fit(member, stream if half_life_of(member.name) is not None else log)
            for member in tuned
        }
        weights = np.zeros((2, *np.shape(blended.params["weights"])[:1], len(self.members)))
        for row, result in enumerate((without, blended)):
            columns = [self.members.index(member.name) for member in result.members]
            weights[row][:, columns] = result.params["weights"]
        return fitted, weights, experiment.masked

    def _log(self, frame: pd.DataFrame, vocabulary: Vocabulary | None) -> Interactions:
        """Events to fit on; encoders keep the vocabulary that they were trained with."""
        plan = self.plan.training
        return Interactions.from_frame(
            frame,
            vocabulary,
            min_count=plan.min_count,
            categories=self._known["categories"],
            item_features=self._known["catalogue"],
            profiles=self._profiles,
            kind_weights=plan.weights,
            popularity_half_life_ms=plan.recency_ms,
        )

    def _ranks(self, rows: Int64, members: Mapping[str, Recommender], weights: Float64, *, masked: bool) -> Int64:
        """int64 [rows, arms] of the targets: each member, then the blends. A member that is of no use misses all."""
        vocabulary = next(iter(members.values())).vocabulary
        batch = self._batch(rows, vocabulary)
        nothing = np.zeros((len(rows), len(vocabulary)), np.float32)
        tables = [members[name].probabilities(batch) if name in members else nothing for name in self.members]
        missing = [place for place, name in enumerate(self.members) if name not in members]
        buckets = bucket_of(batch.lengths)
        ranks = np.full((len(rows), len(self.arms)), MISSED, np.int64)
        for place, row in enumerate(rows.tolist()):
            target = vocabulary.index.get(str(self._items[row]))
            if target is None:
                continue
            table: Float32 = np.stack([rows[place] for rows in tables])
            scores = np.concatenate([table, weights[:, buckets[place]].astype(np.float32) @ table])
            if masked:
                scores[:, self._seen(row, vocabulary.index)] = -1.0
            ranks[place] = ranks_of(scores, target)
            ranks[place, missing] = MISSED
        return ranks

    def _batch(self, rows: Int64, vocabulary: Vocabulary) -> Batch:
        length = self.plan.training.history_length
        histories, contexts = [], []
        for row in rows.tolist():
            own = self._before(row)[-length:]
            items, kinds, times = self._items[own].tolist(), self._kinds[own].tolist(), self.times[own].tolist()
            histories.append(History(items, kinds, times, [None] * len(items)))
            user, at = str(self.frame["user_id"].iloc[row]), int(self.times[row])
            profile = self._profiles.before(user, at) if self._profiles is not None else None
            contexts.append(RequestContext(profile, at))
        return batch_histories(histories, vocabulary, length, contexts)

    def _before(self, row: int) -> Int64:
        own = self._own[int(self.users[row])]
        earlier: Int64 = own[self.times[own] < self.times[row]]
        return earlier

    def _seen(self, row: int, index: Mapping[str, int]) -> list[int]:
        return [index[item] for item in set(self._items[self._before(row)].tolist()) if item in index]

    def _asked(self) -> Int64:
        """int64 [questions]: the events after the warm-up, of all users or of a sample."""
        rows = np.flatnonzero(self.times >= self.start)
        users = np.unique(self.users[rows])
        if self.plan.most_users is not None and len(users) > self.plan.most_users:
            users = np.random.default_rng(self.plan.seed).choice(users, self.plan.most_users, replace=False)
        chosen: Bool = np.isin(self.users[rows], users)
        return rows[chosen]


def ndcg(ranks: Int64, k: int = 10) -> Float64:
    """float64, as `ranks`: NDCG@k of single targets."""
    return np.where(ranks < k, 1 / np.log2(np.minimum(ranks, k) + 2.0), 0.0)


def group_of(known: Int64) -> Int64:
    """int64: which of `GROUPS` a number of known events is in.

    >>> group_of(np.array([0, 5, 6, 19, 20])).tolist()
    [0, 5, 6, 6, 7]
    """
    return np.searchsorted(EDGES, known, side="right").astype(np.int64)


class GroupFigures(msgspec.Struct, frozen=True):
    """NDCG@10 of the questions with a number of known events: by arm, with 95% intervals over users; and the blend
    over the blend without live popularity, and over the best single recommender."""

    known: str
    questions: int
    users: int
    ndcg: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    best_single: str
    clock_gain: tuple[float, float, float]
    to_best_single: tuple[float, float, float]


def figures_of(periods: Sequence[Period], arms: Sequence[str], seed: int) -> list[GroupFigures]:
    """The figures of each group that has questions."""
    users = np.concatenate([period.users for period in periods])
    groups = group_of(np.concatenate([period.known for period in periods]))
    values = ndcg(np.concatenate([period.ranks for period in periods]))
    figures = []
    for number, label in enumerate(GROUPS):
        inside = np.flatnonzero(groups == number)
        if not len(inside):
            continue
        own, who, rng = values[inside], users[inside], np.random.default_rng([seed, number])
        means = dict(zip(arms, own.mean(axis=0).tolist(), strict=True))
        best = max((arm for arm in arms if arm not in {BLEND, NO_CLOCK}), key=lambda arm: means[arm])
        blend = own[:, arms.index(BLEND)]
        figures.append(
            GroupFigures(
                label,
                len(inside),
                len(np.unique(who)),
                means,
                {arm: mean_interval(own[:, place], who, rng) for place, arm in enumerate(arms)},
                best,
                mean_ratio(blend, own[:, arms.index(NO_CLOCK)], who, rng),
                mean_ratio(blend, own[:, arms.index(best)], who, rng),
            )
        )
    return figures


def _read(kept: Path) -> Period:
    with np.load(kept, allow_pickle=False) as arrays:
        return Period(int(kept.stem), arrays["users"], arrays["known"], arrays["ranks"])
