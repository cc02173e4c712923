"""Progressive evaluation: a log is replayed in time order, and a recommender predicts each event before it happens.

Each prediction uses only earlier data: the user's history, a release trained on events before the latest refit (every
`refit_ms`), and live counts up to the previous event. This measures the gain from live popularity, which a single
temporal split cannot measure.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
import pandas as pd

from features.activity import History
from models.arrays import Float32, Float64, Int64
from models.data.batch import batch_histories
from models.data.interactions import Interactions
from models.recommenders.base import Recommender
from models.recommenders.freshness import mix, prior_of
from stream.events import KIND_CODES

BLOCK = 128


class ReplayWindow(msgspec.Struct, frozen=True):
    """The evaluated period: `start` (inclusive) to `stop` (exclusive), epoch ms; at most `most` sampled events."""

    start: int
    stop: int
    refit_ms: int
    most: int = 5_000
    seed: int = 0


class ScoreMix(msgspec.Struct, frozen=True):
    """How scores are mixed: half-life of the freshness prior (None: no prior), half-life and weight of live counts."""

    half_life_ms: float | None = None
    live_half_life_ms: float | None = None
    live: float = 0.0


class ProgressiveRanks(msgspec.Struct, frozen=True):
    """Ranks of the targets: `users` int64 [cases]; `ranks` int64 [cases] for each score mix, 0 is the best."""

    users: Int64
    ranks: dict[ScoreMix, Int64]

    def metrics(self, way: ScoreMix, k: int = 10) -> tuple[Float64, Float64]:
        """NDCG@k and HR@k of each case, float64 [cases]."""
        ranks = self.ranks[way]
        hit = ranks < k
        return np.where(hit, 1 / np.log2(ranks + 2), 0.0), hit.astype(np.float64)


class LogReplay:
    """An event log [user_id, item_id, kind, at] in time order, factorized; items are all items of the log."""

    def __init__(self, frame: pd.DataFrame, length: int = 50) -> None:
        self.frame = frame.reset_index(drop=True)
        self.length = length
        self.users, _ = pd.factorize(self.frame["user_id"])
        self.items, names = pd.factorize(self.frame["item_id"])
        self.item_ids = [str(item) for item in names]
        self.index = {item: place for place, item in enumerate(self.item_ids)}
        self.times = self.frame["at"].to_numpy(np.int64)
        self.kinds = self.frame["kind"].map(KIND_CODES).to_numpy(np.int64)
        self.first = np.full(len(self.item_ids), np.iinfo(np.int64).max)
        np.minimum.at(self.first, self.items, self.times)
        order = np.argsort(self.users, kind="stable")
        cuts = np.flatnonzero(np.diff(self.users[order])) + 1
        self._own = {int(self.users[rows[0]]): rows for rows in np.split(order, cuts)}

    def sampled_events(self, window: ReplayWindow) -> Int64:
        """int64 [cases]: rows of a seeded sample of the events of users with a history, in time order."""
        low, high = np.searchsorted(self.times, [window.start, window.stop])
        rows = np.array([row for row in range(low, high) if self._own[int(self.users[row])][0] < row], np.int64)
        if len(rows) > window.most:
            rows = np.sort(np.random.default_rng(window.seed).choice(rows, window.most, replace=False))
        return rows

    def run(
        self,
        window: ReplayWindow,
        make: Callable[[], Recommender] | None,
        ways: Sequence[ScoreMix],
        progress: Callable[[float], None] = lambda _: None,
    ) -> ProgressiveRanks:
        """Rank every sampled event of the window with each score mix.

        `make` returns an unfitted recommender; None evaluates live counts alone.
        """
        rows = self.sampled_events(window)
        live = _Live(self, window, sorted({way.live_half_life_ms for way in ways if way.live_half_life_ms}))
        ranks: dict[ScoreMix, list[int]] = {way: [] for way in ways}
        for number, (start, part) in enumerate(_blocks(self.times[rows], rows, window)):
            release = _Release(self, make, int(np.searchsorted(self.times, start)), ways) if make is not None else None
            for first in range(0, len(part), BLOCK):
                self._append_ranks(part[first : first + BLOCK], release, live, ranks)
            progress(min(1.0, (number + 1) * window.refit_ms / (window.stop - window.start)))
        return ProgressiveRanks(
            self.users[rows].astype(np.int64), {way: np.array(way_ranks) for way, way_ranks in ranks.items()}
        )

    def history(self, row: int) -> History:
        """The user's history before an event, newest last."""
        own = self._own[int(self.users[row])]
        before = own[: np.searchsorted(own, row)][-self.length :]
        items = [self.item_ids[self.items[place]] for place in before]
        return History(items, self.kinds[before].tolist(), self.times[before].tolist(), [None] * len(items))

    def _append_ranks(
        self,
        rows: Int64,
        release: "_Release | None",
        live: "_Live",
        ranks: Mapping[ScoreMix, list[int]],
    ) -> None:
        histories = [self.history(int(row)) for row in rows]
        offered = release.probabilities(histories) if release is not None else None
        for number, row in enumerate(rows.tolist()):
            live.advance(row)
            seen = [self.index[item] for item in histories[number].items]
            target = int(self.items[row])
            for way, way_ranks in ranks.items():
                own = offered[number][None] if offered is not None else np.zeros((1, len(self.item_ids)), np.float32)
                prior = release.priors[way.half_life_ms] if release is not None and way.half_life_ms else None
                scores = mix(own.copy(), prior, live.shares(way.live_half_life_ms), way.live)[0]
                scores[[item for item in seen if item != target]] = -1.0
                way_ranks.append(_rank(scores, target))


class _Release:
    """A recommender fitted on the events before a row; its probabilities cover all items of the replay."""

    def __init__(
        self, replay: LogReplay, make: Callable[[], Recommender], before: int, ways: Sequence[ScoreMix]
    ) -> None:
        self.recommender = make()
        self.recommender.fit(Interactions.from_frame(replay.frame.iloc[:before]))
        self.places = np.array([replay.index[item] for item in self.recommender.vocabulary.item_ids], np.int64)
        self.items = len(replay.item_ids)
        self.priors: dict[float, Float32] = {}
        for half_life in {way.half_life_ms for way in ways if way.half_life_ms}:
            prior = np.zeros(self.items, np.float32)
            prior[self.places] = prior_of(replay.first[self.places], half_life)
            self.priors[half_life] = prior

    def probabilities(self, histories: Sequence[History]) -> Float32:
        vocabulary = self.recommender.vocabulary
        out = np.zeros((len(histories), self.items), np.float32)
        out[:, self.places] = self.recommender.probabilities(batch_histories(histories, vocabulary, 50))
        return out


class _Live:
    """Decayed counts of every item, up to the event before the evaluated one."""

    def __init__(self, replay: LogReplay, window: ReplayWindow, half_lives: Sequence[float]) -> None:
        self._replay, self._start, self._next = replay, window.start, 0
        self._counts = {half_life: np.zeros(len(replay.item_ids)) for half_life in half_lives}
        self._nothing: Float32 = np.zeros(len(replay.item_ids), np.float32)

    def advance(self, row: int) -> None:
        part = slice(self._next, row)
        ages = (self._replay.times[part] - self._start).astype(np.float64)
        for half_life, counts in self._counts.items():
            np.add.at(counts, self._replay.items[part], np.exp2(ages / half_life))
        self._next = max(self._next, row)

    def shares(self, half_life_ms: float | None) -> Float32:
        if half_life_ms is None:
            return self._nothing
        counts = self._counts[half_life_ms]
        return np.asarray(counts / max(float(counts.sum()), 1e-300), np.float32)


def _blocks(times: Int64, rows: Int64, window: ReplayWindow) -> Iterator[tuple[int, Int64]]:
    """Evaluated rows between two refits, with the time of the earlier refit (epoch ms)."""
    blocks = (times - window.start) // window.refit_ms
    for block in np.unique(blocks):
        yield window.start + int(block) * window.refit_ms, rows[blocks == block]


def _rank(scores: Float32, target: int) -> int:
    """The number of items ranked above the target; ties count half, so constant scores gain nothing."""
    own = scores[target]
    return int((scores > own).sum() + ((scores == own).sum() - 1) // 2)


def mean_ratio(
    ours: Float64, theirs: Float64, users: Int64, rng: np.random.Generator, draws: int = 1_000
) -> tuple[float, float, float]:
    """Our mean over theirs on the same cases, and its 95% interval, by a paired Poisson bootstrap over users."""
    codes, of_user = np.unique(users, return_inverse=True)
    drawn = rng.poisson(1.0, (draws, len(codes))).astype(np.float64)
    mine, other = (drawn @ np.bincount(of_user, values) for values in (ours, theirs))
    low, high = np.percentile(mine / np.maximum(other, 1e-12), [2.5, 97.5])
    return float(ours.mean() / max(theirs.mean(), 1e-12)), float(low), float(high)


def mean_interval(values: Float64, users: Int64, rng: np.random.Generator, draws: int = 1_000) -> tuple[float, float]:
    """The 95% interval of the mean over cases, by a Poisson bootstrap over users."""
    codes, of_user = np.unique(users, return_inverse=True)
    sums, counts = np.bincount(of_user, values), np.bincount(of_user)
    drawn = rng.poisson(1.0, (draws, len(codes))).astype(np.float64)
    means = (drawn @ sums) / np.maximum(drawn @ counts, 1e-12)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
