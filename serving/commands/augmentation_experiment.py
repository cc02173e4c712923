"""What `coldstream experiment augmentation` does."""

from typing import Final

import msgspec

from models.experiments.augmentation import Augmentation, AugmentationPlan
from models.experiments.augmentation_report import report_of
from models.experiments.report import ExperimentReport
from serving.commands.experiment_run_options import ExperimentRunOptions
from serving.commands.experiments import experiment_data
from serving.commands.progress import training
from serving.settings import Settings
from stream.errors import ColdstreamError
from stream.sources.table_options import TableOptions

EASE_ITEMS: Final = 2_000
"""EASE inverts a matrix of so many items for every arm: a second instead of half a minute."""


class AugmentationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What is added to which shops (`AugmentationPlan`)."""

    synthesizers: tuple[str, ...]
    kinds: tuple[str, ...]
    shares: tuple[float, ...]
    ratios: tuple[float, ...]


def run_augmentation(
    settings: Settings,
    options: ExperimentRunOptions,
    table: TableOptions,
    domain: str | None,
    chosen: AugmentationOptions,
) -> ExperimentReport:
    """Compute the units that are missing, and report on all that are there.

    Raises:
        ColdstreamError: the data cannot be read, an option does not fit, or the folder holds another experiment.
    """
    prepared = experiment_data(settings, options, table, domain)
    defaults = {
        **prepared.opponent.defaults,
        "ease": {"most": EASE_ITEMS, **prepared.opponent.defaults.get("ease", {})},
    }
    prepared.opponent = msgspec.structs.replace(prepared.opponent, defaults=defaults, by_horizon=False)
    keep = options.predictions is not None
    plan = AugmentationPlan(opponent=prepared.opponent, predictions=keep, **msgspec.structs.asdict(chosen))
    run = prepared.run("augmentation", settings.state_path, augmentation=msgspec.to_builtins(chosen))
    units = prepared.units([scenario.name for scenario in plan.scenarios])
    with training() as progress:
        experiment = Augmentation(prepared.data.frame, plan, progress, **prepared.features)
        prepared.compute(run, units, experiment.results_of, progress)
    report, plots = report_of(run, units, prepared.facts, plan, options.seed)
    prepared.write(run, units, report, plots)
    return report


def names_of(text: str) -> tuple[str, ...]:
    """Names separated by commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def numbers_of(option: str, text: str, most: float) -> tuple[float, ...]:
    """Numbers above 0 separated by commas, ascending.

    Raises:
        ColdstreamError: something else is given.
    """
    try:
        numbers = sorted({float(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] <= 0 or not numbers[-1] <= most:
        raise ColdstreamError(f"{option} {text}: give numbers above 0 and up to {most:g}, as in {option} 0.5,1")
    return tuple(numbers)
