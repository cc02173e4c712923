"""One training run: the archive as of now in, releases out. Counts first, within seconds; then the neural one."""

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
from models import evaluation, releases
from models.errors import TrainingError
from models.recommenders.counts import ItemKNN
from models.releases import COUNTS, NEURAL, Manifest

LEAST_EVENTS: Final = 1_000
HELD_OUT: Final = 0.05
TUNED_ON: Final = 0.05
MOST_USERS: Final = 1_000
SMALL_CATALOGUE: Final = 20_000
PATIENCE: Final = 3
PROTOCOL: Final = "split in time: newest 5% of events held out, the 5% before them for early stopping; full catalogue"

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


def train_counts(run: Run, progress: Progress | None = None) -> Manifest:
    """A release from counts over everything archived. Raises TrainingError where there are too few events."""
    frame = _frame(run)
    before, after, _ = evaluation.split(frame, HELD_OUT)
    held_out = evaluation.cases(before, after, most=MOST_USERS, seed=run.seed)
    _say(progress, "counts", 0.2)
    trial = ItemKNN(min_count=_least(frame))
    trial.fit(before)
    figures = evaluation.evaluate(trial.scores, trial.vocabulary, held_out, mask_seen=run.mask_seen)
    _say(progress, "counts", 0.6, figures)
    whole = ItemKNN(min_count=_least(frame))
    whole.fit(frame)
    params = {"neighbours": whole.neighbours, "shrink": whole.shrink, "min_count": whole.min_count}
    made = releases.save(
        run.root, _manifest(run, COUNTS, frame, params, figures), whole.vocabulary.item_ids, whole.save
    )
    _say(progress, "counts", 1.0, figures)
    return made


def train_neural(run: Run, progress: Progress | None = None) -> Manifest:
    """A SASRec release: early stopping on the window before the held-out one, reported on the held-out one."""
    from models.recommenders.sasrec import Params, SASRec

    frame = _frame(run)
    before, after, _ = evaluation.split(frame, HELD_OUT)
    fitted, tuned, _ = evaluation.split(before, TUNED_ON)
    watched = evaluation.cases(fitted, tuned, most=MOST_USERS // 2, seed=run.seed)
    epochs = run.epochs or 100
    repeats = not run.mask_seen
    model = SASRec(Params(epochs=epochs, min_count=_least(frame), repeats=repeats, seed=run.seed))
    started = time.monotonic()
    best: dict[str, Any] = {"ndcg": -1.0, "epoch": -1, "weights": None}

    def after_epoch(epoch: int, logs: dict[str, float]) -> bool:
        figures = evaluation.evaluate(model.scores, model.vocabulary, watched, mask_seen=run.mask_seen)
        if figures["ndcg@10"] > best["ndcg"]:
            assert model.network is not None
            best.update(ndcg=figures["ndcg@10"], epoch=epoch, weights=model.network.get_weights())
        spent = (time.monotonic() - started) / (60 * run.minutes)
        _say(progress, "sasrec", min(1.0, max(spent, (epoch + 1) / epochs)), {**logs, **figures, "epoch": float(epoch)})
        return epoch - best["epoch"] >= PATIENCE

    model.fit(fitted, after_epoch, run.minutes)
    assert model.network is not None
    if best["weights"] is not None:
        model.network.set_weights(best["weights"])
    held_out = evaluation.cases(before, after, most=MOST_USERS, seed=run.seed)
    figures = evaluation.evaluate(model.scores, model.vocabulary, held_out, mask_seen=run.mask_seen)
    beside = ItemKNN()
    beside.fit_to(frame, model.vocabulary)
    params = {**msgspec.structs.asdict(model.params), "best_epoch": best["epoch"]}
    manifest = _manifest(run, NEURAL, frame, params, figures)

    def write(folder: Path) -> list[str]:
        return [*model.save(folder), *beside.save(folder)]

    return releases.save(run.root, manifest, model.vocabulary.item_ids, write)


def settle(run: Run, counts: Manifest, neural: Manifest | None) -> Result:
    """Promote the better of the two by NDCG@10 on the same held-out window, and say why."""
    made = [one.id for one in (counts, neural) if one is not None]
    figures = {one.recommender: one.metrics for one in (counts, neural) if one is not None}
    chosen, reason = counts, "the only one"
    if neural is not None:
        ours, theirs = neural.metrics["ndcg@10"], counts.metrics["ndcg@10"]
        better = run.recommender == NEURAL or ours >= theirs
        chosen = neural if better else counts
        reason = f"NDCG@10 {NEURAL} {ours:.4f}, {COUNTS} {theirs:.4f}"
    if releases.current_id(run.root, run.domain) != chosen.id:
        releases.promote(run.root, run.domain, chosen.id)
    return Result(made, chosen.id, reason, figures)


def track(folder: Path, manifest: Manifest) -> None:
    """Log a release's parameters and metrics to MLflow's store below `folder`."""
    os.environ.setdefault("MLFLOW_ENABLE_TELEMETRY", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    mlflow.set_tracking_uri(folder.absolute().as_uri())
    mlflow.set_experiment(f"coldstream-{manifest.domain}")
    with mlflow.start_run(run_name=manifest.id):
        mlflow.log_params({"recommender": manifest.recommender, **manifest.params})
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
