"""The options that every experiment shares: data, numbers of known events, seeds, folds, budget, outputs."""

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from serving.commands.shared_options import with_options

EventsOption = Annotated[Path | None, typer.Option(help="Events, CSV or Parquet, plain or gzip; - reads a pipe.")]
SourceOption = Annotated[str | None, typer.Option(metavar="NAME[:PATH]", help="A named data set instead of --events.")]
SeedsOption = Annotated[int, typer.Option(min=1, help="Repetitions, each with folds of its own.")]
FirstFoldsOption = Annotated[int | None, typer.Option(min=1, help="Compute only the first folds of each seed.")]
BudgetOption = Annotated[
    float | None,
    typer.Option(min=0.0, help="Start no further fold after so many minutes; the same command goes on."),
]
MinCountOption = Annotated[int, typer.Option(min=1, help="Drop items with fewer events.")]
BootstrapSeedOption = Annotated[int, typer.Option(help="Random seed of the bootstrap.")]
ReportOption = Annotated[
    Path | None,
    typer.Option(help="Write Markdown, HTML with plots and JSON here; what was computed is kept here too."),
]
PredictionsOption = Annotated[
    Path | None, typer.Option(help="Write each arm's top 20 of each user to Parquet files in this folder.")
]
RestartOption = Annotated[bool, typer.Option("--restart", help="Delete what an earlier run computed.")]


class ExperimentRunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment reads, how often it repeats, how long it may take, and what it writes."""

    events: Path | None = None
    source: str | None = None
    k: str = "0,1,2,3,5"
    seeds: int = 5
    folds: int = 5
    first_folds: int | None = None
    budget_minutes: float | None = None
    recommender: str = "auto"
    trials: int = 1
    minutes: float = 4.0
    tuning_users: int = 1_000
    seen: str = "auto"
    sample: int | None = None
    min_count: int = 1
    seed: int = 0
    report: Path | None = None
    predictions: Path | None = None
    restart: bool = False


def experiment_run_options(
    events: EventsOption = None,
    source: SourceOption = None,
    k: Annotated[str, typer.Option("--k", metavar="K,...", help="Numbers of known events.")] = "0,1,2,3,5",
    seeds: SeedsOption = 5,
    folds: Annotated[int, typer.Option(min=2, help="Folds: each user is cold in one of them.")] = 5,
    first_folds: FirstFoldsOption = None,
    budget_minutes: BudgetOption = None,
    recommender: Annotated[
        str, typer.Option(help="The opponent's members: names separated by commas, or auto (all that count).")
    ] = "auto",
    trials: Annotated[int, typer.Option(min=1, help="Tuning trials for each member and fold; 1: defaults.")] = 1,
    minutes: Annotated[
        float, typer.Option(min=0.01, help="Minutes for each member's tuning, and a generator's fit.")
    ] = 4.0,
    tuning_users: Annotated[
        int, typer.Option(min=10, help="Users of a fold on whom weights and arms are chosen, at most.")
    ] = 1_000,
    seen: Annotated[
        str, typer.Option(help="Items in the history: keep, mask, or auto (keep where 5% of the events repeat one).")
    ] = "auto",
    sample: Annotated[int | None, typer.Option(min=1, help="Ask at most this many cold users.")] = None,
    min_count: MinCountOption = 1,
    seed: BootstrapSeedOption = 0,
    report: ReportOption = None,
    predictions: PredictionsOption = None,
    restart: RestartOption = False,
) -> ExperimentRunOptions:
    """The options of a command line as one value."""
    return ExperimentRunOptions(**locals())


with_experiment_run_options: Final = with_options("options", experiment_run_options)
"""The command with the options of `experiment_run_options` added; it gets their value as its argument `options`."""
