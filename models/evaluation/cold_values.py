"""Metrics of cold users: a value for each user, number of known events and arm, from the ranks of their targets."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from models.arrays import Bool, Float32, Float64, Int64
from models.evaluation.bootstrap import Comparison, compare, intervals
from models.evaluation.cold_ranking import SHOWN, RankedEpisodes, same_target
from models.evaluation.cold_users import HORIZONS, Episode

K: Final = 10
TAIL: Final = 0.8
"""The tail is this share of the items, the least popular ones."""
PRIMARY: Final = "ndcg@10"
METRICS: Final = (PRIMARY, "next ndcg@10", "same ndcg@10", "hr@10", "mrr", "recall@20")
"""NDCG@10 by horizon (the mean over horizons 1 to 5), of the next event alone, and of the sixth event; HR@10 and MRR
over horizons 1 to 5; the share of the distinct items of horizons 1 to 5 in the list of 20 at the first moment."""


class UserValues:
    """Each metric as float64 [users, ks, arms]; nan where a user has no such question. Filled fold by fold."""

    def __init__(
        self, users: Sequence[str], ks: Sequence[int], arms: Sequence[str], metrics: Sequence[str] = METRICS
    ) -> None:
        self.users, self.ks, self.arms = list(users), list(ks), list(arms)
        self._rows = {user: row for row, user in enumerate(users)}
        self._columns = {k: column for column, k in enumerate(ks)}
        shape = (len(users), len(ks), len(arms))
        self.values = {name: np.full(shape, np.nan) for name in metrics}
        self.shown: dict[tuple[int, str], set[str]] = {}
        self.tail = np.full(shape, np.nan)

    def add(self, ranked: RankedEpisodes, episodes: Sequence[Episode], tail: Bool | None = None) -> None:
        """Add the ranks of a fold; with lists also coverage and, with `tail` bool [items], the share of the tail."""
        rows = np.array([self._rows[episode.user_id] for episode in episodes], np.int64)
        columns = np.array([self._columns[episode.k] for episode in episodes], np.int64)
        assert list(ranked.arms) == self.arms
        ranks = ranked.ranks.astype(np.float64)
        gains, near = ndcg_of(ranks), ranked.horizons <= HORIZONS
        own = ranked.horizons == same_target(episodes)[ranked.episodes]
        hits = (ranks < K).astype(np.float64)
        for name, values, chosen in (
            (PRIMARY, gains, near),
            ("next ndcg@10", gains, ranked.horizons == 1),
            ("same ndcg@10", gains, own),
            ("hr@10", hits, near),
            ("mrr", 1.0 / (1.0 + ranks), near),
        ):
            self.values[name][rows, columns] = _means(values[chosen], ranked.episodes[chosen], len(episodes))
        if ranked.lists is not None:
            self._add_lists(ranked, episodes, (rows, columns), tail)

    def column(self, arm: str, k: int, metric: str = PRIMARY) -> Float64:
        """float64 [users]: one arm's values at k."""
        values: Float64 = self.values[metric][:, self._columns[k], self.arms.index(arm)]
        return values

    def mean(self, arm: str, k: int, metric: str = PRIMARY) -> float:
        """The mean over the users who have a value."""
        column = self.column(arm, k, metric)
        return float(np.nanmean(column)) if not np.isnan(column).all() else float("nan")

    def best(self, arms: Sequence[str], k: int, metric: str = PRIMARY) -> str:
        """Of these arms the one with the highest mean; the first in a tie."""
        return max(arms, key=lambda arm: self.mean(arm, k, metric))

    def intervals(self, rng: np.random.Generator, metric: str = PRIMARY) -> dict[tuple[str, int], tuple[float, float]]:
        """The 95% interval of each arm's mean at each k."""
        columns = {f"{arm}\n{k}": self.column(arm, k, metric) for arm in self.arms for k in self.ks}
        return {(name.split("\n")[0], int(name.split("\n")[1])): each for name, each in intervals(columns, rng).items()}

    def compare(
        self, ours: Mapping[int, str], others: Mapping[int, str], rng: np.random.Generator, metric: str = PRIMARY
    ) -> dict[int, Comparison]:
        """At each k the ratio of two arms, with p-values corrected over k."""
        pairs = [(self.column(ours[k], k, metric), self.column(others[k], k, metric)) for k in ours]
        compared = compare([pair[0] for pair in pairs], [pair[1] for pair in pairs], rng)
        return dict(zip(ours, compared, strict=True))

    def coverage(self, arm: str, k: int, items: int) -> float:
        """The share of `items` that some user is shown among the first ten."""
        return len(self.shown.get((k, arm), ())) / max(1, items)

    def _add_lists(
        self, ranked: RankedEpisodes, episodes: Sequence[Episode], places: tuple[Int64, Int64], tail: Bool | None
    ) -> None:
        assert ranked.lists is not None
        index, item_ids = ranked.vocabulary.index, ranked.vocabulary.item_ids
        for number, (episode, row, column) in enumerate(zip(episodes, *places, strict=True)):
            lists = ranked.lists[number]
            near = [item for item, h in zip(episode.targets, episode.horizons, strict=True) if h <= HORIZONS]
            distinct = set(near)
            targets = [index[item] for item in distinct if item in index]
            self.values["recall@20"][row, column] = np.isin(lists[:, :SHOWN], targets).sum(axis=1) / len(distinct)
            top = lists[:, :K]
            if tail is not None:
                self.tail[row, column] = (tail[top] & (top >= 0)).sum(axis=1) / np.maximum((top >= 0).sum(axis=1), 1)
        for column, k in enumerate(self.ks):
            inside = places[1] == column
            for number, arm in enumerate(ranked.arms):
                top = np.unique(ranked.lists[inside, number, :K])
                self.shown.setdefault((k, arm), set()).update(item_ids[item] for item in top if item >= 0)


def ndcg_of(ranks: Float64) -> Float64:
    """NDCG@10 of a single target at ranks from 0, in the shape of `ranks`."""
    gains: Float64 = np.where(ranks < K, 1.0 / np.log2(ranks + 2.0), 0.0)
    return gains


def tail_of(popularity: Float32 | Int64) -> Bool:
    """bool [items]: whether an item is outside the most popular fifth; `popularity` [items] is a count of events."""
    tail = np.ones(len(popularity), np.bool_)
    head = np.argsort(-popularity, kind="stable")[: round((1 - TAIL) * len(popularity))]
    tail[head] = False
    return tail


def _means(values: Float64, episodes: Int64, count: int) -> Float64:
    """float64 [episodes, arms]: means of `values` [questions, arms] over each episode's questions; nan without any."""
    sums = np.zeros((count, values.shape[1]))
    np.add.at(sums, episodes, values)
    counts = np.bincount(episodes, minlength=count)[:, None]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
