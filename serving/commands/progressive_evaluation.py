"""`coldstream evaluate --split progressive`: events asked in the order of time, with trainings at an interval."""

import time
from hashlib import blake2b
from pathlib import Path
from typing import Final

from models.data.splits import SplitProtocol
from models.domains.preset import milliseconds
from models.evaluation.experiment import ExperimentPlan
from models.evaluation.time_order import TimeOrder, TimeOrderPlan, figures_of
from models.evaluation.time_order_report import ProgressiveReport
from models.recommenders.registry import is_neural
from serving.commands.offline_evaluation import EvaluationData, EvaluationRequest, masked_of, names_of, read_data
from serving.commands.progress import training
from stream.errors import ColdstreamError

NAME: Final = "progressive"
HOLDOUT: Final = SplitProtocol("last-share", 0.05)
"""As in a training run."""
PERIODS: Final = "periods"
"""The folder of a report that keeps the answers after each training, so that a run that was cut off goes on."""


def evaluate_progressive(
    request: EvaluationRequest, retrain_every: str | None, report: Path | None = None
) -> ProgressiveReport:
    """Train, ask, and train again, in the order of time. What was asked is kept below `report`.

    Raises:
        ColdstreamError: the request cannot be met.
    """
    data = read_data(request)
    every = retrain_every or data.preset.training.retrain_every
    plan = _plan(request, data, every)
    with training() as progress:
        log = TimeOrder(
            data.frame,
            plan,
            progress,
            catalogue=data.catalogue,
            categories=data.categories,
            profiles=data.profiles,
        )
        periods = list(log.periods(_folder(report, request, plan) if report is not None else None))
    figures = figures_of(periods, log.arms, request.seed)
    arms = [arm for arm in log.arms if any(group.ndcg[arm] > 0 for group in figures)]
    questions = sum(len(period.users) for period in periods)
    masked = masked_of(request.seen)
    seen = "Items of the history are masked where that is better on each training's tuning cases"
    if masked is not None:
        seen = "Items of the history are masked" if masked else "Items of the history can be recommended again"
    return ProgressiveReport(
        data.source.name,
        len(data.frame),
        int(data.frame["user_id"].nunique()),
        int(data.frame["item_id"].nunique()),
        questions,
        len(periods),
        every,
        seen,
        request.seed,
        arms,
        figures,
        _notes(request, log),
        int(time.time() * 1000),
    )


def _plan(request: EvaluationRequest, data: EvaluationData, every: str) -> TimeOrderPlan:
    try:
        retrain_ms = milliseconds(every)
    except ValueError as error:
        raise ColdstreamError(f"--retrain-every {every}: {error}") from error
    usual = request.recommender in {"auto", "blend"}
    names = [name for name in data.preset.training.members if not is_neural(name)] if usual else names_of(request)
    preset = data.preset
    experiment = ExperimentPlan(
        protocol=HOLDOUT,
        seed=request.seed,
        trials=request.trials,
        minutes=request.minutes,
        most=1_000,
        mask_seen=masked_of(request.seen),
        min_count=request.min_count,
        weights=preset.weights,
        recency_ms=preset.recency_ms,
        horizons=(1,) if preset.freshness is not None else tuple(range(1, 6)),
        live_kinds=preset.popularity.kinds,
    )
    return TimeOrderPlan(
        members=tuple(names),
        retrain_ms=retrain_ms,
        training=experiment,
        most_users=request.sample,
        seed=request.seed,
    )


def _folder(report: Path, request: EvaluationRequest, plan: TimeOrderPlan) -> Path:
    """Where this plan's answers are kept: another plan or source has another folder."""
    known = f"{request.source or request.events}/{request.domain}/{plan}"
    return report / PERIODS / blake2b(known.encode(), digest_size=6).hexdigest()


def _notes(request: EvaluationRequest, log: TimeOrder) -> list[str]:
    notes = [
        f"The oldest {log.plan.warm_up:.0%} of the events only train. {log.cold_users:,} users are new after that.",
        "Each training tunes and weighs its members on the newest events before it, as a training run does.",
        "Encoders are left out unless they are named.",
    ]
    if request.sample is not None:
        notes.append(f"At most {request.sample:,} users, sampled with the seed, are asked.")
    return notes
