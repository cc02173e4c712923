"""`coldstream experiment new-items`: do texts and categories bring new items to the users who want them?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from serving.commands.experiment_run_options import (
    BootstrapSeedOption,
    BudgetOption,
    EventsOption,
    FirstFoldsOption,
    MinCountOption,
    PredictionsOption,
    ReportOption,
    RestartOption,
    SeedsOption,
    SourceOption,
)
from serving.commands.options import AsJson, DomainOption, settings_of
from serving.commands.output import print_json, print_report
from serving.commands.shared_options import with_options
from serving.commands.table_options import with_table_options
from serving.process.native_output import without_native_lines

if TYPE_CHECKING:
    from models.data.item_features import ItemFeatures
    from models.experiments.new_items import NewItems
    from models.experiments.new_items_lists import NewItemsResults
    from models.experiments.new_items_report import NewItemsReport
    from models.experiments.run import ExperimentRun, Unit
    from serving.commands.offline_evaluation import EvaluationData
    from serving.settings import Settings
    from stream.sources.source import Source
    from stream.sources.table_options import TableOptions


class NewItemsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the experiment reads, how often it repeats, how long it may take, and what it writes."""

    events: Path | None = None
    source: str | None = None
    seeds: int = 1
    folds: int = 5
    first_folds: int | None = None
    budget_minutes: float | None = None
    min_count: int = 1
    warm_users: int = 3_000
    seed: int = 0
    report: Path | None = None
    predictions: Path | None = None
    restart: bool = False


def new_items_options(
    events: EventsOption = None,
    source: SourceOption = None,
    seeds: SeedsOption = 1,
    folds: Annotated[int, typer.Option(min=2, help="Folds: each item is hidden in one of them.")] = 5,
    first_folds: FirstFoldsOption = None,
    budget_minutes: BudgetOption = None,
    min_count: MinCountOption = 1,
    warm_users: Annotated[
        int, typer.Option(min=1, help="Of the users who took no hidden item, ask at most so many in a fold.")
    ] = 3_000,
    seed: BootstrapSeedOption = 0,
    report: ReportOption = None,
    predictions: PredictionsOption = None,
    restart: RestartOption = False,
) -> NewItemsOptions:
    """The options of a command line as one value."""
    return NewItemsOptions(**locals())


@with_table_options
@with_options("options", new_items_options)
@without_native_lines()
def new_items(
    ctx: typer.Context,
    table: "TableOptions",
    options: NewItemsOptions,
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Do texts bring new items to those who want them? A fifth of the items is hidden; what it costs the others."""
    from msgspec import to_builtins

    from models.experiments.new_items_report import text_of
    from serving.process import memory

    settings = settings_of(ctx, domain=domain)
    memory.configure_allocator(memory.TRAINING)
    report = run_new_items(settings, options, table, domain)
    if as_json:
        print_json(to_builtins(report))
    else:
        print_report(text_of(report))


def run_new_items(
    settings: "Settings", options: NewItemsOptions, table: "TableOptions", domain: str | None
) -> "NewItemsReport":
    """Compute what is missing, and write the report and the predictions.

    Raises:
        ColdstreamError: the data cannot be read, or their items have no text.
    """
    from models.experiments.new_items import NewItems, values_of
    from models.experiments.new_items_lists import NewItemsResults
    from models.experiments.new_items_report import new_items_report, page_of
    from models.experiments.new_items_split import HidingPlan
    from serving.commands.experiment_options import ExperimentOptions
    from serving.commands.experiments import chosen_units, write_results
    from serving.commands.offline_evaluation import evaluation_request, read_data

    base = ExperimentOptions(events=options.events, source=options.source, min_count=options.min_count)
    data = read_data(evaluation_request(settings, base, table, domain))
    plan = HidingPlan(
        folds=options.folds,
        min_count=options.min_count,
        weights=data.preset.weights,
        warm_users=options.warm_users,
    )
    experiment = NewItems(data.frame, texts_of(data.source), plan, predictions=options.predictions is not None)
    folds = experiment.folds(0)
    run = _run_of(data, options, plan, settings.state_path)
    units = chosen_units(options.folds, options.seeds, options.first_folds)
    missing = _computed(run, units, experiment, options.budget_minutes)
    kept = [results for _, results in run.read_as(NewItemsResults, units)]
    report = new_items_report(
        values_of(kept),
        options.seed,
        source=data.source.name,
        events=len(folds.frame),
        users=int(folds.frame["user_id"].nunique()),
        items=len(folds.items),
        units=[unit.name for unit in units if run.has(unit)],
        missing=[unit.name for unit in missing],
        settings=msgspec.to_builtins(plan),
        notes=_notes(options),
    )
    write_results(run, units, page_of(report), report, options.predictions)
    return report


def texts_of(source: "Source") -> "ItemFeatures":
    """Titles and the texts among the attributes, and categories, of every item that a source describes."""
    from features.catalogue import item_row
    from models.data.item_features import ItemFeatures

    entries = [item_row(item, 0).record() for part in source.catalogue() for item in part]
    described = [
        msgspec.structs.replace(entry, title=" ".join(filter(None, (entry.title, *_texts(entry.attributes)))) or None)
        for entry in entries
    ]
    return ItemFeatures.from_items([entry for entry in described if entry.title or entry.category], 0)


def _texts(attributes: Any) -> list[str]:
    """The texts among attributes and in lists of them."""
    lists = [value if isinstance(value, list) else [value] for value in attributes.values()]
    return [text for values in lists for text in values if isinstance(text, str)]


def _run_of(data: "EvaluationData", options: NewItemsOptions, plan: msgspec.Struct, state: Path) -> "ExperimentRun":
    from models.experiments.run import ExperimentRun, RunPlan, fingerprint

    digest = fingerprint(data.frame[["user_id", "item_id", "kind", "at"]])
    planned = {**msgspec.to_builtins(plan), "predictions": options.predictions is not None}
    kept = RunPlan("new items", digest, planned)
    folder = options.report or state / "experiments" / f"new-items-{digest[:12]}"
    return ExperimentRun(folder, kept, restart=options.restart)


def _computed(run: "ExperimentRun", units: list["Unit"], experiment: "NewItems", minutes: float | None) -> list["Unit"]:
    """Compute the units that are not there; those that are still missing."""
    from serving.commands.experiments import compute_units
    from serving.commands.progress import training

    with training() as progress:

        def results_of(unit: "Unit") -> "NewItemsResults":
            return experiment.results_of(unit, lambda stage: progress(f"{unit.name} {stage}", 1.0, {}))

        return compute_units(run, units, results_of, minutes, progress)


def _notes(options: NewItemsOptions) -> list[str]:
    how = (
        f"A fold hides one in {options.folds} items. Of each user the newest fifth of the events is asked, at most 10; "
        "training has none of them. Parameters and weights are tuned on other items and events of the training set."
    )
    notes = [
        how,
        "Known items are ranked by EASE in every arm; items that a user took before are no targets.",
    ]
    if options.min_count > 1:
        notes.append(f"Items with fewer than {options.min_count} events are left out.")
    return notes
