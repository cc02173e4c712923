"""`coldstream tune`: a hyperparameter search whose result is a preset."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.evaluate import DataSet, EventsFile, MinCount, Sample, Seed, Seen, Split
from serving.commands.options import AsJson, DomainOption, settings_of
from serving.commands.output import print_value
from serving.commands.table_options import with_table_options

if TYPE_CHECKING:
    from stream.sources.table_options import TableOptions


@with_table_options
def tune(
    ctx: typer.Context,
    table: "TableOptions",
    events: EventsFile = None,
    source: DataSet = None,
    split: Split = "leave-one-out",
    recommender: Annotated[str, typer.Option(help="A name, names separated by commas, auto or all.")] = "auto",
    seen: Seen = "auto",
    trials: Annotated[
        int, typer.Option(min=1, help="Trials for each recommender, including those of earlier runs.")
    ] = 30,
    minutes: Annotated[float, typer.Option(min=0.01, help="Minutes for each recommender in this run.")] = 10.0,
    sample: Sample = None,
    seed: Seed = 0,
    min_count: MinCount = 1,
    study: Annotated[
        Path | None, typer.Option(help="The study's log file. Default: studies/studies.log in the state folder.")
    ] = None,
    preset: Annotated[Path, typer.Option(help="The preset file to write.")] = Path("preset.toml"),
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Search hyperparameters on your events and write a preset. The same command resumes an interrupted search."""
    from serving.commands import hyperparameter_search
    from serving.commands.offline_evaluation import EvaluationRequest
    from serving.domain_presets import preset_for
    from serving.process import memory

    settings = settings_of(ctx, domain=domain)
    request = EvaluationRequest(
        events=events,
        source=source,
        table=table,
        domain=settings.domain,
        split=split,
        recommender=recommender,
        seen=seen,
        trials=trials,
        minutes=minutes,
        sample=sample,
        seed=seed,
        min_count=min_count,
        preset=preset_for(settings, settings.domain) if events is not None or domain is not None else None,
    )
    memory.configure_allocator(memory.TRAINING)
    study_file = study or settings.state_path / "studies" / "studies.log"
    print_value(hyperparameter_search.tune(request, study_file, preset), as_json)
