"""Experiments: recommenders tuned on one part of the held-out events and measured on another, all of them alike.

The protocol splits twice: what is held out from all events tests, what is held out from the rest tunes. Nothing of the
test part is looked at before `figures`; the final fit learns from everything before it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pandas as pd

from features.activity import FoldSettings
from models.arrays import Float32
from models.data import splits
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.profiles import ProfileHistory
from models.data.vocabulary import DEFAULT_KIND_WEIGHTS, POPULARITY_HALF_LIFE_MS, Vocabulary
from models.errors import TrainingError
from models.evaluation import metrics
from models.evaluation.studies import completed_trials, is_first_trial, new_study
from models.recommenders import blend
from models.recommenders.base import Recommender, TuningContext
from models.recommenders.neural.warm_start import Start
from models.recommenders.registry import create, is_neural, spec, tuned_params
from models.recommenders.tuning_space import DAY_MS

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

Progress = Callable[[str, float, dict[str, float]], None]
"""Called with the stage, how much of it is done (0..1), and its figures."""

SHORTEST_HISTORY: Final = 10
"""An encoder reads at least so many events, where histories may be as long."""
PATIENCE: Final = 4
WATCHED: Final = 600
"""Tuning cases that are looked at after each epoch."""
TIED: Final = 0.1
"""With more targets than this share at the time of the event before them, events of one time are learned in order."""


class ExperimentPlan(msgspec.Struct, frozen=True):
    """How an experiment goes. `minutes` and `trials` bound the tuning of each recommender, whichever ends first.

    `mask_seen`: whether what a user took can be recommended again; None: whichever suits item-kNN on the tuning cases.
    `most` bounds the tuning cases, `tested` the test cases (`most` where it is None). `clock` gives the seconds that
    `minutes` are counted in: of the wall, or of the processor (`time.process_time`), which a busy machine does not
    change.
    `weights` and `recency_ms` are the domain's (`Vocabulary`). `history_length`: the newest events of a history that
    are read; encoders read fewer where most histories are shorter.
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


class TunedRecommender(msgspec.Struct):
    """What tuning found for one recommender: `values` are NDCG@10 of each tuning case."""

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
    """What is learned from, and the cases that are asked afterwards."""

    log: Interactions
    cases: list[splits.EvaluationCase]
    batch: Batch

    def score_of(self, recommender: Recommender) -> metrics.Score:
        return lambda start, stop: recommender.score(self.batch.slice(start, stop))

    def barred(self, masked: bool) -> list[list[int]] | None:
        index = self.log.vocabulary.index
        return [[index[one] for one in case.seen if one in index] for case in self.cases] if masked else None


class Experiment:
    """One data set, split once. `tune`, then `blend`, then `fit` and `figures`.

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
        self.tuning = self._side(self.fitted, tuned, categories, plan.most)
        self.test = self._side(self.before, after, categories, plan.tested or plan.most)
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
        self.situation = msgspec.structs.replace(self.situation, repeats=not self.masked)

    def _side(
        self, before: pd.DataFrame, after: pd.DataFrame, categories: Mapping[str, str] | None, most: int | None
    ) -> EvaluationSplit:
        plan = self.plan
        known: dict[str, Any] = {
            "kind_weights": plan.weights,
            "popularity_half_life_ms": plan.recency_ms,
            "item_features": self.catalogue,
        }
        log = Interactions.from_frame(
            before, min_count=plan.min_count, categories=categories, profiles=self.profiles, **known
        )
        found = splits.evaluation_cases(
            before, after, plan.history_length, most, plan.seed, plan.weights, self.profiles
        )
        return EvaluationSplit(log, found, splits.batch_cases(found, log.vocabulary, plan.history_length))

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
        """Add trials to a study of Optuna until it has so many, or `minutes` of this call are over; the best of these.

        The first trial is of what `defaults` say of the recommender, or its own. Trials of a neural recommender share
        the minutes that are left; each stops early when it no longer gains, or when the median of those before it was
        ahead. Several processes may search in one study at the same time. Where the study had its trials, what is
        returned has no parameters: `study.best_trial` has.
        """
        from optuna.study import MaxTrialsCallback

        trials, minutes, clock = trials or self.plan.trials, minutes or self.plan.minutes, self.plan.clock
        started, best = clock(), TunedRecommender(name, {}, np.zeros(0))

        def one(trial: "Trial") -> float:
            nonlocal best
            left = minutes - (clock() - started) / 60
            first = is_first_trial(study, trial)
            params = self.defaults.get(name, {}) if first else spec(name).space(trial, self.situation)
            found = self._tried(name, params, minutes if first else max(left, 0.05), trial)
            trial.set_user_attr("params", found.params)
            if not len(best.values) or found.ndcg > best.ndcg:
                best = found
            done = max((completed_trials(study) + 1) / trials, (clock() - started) / (60 * minutes))
            self.progress(name, min(1.0, done), {"ndcg@10": best.ndcg})
            return found.ndcg

        def spent(study: "Study", _trial: "FrozenTrial") -> None:
            if clock() - started >= 60 * minutes:
                study.stop()

        if completed_trials(study) < trials:
            study.optimize(one, callbacks=[spent, MaxTrialsCallback(trials)])
        self.progress(name, 1.0, {"ndcg@10": study.best_value})
        return best

    def _tried(
        self, name: str, params: dict[str, Any], minutes: float, trial: "Trial | None" = None
    ) -> TunedRecommender:
        if is_neural(name):
            return self._trained(name, params, minutes, trial)
        made = create(name, params, self.situation, self.plan.seed)
        made.fit(self.tuning.log)
        return TunedRecommender(name, made.describe(), self._values(made, self.tuning), recommender=made)

    def _trained(
        self, name: str, params: dict[str, Any], minutes: float, trial: "Trial | None" = None
    ) -> TunedRecommender:
        """A neural recommender at its best epoch by the first tuning cases; that epoch's number becomes `epochs`."""
        from models.recommenders.neural.recommender import Neural

        settings = {**params, **({"epochs": self.plan.epochs} if self.plan.epochs else {"epochs": 200})}
        made = create(name, settings, self.situation, self.plan.seed)
        assert isinstance(made, Neural)
        made.start = self._start(name, self.tuned_from)
        watched = EvaluationSplit(self.tuning.log, self.tuning.cases[:WATCHED], self.tuning.batch.slice(0, WATCHED))
        curve: list[dict[str, float]] = []
        kept: dict[str, Any] = {"ndcg": -1.0, "epoch": -1, "weights": None}
        clock = self.plan.clock
        started = clock()

        def after_epoch(epoch: int, logs: dict[str, float]) -> bool:
            assert made.network is not None
            ndcg = float(self._values(made, watched).mean())
            curve.append({"epoch": float(epoch), "loss": float(logs.get("loss", 0.0)), "ndcg@10": ndcg})
            if ndcg > kept["ndcg"]:
                kept.update(ndcg=ndcg, epoch=epoch, weights=made.network.get_weights())
            self.progress(name, min(1.0, (clock() - started) / (60 * minutes)), curve[-1])
            if trial is not None:
                trial.report(ndcg, epoch)
            return epoch - kept["epoch"] >= PATIENCE or (trial is not None and trial.should_prune())

        made.after_epoch, made.minutes, made.clock = after_epoch, minutes, clock
        made.fit(self.tuning.log)
        assert made.network is not None
        if kept["weights"] is not None:
            made.network.set_weights(kept["weights"])
        described = {**made.describe(), "epochs": int(kept["epoch"]) + 1}
        return TunedRecommender(name, described, self._values(made, self.tuning), curve=curve, recommender=made)

    def blend(self, tuned: Sequence[TunedRecommender]) -> TunedRecommender:
        """A blend of what was tuned; its `values` are those of weights sought on other users' cases."""
        started = time.monotonic()
        members = {one.name: one.recommender for one in tuned if one.recommender is not None}
        side = self.tuning
        targets = [case.targets for case in side.cases]
        evidence = blend.evidence_of(members, side.batch, targets, side.barred(self.masked))
        values = blend.cross_validated(evidence, np.random.default_rng(self.plan.seed))
        weights = blend.best_weights(evidence, np.random.default_rng(self.plan.seed))
        made = blend.Blend(list(members.values()), weights)
        self.progress("blend", 1.0, {"ndcg@10": float(values.mean())})
        spent = time.monotonic() - started
        return TunedRecommender("blend", made.describe(), values, 0, spent, recommender=made, members=list(tuned))

    def fit(self, tuned: TunedRecommender, log: Interactions | None = None) -> Recommender:
        """The tuned recommender, fitted anew on everything before the test part, or on `log`.

        What was fitted before the test part once is not fitted again for a blend that it is a member of.
        """
        if tuned.members:
            assert isinstance(tuned.recommender, blend.Blend)
            weights = tuned.recommender.weights.astype(np.float64)
            return blend.Blend([self.fit(one, log) for one in tuned.members], weights)
        params, kept = self._fits.get(tuned.name, (None, None))
        if log is None and kept is not None and params == tuned.params:
            return kept
        made = create(tuned.name, tuned_params(tuned.name, tuned.params), self.situation, self.plan.seed)
        if is_neural(tuned.name) and log is None:
            made.start = self._start(tuned.name, self.held_out_from)  # type: ignore[attr-defined]
        made.fit(log or self.test.log)
        if log is None:
            self._fits[tuned.name] = (tuned.params, made)
        return made

    def _start(self, name: str, cut: int) -> Start | None:
        """The newest weights for an encoder that know nothing from `cut` (epoch ms) on."""
        fair = [one for one in self.starts if one.encoder == name and one.until <= cut]
        return max(fair, key=lambda one: one.until, default=None)

    def measured(self, recommender: Recommender) -> tuple[dict[str, np.ndarray], metrics.RankedLists]:
        """Every metric of every test case, and the lists themselves."""
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
    """The one of highest NDCG@10 on the tuning cases, the first where two are equal."""
    return max(tuned, key=lambda one: one.ndcg)


def _tied(cases: Sequence[splits.EvaluationCase]) -> float:
    """The share of cases whose target has the time of the event before it."""
    return (
        float(np.mean([bool(one.history.times) and one.at == one.history.times[-1] for one in cases])) if cases else 0
    )
