"""The path of a training run, top to bottom: read the archive, train, evaluate, save releases, let the gate decide.

A domain's first release is item-kNN with its defaults: it is trained within seconds and needs no champion. Then come
the recommenders that are tuned. Each release is a challenger: it goes live only if the gate lets it pass.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from models.arrays import Float32
from models.data import splits
from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.profiles import ProfileHistory
from models.data.vocabulary import Vocabulary
from models.domains.preset import read_preset
from models.evaluation import metrics as evaluation
from models.evaluation.experiment import Experiment, ExperimentPlan, Progress, TunedRecommender, best_of
from models.recommenders import freshness
from models.recommenders.base import Recommender
from models.recommenders.item_knn import ItemKNN
from models.recommenders.neural import warm_start as network_weights
from models.recommenders.registry import half_life_of, is_neural, parse_names, spec
from models.releases import release_store
from models.releases.manifest import ITEM_KNN, Manifest
from models.training import drift, tracking, warm_start
from models.training.card import release_card
from models.training.champion_challenger import Challenger
from models.training.promotion import combined, decide_promotion
from models.training.run import RunData, ServingRelease, TrainingResult, TrainingRun, read_data, read_serving

HOLDOUT: Final = splits.SplitProtocol("last-share", 0.05)
MOST_CASES: Final = 1_000
SMALL_CATALOGUE: Final = 20_000
NEXT_EVENT: Final = (1,)
NEXT_VISIT: Final = (1, 2, 3, 4, 5)
"""The horizons of a blend for new users: the next click where items age within hours, otherwise the coming visit."""
TRIALS: Final = 6
NEURAL_SHARE: Final = 0.45
"""Of a run's minutes: the final fit of a neural member takes about as long again, the other members share the rest."""
MINUTES_PER_TRIAL: Final = 10.0
"""Minutes of a run for each trial of a neural recommender; the first trial uses the defaults."""

log = logging.getLogger("coldstream.trainer")

Trainer = Callable[[TrainingRun, RunData, ServingRelease | None, Progress | None], Challenger]


def train(
    run: TrainingRun, progress: Progress | None = None, on_rollout: Callable[[str], None] | None = None
) -> TrainingResult:
    """One training run: everything between the archive and the serving release.

    `on_rollout` is called with `promote` or `canary` when a new release goes live.

    Raises:
        TrainingError: there are too few events.
        ArchiveError: there is no archive yet.
    """
    data = read_data(run)
    serving = read_serving(run.root, run.domain)
    results: list[TrainingResult] = []
    for trainers in training_rounds(run, serving):
        if results and trainers == [train_item_knn] and serving is not None and not serving.replaceable_by_item_knn:
            break  # a tuned release passed
        challengers = [trainer(run, data, serving, progress) for trainer in trainers]
        decision = decide_promotion(run, challengers, serving)
        serving = decision.serving
        if on_rollout is not None and decision.action in {"promote", "canary"}:
            on_rollout(decision.action)
        if run.tracking is not None:
            for challenger in challengers:
                tracking.log_release(run.tracking, challenger.manifest)
        results.append(decision.result)
    return combined(results)


def training_rounds(run: TrainingRun, serving: ServingRelease | None) -> list[list[Trainer]]:
    """The rounds of a run: the releases of a round are trained, then judged together.

    While item-kNN serves, tuned releases come first; item-kNN is retrained only if none of them passes the gate.
    """
    if run.recommender == "counts":
        return [[train_item_knn]]
    if serving is None:
        return [[train_item_knn], [train_tuned]]
    if serving.replaceable_by_item_knn:
        return [[train_tuned], [train_item_knn]]
    return [[train_item_knn, train_tuned]]


def train_item_knn(
    run: TrainingRun, data: RunData, serving: ServingRelease | None, progress: Progress | None = None
) -> Challenger:
    """A release of item-kNN with its defaults, within seconds."""
    started = time.monotonic()
    before, after = splits.split(data.events, HOLDOUT, run.seed)
    cases = splits.evaluation_cases(before, after, run.history_length, MOST_CASES, run.seed, run.preset.weights)
    held_out_from = int(after["at"].min()) if len(after) else 0
    _report(progress, "counts", 0.2)
    evaluated = ItemKNN()
    evaluated.fit(_log(run, data, before))
    batch = splits.batch_cases(cases, evaluated.vocabulary, run.history_length)

    def score(start: int, stop: int) -> Float32:
        return evaluated.score(batch.slice(start, stop))

    ranked = evaluation.rank(score, evaluated.vocabulary, cases, 10, mask_seen=run.mask_seen)
    values = evaluation.per_user(ranked, evaluated.vocabulary, cases, (10,))
    metrics = evaluation.aggregate(values, ranked, evaluated.vocabulary, (10,))
    metrics |= _next_item_hit_rate(run, evaluated, data, held_out_from)
    _report(progress, "counts", 0.6, metrics)
    card = release_card(run, data, serving, ITEM_KNN, values, metrics, held_out_from)
    manifest = _save_release(run, data, card, ItemKNN(), _log(run, data, data.events), started)
    _report(progress, "counts", 1.0, metrics)
    return Challenger(
        manifest=manifest,
        ndcg=values["ndcg@10"],
        shown=ranked.items,
        vocabulary=evaluated.vocabulary,
        cases=cases,
        before=before,
        events=data.events,
        held_out_from=held_out_from,
    )


def train_tuned(
    run: TrainingRun, data: RunData, serving: ServingRelease | None, progress: Progress | None = None
) -> Challenger:
    """A release of the best recommender on the tuning cases: a single one, or the blend of all.

    Metrics are of the holdout, by a fit that ends before it. The released networks are those of that fit; the other
    members are refitted on all events. Networks start from the serving release's weights and parameters where they fit.
    """
    started = time.monotonic()
    catalogue = ItemFeatures.from_frame(data.items) if len(data.items) else None
    experiment, names = _experiment(run, data, serving, catalogue, progress)
    candidates = [_tune(experiment, name, run.minutes, len(names)) for name in _useful(names, experiment)]
    alone = [candidate for candidate in candidates if half_life_of(candidate.name) is None]
    if len(candidates) > 1:
        blended = experiment.blend(candidates)
        alone = [blended] if run.recommender == "blend" else [*alone, blended]
        candidates = [*candidates, blended]
    best = best_of(alone)
    recommender = experiment.fit(best)
    values, ranked = experiment.measured(recommender)
    vocabulary, held_out_from = recommender.vocabulary, experiment.held_out_from
    metrics = evaluation.aggregate(values, ranked, vocabulary)
    metrics = {name: value for name, value in metrics.items() if name.endswith("@10") or name == "users"}
    metrics |= _next_item_hit_rate(run, recommender, data, held_out_from)
    card = release_card(run, data, serving, best.name, values, metrics, held_out_from)
    fixed_vocabulary = any(member.is_neural for member in recommender.members)
    whole = _log(run, data, data.events, experiment.test.log.vocabulary if fixed_vocabulary else None, catalogue)
    weights = warm_start.kept_weights(experiment, best, recommender)
    _report(progress, best.name, 1.0, metrics)
    scores = {candidate.name: round(candidate.ndcg, 6) for candidate in candidates}
    manifest = _save_release(run, data, card, recommender, whole, started, weights, {"tuning": scores})
    return Challenger(
        manifest=manifest,
        ndcg=values["ndcg@10"],
        shown=ranked.items,
        vocabulary=vocabulary,
        cases=experiment.test.cases,
        before=experiment.before,
        events=data.events,
        held_out_from=held_out_from,
    )


def _experiment(
    run: TrainingRun,
    data: RunData,
    serving: ServingRelease | None,
    catalogue: ItemFeatures | None,
    progress: Progress | None,
) -> tuple[Experiment, Sequence[str]]:
    """The split data with first parameters and starting weights, and the recommenders to tune."""
    plan = ExperimentPlan(
        protocol=HOLDOUT,
        seed=run.seed,
        trials=TRIALS,
        minutes=run.minutes,
        most=MOST_CASES,
        mask_seen=run.mask_seen,
        min_count=_min_count(data.events),
        epochs=run.epochs,
        weights=run.preset.weights,
        recency_ms=run.preset.recency_ms,
        history_length=run.history_length,
        horizons=NEXT_EVENT if run.preset.freshness is not None else NEXT_VISIT,
        live_kinds=run.preset.popularity.kinds,
    )
    starts, serving_params = warm_start.of_serving(serving) if run.warm_start else ([], {})
    defaults = {**run.preset.params(), **serving_params}
    if run.tuned is not None:  # an operator's parameters have priority over the serving release's
        defaults = {**serving_params, **run.preset.params(), **read_preset(run.tuned).tuned_params}
    experiment = Experiment(
        data.events,
        plan,
        progress,
        defaults=defaults,
        catalogue=catalogue,
        starts=starts,
        profiles=ProfileHistory.from_frame(data.users),
    )
    experiment.situation = warm_start.with_length_of(experiment.situation, starts)
    if run.recommender in {"auto", "blend"}:
        return experiment, run.preset.training.members
    return experiment, parse_names(run.recommender, releasable=True)


def _tune(experiment: Experiment, name: str, minutes: float, candidates: int) -> TunedRecommender:
    if is_neural(name):
        trials = max(1, int(minutes // MINUTES_PER_TRIAL))
        return experiment.tune(name, trials, minutes * (NEURAL_SHARE if candidates > 1 else 0.6))
    return experiment.tune(name, TRIALS, 0.1 * minutes)


def _useful(names: Sequence[str], experiment: Experiment) -> Sequence[str]:
    """Those of the names that can say anything; all of them where none can."""
    return [name for name in names if spec(name).useful(experiment.situation)] or names


def _next_item_hit_rate(
    run: TrainingRun, recommender: Recommender, data: RunData, held_out_from: int
) -> dict[str, float]:
    """The hit rate that drift detection compares with later: a fit that ends at the cut predicts each next item."""
    rng = np.random.default_rng(run.seed)
    cases = drift.next_event_cases(
        data.events, held_out_from, rng, weights=run.preset.weights, history_length=run.history_length
    )
    if not cases:
        return {}
    hit_rate = drift.hit_rate(recommender, cases, history_length=run.history_length, mask_seen=run.mask_seen)
    return {drift.HIT_RATE: hit_rate}


def _save_release(
    run: TrainingRun,
    data: RunData,
    card: Manifest,
    recommender: Recommender,
    whole: Interactions,
    started: float,
    weights: Mapping[str, network_weights.Start] | None = None,
    params: Mapping[str, Any] | None = None,
) -> Manifest:
    """Save a release: non-neural members refitted on `whole`, neural ones as they are, and item-kNN's neighbors.

    Args:
        started: monotonic seconds at the start of training.
        weights: what the next run's networks may start from, by file name.
        params: further entries of the card's `params`.
    """
    recommender.refit(whole)
    neighbors = _neighbor_source(recommender)
    if recommender.name != ITEM_KNN and neighbors not in recommender.members:
        neighbors.fit(whole)
    manifest = msgspec.structs.replace(
        card,
        params={**recommender.describe(), **(params or {}), "kinds": run.preset.kinds, **card.params},
        warm_start=next((member.started_from for member in recommender.members if member.started_from), None),
    )

    def write(folder: Path) -> list[str]:
        names = [
            *recommender.save(folder, release_store.prefix_of(recommender.name)),
            *([] if recommender.name == ITEM_KNN else neighbors.save(folder)),
            *(network_weights.write(folder / name, start) for name, start in (weights or {}).items()),
        ]
        if run.preset.freshness is not None:
            names += freshness.save_first(folder, data.events, whole.vocabulary)
        (folder / drift.REFERENCE).write_bytes(msgspec.json.encode(drift.reference_of(data.events)))
        return [*names, drift.REFERENCE]

    saved = release_store.save(run.root, manifest, whole.vocabulary.item_ids, write)
    saved = msgspec.structs.replace(saved, seconds=round(time.monotonic() - started, 1))
    release_store.update_manifest(run.root, saved)
    return saved


def _neighbor_source(recommender: Recommender) -> ItemKNN:
    """The item-kNN whose neighbors a release keeps: a member that keeps as many as usual, or a new one."""
    usual = ItemKNN()
    kept = (
        member
        for member in recommender.members
        if isinstance(member, ItemKNN) and member.params.neighbors >= usual.params.neighbors
    )
    return next(kept, usual)


def _min_count(events: pd.DataFrame) -> int:
    """Minimum events per item: large catalogues drop rare items, which look-ups still reach by popularity."""
    return 1 if events["item_id"].nunique() <= SMALL_CATALOGUE else 5


def _log(
    run: TrainingRun,
    data: RunData,
    part: pd.DataFrame,
    vocabulary: Vocabulary | None = None,
    catalogue: ItemFeatures | None = None,
) -> Interactions:
    """Part of the run's events, with the kind weights of the domain's preset."""
    return Interactions.from_frame(
        part,
        vocabulary,
        min_count=_min_count(data.events),
        kind_weights=run.preset.weights,
        popularity_half_life_ms=run.preset.recency_ms,
        item_features=catalogue,
    )


def _report(progress: Progress | None, stage: str, done: float, metrics: dict[str, float] | None = None) -> None:
    if progress is not None:
        progress(stage, done, metrics or {})
