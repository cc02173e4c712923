"""`coldstream tune`: a hyperparameter search whose result is a preset."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.experiment_options import ExperimentOptions, with_experiment_options
from serving.commands.options import AsJson, DomainOption, settings_of
from serving.commands.output import print_value
from serving.commands.table_options import with_table_options
from serving.process.native_output import without_native_lines

if TYPE_CHECKING:
    from stream.sources.table_options import TableOptions


@with_table_options
@with_experiment_options
@without_native_lines()
def tune(
    ctx: typer.Context,
    table: "TableOptions",
    experiment: ExperimentOptions,
    recommender: Annotated[str, typer.Option(help="A name, names separated by commas, auto or all.")] = "auto",
    trials: Annotated[
        int, typer.Option(min=1, help="Trials for each recommender, including those of earlier runs.")
    ] = 30,
    minutes: Annotated[float, typer.Option(min=0.01, help="Minutes for each recommender in this run.")] = 10.0,
    study: Annotated[
        Path | None, typer.Option(help="The study's log file. Default: studies/studies.log in the state folder.")
    ] = None,
    preset: Annotated[Path, typer.Option(help="The preset file to write.")] = Path("preset.toml"),
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Search hyperparameters on your events and write a preset. The same command resumes an interrupted search."""
    from serving.commands import hyperparameter_search
    from serving.commands.offline_evaluation import evaluation_request
    from serving.process import memory

    settings = settings_of(ctx, domain=domain)
    request = evaluation_request(
        settings, experiment, table, domain, recommender=recommender, trials=trials, minutes=minutes
    )
    memory.configure_allocator(memory.TRAINING)
    study_file = study or settings.state_path / "studies" / "studies.log"
    print_value(hyperparameter_search.tune(request, study_file, preset), as_json)
