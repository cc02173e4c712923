"""Experiments: tune recommenders on the validation split and measure them on the test split, all in the same way.

The protocol splits twice: first the test split from all events, then the validation split (tuning cases) from the rest.
The test split is used only by `measured`; the final fit learns from everything before it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pandas as pd

from features.activity import FoldSettings
from features.popularity import POPULARITY_WEIGHTS
from models.arrays import Float32
from models.data import splits
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.profiles import ProfileHistory
from models.data.vocabulary import DEFAULT_KIND_WEIGHTS, POPULARITY_HALF_LIFE_MS, Vocabulary
from models.errors import TrainingError
from models.evaluation import metrics
from models.evaluation.cold_ranking import evidence_of_episodes
from models.evaluation.cold_users import HORIZONS, short_histories
from models.evaluation.studies import completed_trials, is_first_trial, new_study
from models.recommenders import blend, blend_weights
from models.recommenders.base import Recommender, TuningContext
from models.recommenders.neural.warm_start import Start
from models.recommenders.registry import create, half_life_of, is_neural, spec, tuned_params
from models.recommenders.tuning_space import DAY_MS

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

Progress = Callable[[str, float, dict[str, float]], None]
"""Called with the stage, the completed share of it (0..1), and its metrics."""

SHORTEST_HISTORY: Final = 10
"""The minimum number of events that an encoder reads, unless histories are limited to fewer."""
PATIENCE: Final = 4
WATCHED: Final = 600
"""Number of tuning cases that are evaluated after each epoch."""
TIED: Final = 0.1
"""If more than this share of targets have the timestamp of the previous event, simultaneous events keep their order."""


class ExperimentPlan(msgspec.Struct, frozen=True):
    """The configuration of an experiment.

    Attributes:
        trials: limit of the tuning of each recommender, like `minutes`; the first limit reached ends it.
        most: maximum number of tuning cases; None: all.
        mask_seen: whether items of the history are excluded; None: whichever suits item-kNN on the tuning cases.
        tested: maximum number of test cases; None: `most`.
        clock: seconds that `minutes` are measured in, of the wall or of the processor (`time.process_time`), which
            does not depend on the load of the machine.
        weights: kind weights of the domain (`Vocabulary`), like `recency_ms`.
        history_length: number of newest events that are read; encoders read fewer if most histories are shorter.
        horizons: the blend's weights of short histories are fitted for events so many places after the known ones.
        live_kinds: what an event of each kind adds to live popularity.
    """

    protocol: splits.SplitProtocol
    seed: int = 0
    trials: int = 12
    minutes: float = 4.0
    most: int | None = None
    mask_seen: bool | None = None
    min_count: int = 1
    epochs: int = 0
    tested: int | None = None
    clock: Callable[[], float] = time.monotonic
    weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS
    recency_ms: float = POPULARITY_HALF_LIFE_MS
    history_length: int = FoldSettings().history_length
    horizons: tuple[int, ...] = tuple(range(1, HORIZONS + 1))
    live_kinds: Mapping[str, float] = msgspec.field(default_factory=lambda: dict(POPULARITY_WEIGHTS))


class TunedRecommender(msgspec.Struct):
    """A tuned recommender. `values`: NDCG@10 of each tuning case, float64 [cases]."""

    name: str
    params: dict[str, Any]
    values: np.ndarray
    trials: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = []
    recommender: Recommender | None = None
    members: list["TunedRecommender"] = []

    @property
    def ndcg(self) -> float:
        return float(self.values.mean()) if len(self.values) else 0.0


class EvaluationSplit(msgspec.Struct):
    """The events to fit on, and the cases to evaluate afterwards.

    `stream`: what live popularity counts, each request what came before it.
    """

    log: Interactions
    cases: list[splits.EvaluationCase]
    batch: Batch
    stream: Interactions

    def fit(self, recommender: Recommender) -> None:
        recommender.fit(self.stream if recommender.follows_stream else self.log)

    def score_of(self, recommender: Recommender) -> metrics.Score:
        return lambda start, stop: recommender.score(self.batch.slice(start, stop))

    def barred(self, masked: bool) -> list[list[int]] | None:
        index = self.log.vocabulary.index
        return [[index[item] for item in case.seen if item in index] for case in self.cases] if masked else None


class Experiment:
    """One data set, split once. `tune`, then `blend`, then `fit` and `measured`.

    Raises:
        TrainingError: nothing is held out.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        plan: ExperimentPlan,
        progress: Progress | None = None,
        categories: Mapping[str, str] | None = None,
        defaults: Mapping[str, dict[str, Any]] | None = None,
        catalogue: ItemFeatures | None = None,
        starts: Sequence[Start] = (),
        profiles: ProfileHistory | None = None,
    ) -> None:
        self.catalogue, self.profiles = catalogue, profiles
        self.defaults = defaults or {}
        self._fits: dict[str, tuple[dict[str, Any], Recommender]] = {}
        self.starts = starts
        self.plan, self.progress = plan, progress or (lambda _stage, _done, _figures: None)
        self.before, after = splits.split(frame, plan.protocol, plan.seed, plan.weights)
        self.fitted, tuned = splits.split(self.before, plan.protocol, plan.seed + 1, plan.weights)
        learned, self.short = short_histories(self.fitted, plan.weights, plan.seed, self.profiles)
        cold = {episode.user_id for episode in self.short}
        others = frame[~frame["user_id"].isin(cold)] if cold else frame
        self.tuning = self._side(self.fitted, tuned, categories, plan.most, others, learned)
        self.test = self._side(self.before, after, categories, plan.tested or plan.most, frame)
        self.tuned_from, self.held_out_from = (int(part["at"].min()) if len(part) else 0 for part in (tuned, after))
        for side, name in ((self.test, "test"), (self.tuning, "tuning")):
            if not side.cases:
                raise TrainingError(
                    f"{plan.protocol} leaves no {name} case: no user has events on both sides of the split"
                )
        span = (int(frame["at"].max()) - int(frame["at"].min())) / DAY_MS
        lengths = np.bincount(self.tuning.log.users) if len(self.tuning.log) else np.ones(1)
        length = int(np.clip(np.percentile(lengths, 95), SHORTEST_HISTORY, plan.history_length))
        baskets = _tied(self.tuning.cases) <= TIED
        known = self.tuning.log.profiles is not None and len(self.tuning.log.profiles.schema) > 0
        self.situation = TuningContext(True, baskets, max(1.0, span), length, len(self.tuning.log.vocabulary), known)
        self.masked = self._masked() if plan.mask_seen is None else plan.mask_seen
        item_text = self.tuning.log.has_item_text
        self.situation = msgspec.structs.replace(self.situation, repeats=not self.masked, item_text=item_text)

    def _side(
        self,
        before: pd.DataFrame,
        after: pd.DataFrame,
        categories: Mapping[str, str] | None,
        most: int | None,
        stream: pd.DataFrame,
        learned: pd.DataFrame | None = None,
    ) -> EvaluationSplit:
        """Cases between two parts, and the events to fit on: `learned`, or all of `before`."""
        plan = self.plan
        known: dict[str, Any] = {
            "kind_weights": plan.weights,
            "popularity_half_life_ms": plan.recency_ms,
            "item_features": self.catalogue,
        }
        log = Interactions.from_frame(
            before if learned is None else learned,
            min_count=plan.min_count,
            categories=categories,
            profiles=self.profiles,
            **known,
        )
        cases = splits.evaluation_cases(
            before, after, plan.history_length, most, plan.seed, plan.weights, self.profiles
        )
        batch = splits.batch_cases(cases, log.vocabulary, plan.history_length)
        return EvaluationSplit(log, cases, batch, Interactions.from_frame(stream, log.vocabulary))

    def _masked(self) -> bool:
        trial = create("item-knn", {}, self.situation)
        trial.fit(self.tuning.log)
        free, barred = (float(self._values(trial, self.tuning, masked).mean()) for masked in (False, True))
        return barred > free

    def _values(self, recommender: Recommender, side: EvaluationSplit, masked: bool | None = None) -> np.ndarray:
        masked = self.masked if masked is None else masked
        ranked = metrics.rank(side.score_of(recommender), side.log.vocabulary, side.cases, 10, mask_seen=masked)
        return metrics.per_user(ranked, side.log.vocabulary, side.cases, (10,))["ndcg@10"]

    def tune(self, name: str, trials: int | None = None, minutes: float | None = None) -> TunedRecommender:
        """The best parameters of a recommender by NDCG@10 on the tuning cases, within trials and minutes (`search`)."""
        study, started = new_study(self.plan.seed), self.plan.clock()
        best = self.search(name, study, trials, minutes)
        best.trials, best.seconds = len(study.trials), self.plan.clock() - started
        return best

    def search(
        self, name: str, study: "Study", trials: int | None = None, minutes: float | None = None
    ) -> TunedRecommender:
        """Add trials to an Optuna study until it has `trials` or this call took `minutes`; returns the best new trial.

        The first trial uses the recommender's parameters of `defaults`, or its own defaults. A trial of a neural
        recommender gets the remaining minutes; it stops early when it no longer improves, or when it is below the
        median of earlier trials. Several processes may share a study. If the study already has all its trials, the
        returned recommender has no parameters: see `study.best_trial`.
        """
        from optuna.study import MaxTrialsCallback

        trials, minutes, clock = trials or self.plan.trials, minutes or self.plan.minutes, self.plan.clock
        trials = trials if half_life_of(name) is None else 1
        started, best = clock(), TunedRecommender(name, {}, np.zeros(0))

        def objective(trial: "Trial") -> float:
            nonlocal best
            left = minutes - (clock() - started) / 60
            first = is_first_trial(study, trial)
            params = self.defaults.get(name, {}) if first else spec(name).space(trial, self.situation)
            result = self._tried(name, params, minutes if first else max(left, 0.05), trial)
            trial.set_user_attr("params", result.params)
            if not len(best.values) or result.ndcg > best.ndcg:
                best = result
            done = max((completed_trials(study) + 1) / trials, (clock() - started) / (60 * minutes))
            self.progress(name, min(1.0, done), {"ndcg@10": best.ndcg})
            return result.ndcg

        def stop_when_spent(study: "Study", _trial: "FrozenTrial") -> None:
            if clock() - started >= 60 * minutes:
                study.stop()

        if completed_trials(study) < trials:
            study.optimize(objective, callbacks=[stop_when_spent, MaxTrialsCallback(trials)])
        self.progress(name, 1.0, {"ndcg@10": study.best_value})
        return best

    def _tried(
        self, name: str, params: dict[str, Any], minutes: float, trial: "Trial | None" = None
    ) -> TunedRecommender:
        if is_neural(name):
            return self._trained(name, params, minutes, trial)
        if spec(name).follows_stream:
            params = {**params, "kinds": dict(self.plan.live_kinds)}
        recommender = create(name, params, self.situation, self.plan.seed)
        self.tuning.fit(recommender)
        return TunedRecommender(
            name, recommender.describe(), self._values(recommender, self.tuning), recommender=recommender
        )

    def _trained(
        self, name: str, params: dict[str, Any], minutes: float, trial: "Trial | None" = None
    ) -> TunedRecommender:
        """A neural recommender at its best epoch on the first tuning cases; `epochs` is set to that epoch."""
        from models.recommenders.neural.recommender import Neural

        params_to_fit = {**params, **({"epochs": self.plan.epochs} if self.plan.epochs else {"epochs": 200})}
        recommender = create(name, params_to_fit, self.situation, self.plan.seed)
        assert isinstance(recommender, Neural)
        recommender.start = self._start(name, self.tuned_from)
        side = self.tuning
        watched = EvaluationSplit(side.log, side.cases[:WATCHED], side.batch.slice(0, WATCHED), side.stream)
        curve: list[dict[str, float]] = []
        best: dict[str, Any] = {"ndcg": -1.0, "epoch": -1, "weights": None}
        clock = self.plan.clock
        started = clock()

        def after_epoch(epoch: int, logs: dict[str, float]) -> bool:
            assert recommender.network is not None
            ndcg = float(self._values(recommender, watched).mean())
            curve.append({"epoch": float(epoch), "loss": float(logs.get("loss", 0.0)), "ndcg@10": ndcg})
            if ndcg > best["ndcg"]:
                best.update(ndcg=ndcg, epoch=epoch, weights=recommender.network.get_weights())
            self.progress(name, min(1.0, (clock() - started) / (60 * minutes)), curve[-1])
            if trial is not None:
                trial.report(ndcg, epoch)
            return epoch - best["epoch"] >= PATIENCE or (trial is not None and trial.should_prune())

        recommender.after_epoch, recommender.minutes, recommender.clock = after_epoch, minutes, clock
        recommender.fit(self.tuning.log)
        assert recommender.network is not None
        if best["weights"] is not None:
            recommender.network.set_weights(best["weights"])
        described = {**recommender.describe(), "epochs": int(best["epoch"]) + 1}
        return TunedRecommender(
            name, described, self._values(recommender, self.tuning), curve=curve, recommender=recommender
        )

    def blend(self, tuned: Sequence[TunedRecommender]) -> TunedRecommender:
        """A blend of tuned recommenders; its `values` use weights that were fitted on other users.

        Weights are fitted on the tuning cases, and on the first events of users who were held out whole.
        """
        started = time.monotonic()
        members = {candidate.name: candidate.recommender for candidate in tuned if candidate.recommender is not None}
        side = self.tuning
        targets = [case.targets for case in side.cases]
        evidence = blend_weights.evidence_of(members, side.batch, targets, side.barred(self.masked))
        if self.short:
            evidence = blend_weights.merged(evidence, self._short_evidence(members))
        values = blend_weights.cross_validated(evidence, np.random.default_rng(self.plan.seed))[: len(side.cases)]
        weights = blend_weights.fit_weights(evidence, np.random.default_rng(self.plan.seed))
        blended = blend.Blend(list(members.values()), weights)
        self.progress("blend", 1.0, {"ndcg@10": float(values.mean())})
        spent = time.monotonic() - started
        return TunedRecommender("blend", blended.describe(), values, 0, spent, recommender=blended, members=list(tuned))

    def _short_evidence(self, members: Mapping[str, Recommender]) -> blend_weights.Evidence:
        """The questions of users who were held out whole, at the planned horizons."""
        evidence, horizons = evidence_of_episodes(
            members,
            self.short,
            masked=self.masked,
            length=self.plan.history_length,
            most=blend_weights.CANDIDATES,
            report=lambda done: self.progress("blend", 0.9 * done, {}),
        )
        return evidence.of(np.flatnonzero(np.isin(horizons, self.plan.horizons)))

    def fit(self, tuned: TunedRecommender, log: Interactions | None = None) -> Recommender:
        """The tuned recommender, refitted on everything before the test split, or on `log`.

        A recommender that was already fitted before the test split is reused as a member of a blend.
        """
        if tuned.members:
            assert isinstance(tuned.recommender, blend.Blend)
            weights = tuned.recommender.weights.astype(np.float64)
            return blend.Blend([self.fit(member, log) for member in tuned.members], weights)
        params, fitted = self._fits.get(tuned.name, (None, None))
        if log is None and fitted is not None and params == tuned.params:
            return fitted
        recommender = create(tuned.name, tuned_params(tuned.name, tuned.params), self.situation, self.plan.seed)
        if is_neural(tuned.name) and log is None:
            recommender.start = self._start(tuned.name, self.held_out_from)  # type: ignore[attr-defined]
        if log is None:
            self.test.fit(recommender)
            self._fits[tuned.name] = (tuned.params, recommender)
        else:
            recommender.fit(log)
        return recommender

    def _start(self, name: str, cut: int) -> Start | None:
        """The newest weights of an encoder that were trained only on events before `cut` (epoch ms)."""
        usable = [start for start in self.starts if start.encoder == name and start.until <= cut]
        return max(usable, key=lambda start: start.until, default=None)

    def measured(self, recommender: Recommender) -> tuple[dict[str, np.ndarray], metrics.RankedLists]:
        """Each metric of each test case, float64 [cases], and the ranked lists."""
        side = self.test
        vocabulary: Vocabulary = recommender.vocabulary
        batch = side.batch
        if vocabulary is not side.log.vocabulary:
            batch = splits.batch_cases(side.cases, vocabulary, self.plan.history_length)

        def score(start: int, stop: int) -> Float32:
            return recommender.score(batch.slice(start, stop))

        ranked = metrics.rank(score, vocabulary, side.cases, 20, mask_seen=self.masked)
        popularity = np.bincount(side.log.items, minlength=len(side.log.vocabulary)).astype(np.float32)
        aligned = vocabulary is side.log.vocabulary
        values = metrics.per_user(
            ranked,
            vocabulary,
            side.cases,
            popularity=popularity if aligned else None,
            categories=side.log.categories if aligned and side.log.categories.any() else None,
        )
        return values, ranked


def best_of(tuned: Sequence[TunedRecommender]) -> TunedRecommender:
    """The recommender with the highest NDCG@10 on the tuning cases; the first in a tie."""
    return max(tuned, key=lambda candidate: candidate.ndcg)


def _tied(cases: Sequence[splits.EvaluationCase]) -> float:
    """The share of cases whose target has the timestamp of the previous event."""
    return (
        float(np.mean([bool(case.history.times) and case.at == case.history.times[-1] for case in cases]))
        if cases
        else 0
    )
