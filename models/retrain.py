"""One training run: the archive as of now in, releases out. Counts first, within seconds; then what learns longer."""

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from features.dataset import interactions
from models import evaluation, presets, releases, rollout, splits
from models.errors import TrainingError
from models.experiment import Experiment, Plan, Tuned, best_of
from models.recommenders.base import Recommender, Vocabulary
from models.recommenders.blend import Blend
from models.recommenders.candidates import MEMBERS, NEURAL, names_of
from models.recommenders.itemitem import ItemKNN
from models.recommenders.sequences import Log, batch_of
from models.releases import COUNTS, Manifest

LEAST_EVENTS: Final = 1_000
HELD_OUT: Final = splits.Protocol("last-share", 0.05)
MOST_USERS: Final = 1_000
SMALL_CATALOGUE: Final = 20_000
TRIALS: Final = 6
NEURAL_SHARE: Final = 0.45
"""Of a run's minutes; the final fit of a neural member takes about as long again, the counting ones share the rest."""
LONG_MINUTES: Final = 10.0
"""A neural recommender has one trial, its defaults, for every so many minutes of a run."""
PROTOCOL: Final = "split in time: newest 5% of events held out, the 5% before them for tuning; full catalogue"

Progress = Callable[[str, float, dict[str, float]], None]
"""Called with the stage, how much of it is done (0..1), and its figures."""


class Result(msgspec.Struct, frozen=True):
    """What a run made: the release ids, which of them serves, and why."""

    made: list[str]
    serving: str | None
    reason: str
    metrics: dict[str, dict[str, float]]


class Run(msgspec.Struct, frozen=True):
    """What a training run is told."""

    archive: Path
    root: Path
    domain: str
    recommender: str = "auto"
    minutes: float = 4.0
    epochs: int = 0
    seed: int = 0
    mask_seen: bool = False
    preset: Path | None = None
    canary_share: float | None = None
    """With a share a candidate begins as a canary; None: it serves everyone at once."""


def train_counts(run: Run, progress: Progress | None = None) -> Manifest:
    """A release of item-kNN with its defaults over everything archived, within seconds.

    Raises:
        TrainingError: there are too few events.
    """
    frame = _frame(run)
    before, after = splits.split(frame, HELD_OUT)
    held_out = splits.cases(before, after, releases.HISTORY, MOST_USERS, run.seed)
    _say(progress, "counts", 0.2)
    trial = ItemKNN()
    trial.fit(Log.of(before, min_count=_least(frame)))
    batch = batch_of([one.history for one in held_out], trial.vocabulary, releases.HISTORY)

    def score(start: int, stop: int) -> np.ndarray:
        return trial.score(batch.rows(start, stop))

    figures = evaluation.evaluate(score, trial.vocabulary, held_out, mask_seen=run.mask_seen)
    _say(progress, "counts", 0.6, figures)
    made = _release(run, frame, ItemKNN(), Log.of(frame, min_count=_least(frame)), figures, {})
    _say(progress, "counts", 1.0, figures)
    return made


def train_tuned(run: Run, progress: Progress | None = None) -> Manifest:
    """A release of what wins on the tuning cases: a candidate, or the blend of all of them.

    `run.recommender` names the candidates (`auto`: the usual members of a blend). Metrics are of the held-out window,
    by a fit that ends before it. What serves is that neural network, and counts over everything.
    """
    frame = _frame(run)
    plan = Plan(HELD_OUT, run.seed, TRIALS, run.minutes, MOST_USERS, run.mask_seen, _least(frame), run.epochs)
    defaults = presets.read(run.preset).params() if run.preset is not None else {}
    experiment = Experiment(frame, plan, progress, defaults=defaults)
    names = list(MEMBERS) if run.recommender in {"auto", "blend"} else names_of(run.recommender)
    tuned = [_tune(experiment, name, run.minutes, len(names)) for name in names if _useful(name, names, run)]
    chosen = tuned
    if len(tuned) > 1:
        blended = experiment.blend(tuned)
        chosen = [blended] if run.recommender == "blend" else [*tuned, blended]
    best = best_of(chosen)
    recommender = experiment.fit(best)
    values, ranked = experiment.measured(recommender)
    figures = evaluation.together(values, ranked, recommender.vocabulary)
    kept = {name: value for name, value in figures.items() if name.endswith("@10") or name == "users"}
    log = experiment.test.log
    learns = any(one.name in NEURAL for one in _members(recommender))
    whole = Log.of(frame, log.vocabulary if learns else None, min_count=_least(frame))
    tuning = {one.name: round(one.ndcg, 6) for one in chosen}
    _say(progress, best.name, 1.0, kept)
    return _release(run, frame, recommender, whole, kept, {"tuning": tuning})


def settle(run: Run, counts: Manifest, tuned: Manifest | None) -> Result:
    """Promote the better of the two by NDCG@10 on the same held-out window, and say why."""
    made = [one.id for one in (counts, tuned) if one is not None]
    chosen, reason, figures = counts, "the only one", {"counts": counts.metrics}
    if tuned is not None:
        figures[tuned.recommender] = tuned.metrics
        ours, theirs = tuned.metrics["ndcg@10"], counts.metrics["ndcg@10"]
        better = run.recommender != "auto" or ours >= theirs
        chosen = tuned if better else counts
        reason = f"NDCG@10 {tuned.recommender} {ours:.4f}, counts {theirs:.4f}"
    if releases.current_id(run.root, run.domain) != chosen.id:
        rollout.enter(run.root, run.domain, chosen.id, run.canary_share)
    return Result(made, releases.current_id(run.root, run.domain), reason, figures)


def _useful(name: str, names: list[str], run: Run) -> bool:
    """What a user took before answers nothing where it cannot be recommended again."""
    return name != "personal" or not run.mask_seen or len(names) == 1


def _tune(experiment: Experiment, name: str, minutes: float, candidates: int) -> Tuned:
    if name in NEURAL:
        trials = max(1, int(minutes // LONG_MINUTES))
        return experiment.tune(name, trials, minutes * (NEURAL_SHARE if candidates > 1 else 0.6))
    return experiment.tune(name, TRIALS, 0.1 * minutes)


def _members(recommender: Recommender) -> list[Recommender]:
    return recommender.members if isinstance(recommender, Blend) else [recommender]


def _release(
    run: Run, frame: pd.DataFrame, recommender: Recommender, log: Log, figures: dict[str, float], more: dict[str, Any]
) -> Manifest:
    """Write a release: counting members fitted on `log`, neural ones as they are, neighbours beside them."""
    for member in _members(recommender):
        if member.name not in NEURAL:
            member.fit(log)
    vocabulary: Vocabulary = log.vocabulary
    if isinstance(recommender, Blend):
        recommender.vocabulary = vocabulary
    beside = ItemKNN()
    if recommender.name != COUNTS:
        beside.fit(log)
    params = {**recommender.describe(), **more}
    manifest = _manifest(run, recommender.name, frame, params, figures)

    def write(folder: Path) -> list[str]:
        own = recommender.save(folder, releases.prefix_of(recommender.name))
        return own if recommender.name == COUNTS else [*own, *beside.save(folder)]

    return releases.save(run.root, manifest, vocabulary.item_ids, write)


def track(folder: Path, manifest: Manifest) -> None:
    """Log a release's parameters and metrics to MLflow's store below `folder`."""
    os.environ.setdefault("MLFLOW_ENABLE_TELEMETRY", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    mlflow.set_tracking_uri(folder.absolute().as_uri())
    mlflow.set_experiment(f"coldstream-{manifest.domain}")
    with mlflow.start_run(run_name=manifest.id):
        plain = {name: value for name, value in manifest.params.items() if not isinstance(value, list | dict)}
        mlflow.log_params({"recommender": manifest.recommender, **plain})
        mlflow.log_metrics({name.replace("@", "_at_"): value for name, value in manifest.metrics.items()})


def fingerprint(frame: pd.DataFrame) -> str:
    """16 hex digits of what a model was trained on."""
    columns = frame[["user_id", "item_id", "kind", "at"]]
    return hashlib.sha256(pd.util.hash_pandas_object(columns, index=False).to_numpy(np.uint64).tobytes()).hexdigest()[
        :16
    ]


def _frame(run: Run) -> pd.DataFrame:
    frame = interactions(run.archive, run.domain)
    if len(frame) < LEAST_EVENTS:
        raise TrainingError(f"{run.domain}: {len(frame)} interactions are archived; training asks for {LEAST_EVENTS}")
    return frame


def _least(frame: pd.DataFrame) -> int:
    """Rare items are left out of large catalogues; look-ups reach them through popularity and category."""
    return 1 if frame["item_id"].nunique() <= SMALL_CATALOGUE else 5


def _manifest(
    run: Run, recommender: str, frame: pd.DataFrame, params: dict[str, Any], figures: dict[str, float]
) -> Manifest:
    now = int(time.time() * 1000)
    return Manifest(
        id=releases.new_id(now),
        domain=run.domain,
        recommender=recommender,
        created_at=now,
        cutoff_at=int(frame["at"].max()),
        items=0,
        events=len(frame),
        users=int(frame["user_id"].nunique()),
        files={},
        params={**params, "data": fingerprint(frame), "seed": run.seed},
        metrics=figures,
        protocol=PROTOCOL,
        parent=releases.current_id(run.root, run.domain),
    )


def _say(progress: Progress | None, stage: str, done: float, figures: dict[str, float] | None = None) -> None:
    if progress is not None:
        progress(stage, done, figures or {})
