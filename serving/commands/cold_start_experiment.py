"""What `coldstream experiment cold-start` does."""

import msgspec

from models.experiments.arms import ArmPlan
from models.experiments.cold_start import ColdStart, ColdStartPlan
from models.experiments.cold_start_report import report_of
from models.experiments.report import ExperimentReport
from serving.commands.experiment_run_options import ExperimentRunOptions
from serving.commands.experiments import experiment_data
from serving.commands.progress import training
from serving.settings import Settings
from stream.sources.table_options import TableOptions


def run_cold_start(
    settings: Settings, options: ExperimentRunOptions, table: TableOptions, domain: str | None, *, arms: ArmPlan
) -> ExperimentReport:
    """Compute the units that are missing, and report on all that are there.

    Raises:
        ColdstreamError: the data cannot be read, an option does not fit, or the folder holds another experiment.
    """
    prepared = experiment_data(settings, options, table, domain)
    run = prepared.run("cold start", settings.state_path, arms=msgspec.to_builtins(arms))
    units = prepared.units()
    plan = ColdStartPlan(opponent=prepared.opponent, arms=arms, predictions=options.predictions is not None)
    with training() as progress:
        experiment = ColdStart(prepared.data.frame, plan, progress, **prepared.features)
        prepared.compute(run, units, experiment.results_of, progress)
    report, plots = report_of(run, units, prepared.facts, prepared.opponent.folds.ks, options.seed)
    prepared.write(run, units, report, plots)
    return report
