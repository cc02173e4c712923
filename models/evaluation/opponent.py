"""The strongest recommender of real events for cold users: every member alone, and their blends.

For each fold the members are tuned and fitted without the tuning users, weights are fitted on those users' questions,
and the members are fitted again on all training users. Cold users are asked once, at the end. The clock is a member
for each half-life: popularity at the moment of the request.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pandas as pd

from features.popularity import POPULARITY_WEIGHTS
from models.arrays import Float64, Int64
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.profiles import ProfileHistory
from models.data.vocabulary import POPULARITY_HALF_LIFE_MS, Vocabulary
from models.evaluation.cold_ranking import RankedEpisodes, evidence_of_episodes, rank_episodes
from models.evaluation.cold_users import HORIZONS, ColdFold, ColdUserFolds, Episode, FoldPlan, Holdout
from models.evaluation.cold_values import ndcg_of
from models.evaluation.studies import new_study
from models.recommenders.base import Recommender, Scorer, TuningContext
from models.recommenders.blend import BUCKETS, bucket_of
from models.recommenders.blend_weights import Evidence, fit_weights
from models.recommenders.live_popularity import HALF_LIVES_MS
from models.recommenders.registry import LIVE, REGISTRY, create, is_neural, live_name, spec, tuned_params
from models.recommenders.tuning_space import DAY_MS

if TYPE_CHECKING:
    from optuna import Trial

BLEND: Final = "blend"
BY_HORIZON: Final = "blend by horizon"
COMPETING: Final = 50
"""The best items of each member that compete with a target while weights are fitted."""
TUNED_ON: Final = 300
"""Users whose questions parameters are tuned on; weights are fitted on all tuning users."""
TIED: Final = 0.1
"""If more events have the time of their user's previous one, simultaneous events keep their order."""
SHORTEST: Final = 10
Progress = Callable[[str, float, dict[str, float]], None]
Further = Callable[[Mapping[str, Scorer], Interactions], Mapping[str, Scorer]]
"""Scorers by name that stand on a fold's fitted members and the interactions that these were fitted on."""


class OpponentPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is fitted and how.

    `members`: recommenders by name. `half_lives_ms`: of the clock; none without one. `live_kinds`: what an event of
    each kind adds to it. `masked`: whether items of the
    history are not recommended. `trials`, `minutes`: of each member's tuning in each fold; the first trial is the
    parameters of `defaults`, or a member's own. `served`: the horizons that the blend is fitted for. `by_horizon`: also
    a blend with weights by number of events and horizon.
    """

    members: tuple[str, ...]
    folds: FoldPlan = FoldPlan()
    half_lives_ms: tuple[float, ...] = HALF_LIVES_MS
    masked: bool = True
    trials: int = 1
    minutes: float = 4.0
    defaults: Mapping[str, Mapping[str, Any]] = {}
    served: tuple[int, ...] = tuple(range(1, HORIZONS + 1))
    by_horizon: bool = True
    min_count: int = 1
    recency_ms: float = POPULARITY_HALF_LIFE_MS
    live_kinds: Mapping[str, float] = msgspec.field(default_factory=lambda: dict(POPULARITY_WEIGHTS))


class FittedFold(msgspec.Struct):
    """A fold, its members fitted without the tuning users (`tuning`) and with them (`test`), and the blends' weights.

    `evidence` and `horizons` int64 [cases]: what weights were fitted on. `blends`: weights by name (`rank_episodes`).
    `tuning_log`, `training`: what the members of `tuning` and of `test` were fitted on.
    """

    fold: ColdFold
    tuning: dict[str, Scorer]
    test: dict[str, Scorer]
    evidence: Evidence
    horizons: Int64
    blends: dict[str, Float64]
    params: dict[str, dict[str, Any]]
    tuning_log: Interactions
    training: Interactions


class Opponent:
    """The members and blends of every fold of a frame [user_id, item_id, kind, at].

    `further` adds scorers to each fold: they are ranked and stand in the evidence, and have no share in the blends.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        plan: OpponentPlan,
        progress: Progress | None = None,
        *,
        catalogue: ItemFeatures | None = None,
        categories: Mapping[str, str] | None = None,
        profiles: ProfileHistory | None = None,
        further: Further | None = None,
    ) -> None:
        self.further = further or (lambda _members, _log: {})
        self.plan, self.progress = plan, progress or (lambda _stage, _done, _figures: None)
        self.folds = ColdUserFolds(frame, plan.folds, profiles)
        self._known: dict[str, Any] = {"item_features": catalogue, "categories": categories, "profiles": profiles}
        self.context = self._context()
        self.members = tuple(name for name in plan.members if spec(name).useful(self.context)) or plan.members
        """Those of the plan's members that can say anything here."""

    @property
    def member_names(self) -> list[str]:
        """The members' names, one for each half-life of the clock: `live-1d`, `live-20m`."""
        return [*self.members, *(live_name(half_life) for half_life in self.plan.half_lives_ms)]

    @property
    def arms(self) -> list[str]:
        """The members and the blends."""
        return [*self.member_names, BLEND, *([BY_HORIZON] if self.plan.by_horizon else [])]

    def __iter__(self) -> Iterator[FittedFold]:
        return (self.fitted(fold) for fold in self.folds)

    def fitted(self, fold: ColdFold) -> FittedFold:
        """Everything that a fold needs before its cold users are asked."""
        label = f"fold {fold.number + 1}/{len(self.folds)}"
        log = self.interactions(fold.tuning.training)
        few = of_users(fold.tuning.cold, TUNED_ON)
        tuning: dict[str, Scorer] = {}
        params: dict[str, dict[str, Any]] = {}
        for number, name in enumerate(self.members):
            tuning[name], params[name] = self.tuned(name, log, few)
            self.progress(f"{label} tuning", (number + 1) / len(self.members), {})
        tuning |= self.clocks(log)
        tuning |= self.further(tuning, log)
        evidence, horizons = self.evidence(tuning, fold.tuning, f"{label} questions")
        blends = self.blends(evidence, horizons, fold.number)
        training = self.interactions(fold.test.training)
        test: dict[str, Scorer] = {}
        for number, name in enumerate(self.members):
            test[name] = self.member(name, params[name], training)
            self.progress(f"{label} fit", (number + 1) / len(self.members), {})
        test |= self.clocks(training)
        test |= self.further(test, training)
        return FittedFold(fold, tuning, test, evidence, horizons, blends, params, log, training)

    def evidence(
        self, members: Mapping[str, Scorer], holdout: Holdout, label: str = "questions"
    ) -> tuple[Evidence, Int64]:
        """What weights are fitted on: the questions of a holdout's cold and warm users, and each one's horizon.

        A warm user's last event has every horizon: 0.
        """
        episodes = [*holdout.cold, *holdout.warm]
        evidence, horizons = evidence_of_episodes(
            members,
            episodes,
            masked=self.plan.masked,
            length=self.plan.folds.length,
            most=COMPETING,
            report=lambda done: self.progress(label, done, {}),
        )
        cold = sum(len(episode.targets) for episode in holdout.cold)
        return evidence, np.where(np.arange(len(horizons)) < cold, horizons, 0)

    def blends(self, evidence: Evidence, horizons: Int64, seed: int = 0) -> dict[str, Float64]:
        """Weights by number of events for the served horizons and, where planned, by horizon too."""
        weights = {BLEND: self.blend(evidence, horizons, self.member_names, seed)}
        if self.plan.by_horizon:
            weights[BY_HORIZON] = self.blend_by_horizon(evidence, horizons, self.member_names, seed)
        return weights

    def blend(self, evidence: Evidence, horizons: Int64, names: Sequence[str], seed: int = 0) -> Float64:
        """float64 [buckets, members of the evidence]: weights of the scorers `names`, 0 for the others."""
        served = np.flatnonzero(np.isin(horizons, (0, *self.plan.served)))
        return spread_weights(fit_weights(evidence.only(names).of(served), self._rng(seed)), names, evidence.names)

    def blend_by_horizon(self, evidence: Evidence, horizons: Int64, names: Sequence[str], seed: int = 0) -> Float64:
        """float64 [horizons, buckets, members of the evidence]: weights fitted for each horizon."""
        own, tables = evidence.only(names), []
        for horizon in range(1, HORIZONS + 1):
            cases = np.flatnonzero(np.isin(horizons, (0, horizon)))
            tables.append(spread_weights(fit_weights(own.of(cases), self._rng(seed)), names, evidence.names))
        return np.array(tables)

    def stacked(
        self,
        evidence: Evidence,
        horizons: Int64,
        base: Float64,
        names: Sequence[str],
        seed: int = 0,
        *,
        buckets: int = BUCKETS,
    ) -> Float64:
        """float64 [horizons, buckets, members of the evidence]: a blend with the scorers `names` added to it.

        `base` float64 [horizons, buckets, members]: the blend's weights. What is fitted for each horizon and number of
        events is the share of the whole blend and of each added scorer: so few weights that a search does not lose
        what the blend had. Nothing is added from the bucket of history lengths `buckets` on.
        """
        base = base / (base @ evidence.scales)[:, :, None]
        nearest = np.minimum(np.maximum(horizons, 1), HORIZONS) - 1
        own = evidence.stacked("base", base[nearest, bucket_of(evidence.lengths)], names)
        tables = []
        for horizon in range(1, HORIZONS + 1):
            cases = np.flatnonzero(np.isin(horizons, (0, horizon)))
            shares = fit_weights(own.of(cases), self._rng(seed))
            shares[buckets:] = np.eye(1, shares.shape[1])
            added = spread_weights(shares[:, 1:], names, evidence.names)
            tables.append(shares[:, :1] * base[horizon - 1] + added)
        return np.array(tables)

    def ranked(
        self,
        fitted: FittedFold,
        episodes: Sequence[Episode],
        blends: Mapping[str, Float64] | None = None,
        *,
        lists: bool = False,
        singles: Sequence[str] | None = None,
        label: str = "cold users",
    ) -> RankedEpisodes:
        """The ranks of every member (those of `singles`; None: all of them) and blend on a fold's test users."""
        return rank_episodes(
            fitted.test,
            fitted.blends if blends is None else blends,
            episodes,
            masked=self.plan.masked,
            length=self.plan.folds.length,
            lists=lists,
            singles=singles,
            report=lambda done: self.progress(f"fold {fitted.fold.number + 1}/{len(self.folds)} {label}", done, {}),
        )

    def interactions(self, frame: pd.DataFrame, vocabulary: Vocabulary | None = None) -> Interactions:
        """A holdout's events, as every member is fitted on them; `vocabulary`: None for that of items with events."""
        plan = self.plan
        return Interactions.from_frame(
            frame,
            vocabulary,
            min_count=plan.min_count,
            kind_weights=plan.folds.weights,
            popularity_half_life_ms=plan.recency_ms,
            **self._known,
        )

    def tuned(self, name: str, log: Interactions, episodes: Sequence[Episode]) -> tuple[Scorer, dict[str, Any]]:
        """The member with the best parameters on the tuning users' questions, and those parameters."""
        first = dict(self.plan.defaults.get(name, {}))
        if self.plan.trials <= 1 or not episodes:
            return self.member(name, first, log), first
        started, study = time.monotonic(), new_study(self.plan.folds.seed)
        best: tuple[float, Scorer | None, dict[str, Any]] = (-1.0, None, first)

        def objective(trial: "Trial") -> float:
            nonlocal best
            params = spec(name).space(trial, self.context) if trial.number else first
            member = self.member(name, params, log)
            value = self._value(member, episodes)
            best = max(best, (value, member, params), key=lambda result: result[0])
            return value

        for _ in range(self.plan.trials):
            study.optimize(objective, n_trials=1)
            if time.monotonic() - started >= 60 * self.plan.minutes:
                break
        assert best[1] is not None
        return best[1], best[2]

    def _value(self, member: Scorer, episodes: Sequence[Episode]) -> float:
        """The mean over episodes of NDCG@10 over horizons 1 to 5."""
        plan = self.plan
        ranked = rank_episodes({"": member}, {}, episodes, masked=plan.masked, length=plan.folds.length)
        near = ranked.horizons <= HORIZONS
        shares = 1.0 / np.bincount(ranked.episodes[near], minlength=len(episodes))[ranked.episodes[near]]
        return float((ndcg_of(ranked.ranks[near, 0].astype(np.float64)) * shares).sum() / len(episodes))

    def fitted_again(self, name: str, interactions: Interactions, seed: int) -> Scorer:
        """A member with its default parameters, fitted with another seed."""
        return self.member(name, self.plan.defaults.get(name, {}), interactions, seed)

    def member(self, name: str, params: Mapping[str, Any], log: Interactions, seed: int | None = None) -> Recommender:
        """A recommender with these parameters, fitted on `log`."""
        seed = self.plan.folds.seed if seed is None else seed
        recommender = create(name, tuned_params(name, dict(params)), self.context, seed)
        if is_neural(name):
            recommender.minutes = self.plan.minutes  # type: ignore[attr-defined]
        recommender.fit(log)
        return recommender

    def clocks(self, log: Interactions) -> dict[str, Scorer]:
        """Popularity at the moment of the request, one scorer for each half-life."""
        clocks: dict[str, Scorer] = {}
        for half_life_ms in self.plan.half_lives_ms:
            clocks[live_name(half_life_ms)] = self.member(
                live_name(half_life_ms), {"kinds": dict(self.plan.live_kinds)}, log
            )
        return clocks

    def _context(self) -> TuningContext:
        """What parameters depend on; read from all events, as the length of histories and the span are."""
        frame = self.folds.frame
        ordered = frame.sort_values("user_id", kind="stable")
        same_user = (ordered["user_id"] == ordered["user_id"].shift()).to_numpy()
        tied = float((ordered["at"].diff().to_numpy()[same_user] == 0).mean()) if same_user.any() else 0.0
        days = (int(frame["at"].max()) - int(frame["at"].min())) / DAY_MS
        lengths = frame["user_id"].value_counts().to_numpy()
        length = int(np.clip(np.percentile(lengths, 95), SHORTEST, self.plan.folds.length))
        profiles = self._known["profiles"]
        known = profiles is not None and len(profiles) > 0
        items = int(frame["item_id"].nunique())
        catalogue, categories = self._known["item_features"], self._known["categories"]
        named = bool(categories) or (catalogue is not None and bool(catalogue.titles or catalogue.categories))
        named = named or ("category" in frame and bool(frame["category"].notna().any()))
        return TuningContext(not self.plan.masked, tied <= TIED, max(1.0, days), length, items, known, named)

    def _rng(self, seed: int) -> np.random.Generator:
        return np.random.default_rng([self.plan.folds.seed, seed])


def counting_members() -> list[str]:
    """Every recommender that is fitted by counting: all but networks and those that read the clock."""
    return [name for name in REGISTRY if name not in {LIVE, "fresh"} and not is_neural(name)]


def spread_weights(weights: Float64, names: Sequence[str], columns: Sequence[str]) -> Float64:
    """float64 [buckets, columns]: weights [buckets, names] at the columns of these names, 0 elsewhere."""
    table = np.zeros((len(weights), len(columns)))
    table[:, [columns.index(name) for name in names]] = weights
    return table


def of_users(episodes: Sequence[Episode], most: int) -> list[Episode]:
    """The episodes of at most so many users, the first ones."""
    users = set(list(dict.fromkeys(episode.user_id for episode in episodes))[:most])
    return [episode for episode in episodes if episode.user_id in users]
