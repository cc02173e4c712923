"""What every experiment of `coldstream experiment` does around its own work: data, folder of results, report."""

import sys
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import typer
from msgspec import Struct

from models.evaluation.cold_users import ColdUserFolds, FoldPlan
from models.evaluation.opponent import OpponentPlan, Progress
from models.evaluation.report_page import ReportPage, write_pages
from models.experiments.errors import ExperimentError
from models.experiments.report import ExperimentReport, page
from models.experiments.results import UnitResults
from models.experiments.run import ExperimentRun, Results, RunPlan, Unit, fingerprint, units_of
from serving.commands.cold_evaluation import REPEATED, opponent_plan, parse_known
from serving.commands.experiment_options import ExperimentOptions
from serving.commands.experiment_run_options import ExperimentRunOptions
from serving.commands.offline_evaluation import (
    EvaluationData,
    EvaluationRequest,
    evaluation_request,
    masked_of,
    read_data,
)
from serving.settings import Settings
from stream.sources.table_options import TableOptions


class ExperimentData(msgspec.Struct):
    """The data of an experiment, the opponent on them, and the options that say what is computed."""

    data: EvaluationData
    opponent: OpponentPlan
    options: ExperimentRunOptions

    @property
    def features(self) -> dict[str, Any]:
        """What recommenders read besides events, by the names of `Opponent`'s arguments."""
        return {"catalogue": self.data.catalogue, "categories": self.data.categories, "profiles": self.data.profiles}

    @property
    def facts(self) -> dict[str, Any]:
        """The first fields of a report."""
        frame, notes = self.data.frame, []
        if self.options.sample is not None:
            notes.append(f"At most {self.options.sample:,} cold users, sampled with the seed.")
        notes.append(
            "Items of the history are masked." if self.opponent.masked else "Items of the history may come again."
        )
        return {
            "source": self.data.source.name,
            "events": len(frame),
            "users": int(frame["user_id"].nunique()),
            "items": int(frame["item_id"].nunique()),
            "notes": notes,
        }

    def units(self, scenarios: Sequence[str] = ("",)) -> list[Unit]:
        """The units of work that the options ask for."""
        return chosen_units(self.options.folds, self.options.seeds, self.options.first_folds, scenarios)

    def run(self, experiment: str, state: Path, **settings: Any) -> ExperimentRun:
        """The folder of results: that of `--report`, or one below the state folder that the plan names.

        Raises:
            ExperimentError: `--report` holds the results of another plan.
        """
        plan = {**msgspec.to_builtins(self.opponent), "predictions": self.options.predictions is not None, **settings}
        kept = RunPlan(experiment, self._fingerprint(), plan)
        folder = self.options.report
        if folder is None:
            folder = state / "experiments" / f"{experiment.replace(' ', '-')}-{plan_digest(kept)}"
        return ExperimentRun(folder, kept, restart=self.options.restart)

    def _fingerprint(self) -> str:
        """Of the events, and of what is known of items."""
        catalogue, events = self.data.catalogue, self.data.frame[["user_id", "item_id", "kind", "at"]]
        known = (catalogue.titles, catalogue.categories) if catalogue is not None else (self.data.categories,)
        items = blake2b(msgspec.json.encode(known, order="deterministic"), digest_size=8).hexdigest()
        return f"{fingerprint(events)}-{items}"

    def compute(
        self, run: ExperimentRun, units: Sequence[Unit], results_of: Callable[[Unit], UnitResults], progress: Progress
    ) -> None:
        """Compute what is missing within the budget.

        Raises:
            ExperimentError: not a single unit is there at the end.
        """
        compute_units(run, units, results_of, self.options.budget_minutes, progress)

    def write(self, run: ExperimentRun, units: Sequence[Unit], report: ExperimentReport, plots: Sequence[str]) -> None:
        """Write the report into the folder of results, and the predictions where they are wanted."""
        write_results(run, units, page(report, plots), report, self.options.predictions)


def experiment_data(
    settings: Settings, options: ExperimentRunOptions, table: TableOptions, domain: str | None
) -> ExperimentData:
    """Read the data, and plan the opponent.

    Raises:
        ColdstreamError: the data cannot be read, or an option does not fit.
    """
    chosen = masked_of(options.seen)
    base = ExperimentOptions(
        events=options.events, source=options.source, sample=options.sample, min_count=options.min_count
    )
    tuning = {"recommender": options.recommender, "trials": options.trials, "minutes": options.minutes}
    request: EvaluationRequest = evaluation_request(settings, base, table, domain, **tuning)
    ks = parse_known(options.k, f"--k {options.k}", "--k 0,1,2,3,5")
    data = read_data(request)
    folds = FoldPlan(
        ks=ks,
        folds=options.folds,
        most_users=options.sample,
        tuning_users=options.tuning_users,
        weights=data.preset.weights,
    )
    masked = chosen if chosen is not None else ColdUserFolds(data.frame, folds).repeat_share <= REPEATED
    return ExperimentData(data, opponent_plan(request, data, folds, masked=masked), options)


def plan_digest(plan: RunPlan) -> str:
    """A short text that differs when the plan does."""
    return blake2b(msgspec.json.encode(plan, order="deterministic"), digest_size=6).hexdigest()


def chosen_units(folds: int, seeds: int, first_folds: int | None, scenarios: Sequence[str] = ("",)) -> list[Unit]:
    """The units of work of every seed; with `first_folds` those of its first folds alone."""
    units = units_of(folds, seeds, scenarios)
    return [unit for unit in units if first_folds is None or unit.fold < first_folds]


def compute_units(
    run: ExperimentRun,
    units: Sequence[Unit],
    results_of: Callable[[Unit], Results],
    minutes: float | None,
    progress: Progress,
) -> list[Unit]:
    """Compute what is missing within the minutes; the units that are still missing.

    Raises:
        ExperimentError: not a single unit is there at the end.
    """

    def report(done: int, total: int, unit: str) -> None:
        progress("units of work", done / max(1, total), {})
        if unit and not sys.stderr.isatty():
            typer.echo(f"{time.strftime('%H:%M:%S')} unit {done + 1} of {total}: {unit}", err=True)

    missing = run.compute(units, results_of, minutes=minutes, progress=report)
    if not any(run.has(unit) for unit in units):
        raise ExperimentError(f"--budget-minutes {minutes}: no unit of work was begun; give more minutes")
    return missing


def write_results(
    run: ExperimentRun, units: Sequence[Unit], pages: ReportPage, report: Struct, predictions: Path | None
) -> None:
    """Write the report into the folder of results, and the predictions where they are wanted."""
    written = write_pages(pages, report, run.folder)
    typer.echo(f"report: {written[1]}", err=True)
    if predictions is not None:
        copies = run.export(units, predictions)
        typer.echo(f"predictions: {len(copies)} files in {predictions}", err=True)
