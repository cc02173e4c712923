"""The options of an offline experiment, written once: `evaluate` and `tune` measure exactly the same."""

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from serving.commands.shared_options import with_options


class ExperimentOptions(msgspec.Struct, frozen=True):
    """What is measured, and how: exactly one of `events` (a file) and `source` (NAME or NAME:PATH) is given."""

    events: Path | None = None
    source: str | None = None
    split: str = "leave-one-out"
    seen: str = "auto"
    sample: int | None = None
    seed: int = 0
    min_count: int = 1


def experiment_options(
    events: Annotated[Path | None, typer.Option(help="Events, CSV or Parquet, plain or gzip; - reads a pipe.")] = None,
    source: Annotated[
        str | None, typer.Option(metavar="NAME[:PATH]", help="A named data set instead of --events.")
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="leave-one-out, last-days:N, last-share:S, random:S; evaluate also cold-users[:K,K...], progressive."
        ),
    ] = "leave-one-out",
    seen: Annotated[
        str, typer.Option(help="Items in the history: keep or mask. auto chooses on the tuning cases.")
    ] = "auto",
    sample: Annotated[int | None, typer.Option(min=1, help="Evaluate at most this many users.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    min_count: Annotated[int, typer.Option(min=1, help="Drop items with fewer events.")] = 1,
) -> ExperimentOptions:
    """The options of a command line as one value."""
    return ExperimentOptions(events, source, split, seen, sample, seed, min_count)


with_experiment_options: Final = with_options("experiment", experiment_options)
"""The command with the options of `experiment_options` added; it gets their value as its argument `experiment`."""
