"""`coldstream bench`: benchmarks that run on every installation.

This process becomes the benchmark's own, `python -m benchmarks.NAME`: nothing that serves imports the benchmarks.
"""

import os
import sys
from typing import Annotated, NoReturn

import typer

from serving.commands.options import AsJson
from stream.child_process import python_command

app = typer.Typer(no_args_is_help=True, help="Run benchmarks.")


@app.command("freshness")
def freshness(
    seconds: Annotated[int, typer.Option(help="Duration of the load in seconds.")] = 60,
    rate: Annotated[int, typer.Option(help="Events sent per second.")] = 2000,
    items: Annotated[int, typer.Option(help="Items in the catalogue and the release.")] = 100_000,
    as_json: AsJson = False,
) -> None:
    """Measure the time from an event's acknowledgement to a changed recommendation, under load."""
    _become("freshness", as_json, "--seconds", str(seconds), "--rate", str(rate), "--items", str(items))


@app.command("lookups")
def lookups(
    items: Annotated[int, typer.Option(help="Items in the catalogue and the release.")] = 100_000,
    users: Annotated[int, typer.Option(help="Users with a history.")] = 100_000,
    recommender: Annotated[
        str, typer.Option(help="transformer, dnn, cnn, rnn, item-knn, sequential-rules, ease or blend.")
    ] = "transformer",
    seconds: Annotated[float, typer.Option(help="Duration of each measurement in seconds.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Measure look-up latency and throughput."""
    sizes = ["--items", str(items), "--users", str(users)]
    _become("lookups", as_json, *sizes, "--recommender", recommender, "--seconds", str(seconds))


@app.command("ingest")
def ingest(
    events: Annotated[int, typer.Option(help="Size of the backlog.")] = 1_000_000,
    store: Annotated[str | None, typer.Option(help="The online store: sqlite or redis. Default: both.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how fast the consumer catches up with a backlog, and how fast events enter over HTTP."""
    _become("ingest", as_json, "--events", str(events), *(["--store", store] if store else []))


@app.command("connections")
def connections(
    idle: Annotated[int, typer.Option(help="Connections that send nothing.")] = 2_000,
    streams: Annotated[int, typer.Option(help="Open live streams.")] = 1_000,
    seconds: Annotated[float, typer.Option(help="Duration of each of ten measurements in seconds.")] = 4.0,
    as_json: AsJson = False,
) -> None:
    """Measure look-ups beside thousands of open connections, and whether slow ones end."""
    sizes = ["--idle", str(idle), "--streams", str(streams), "--seconds", str(seconds)]
    _become("connections", as_json, *sizes)


@app.command("start")
def start(as_json: AsJson = False) -> None:
    """Measure a first start, a second start and the memory of each process."""
    _become("start", as_json)


def _become(benchmark: str, as_json: bool, *options: str) -> NoReturn:
    sys.stdout.flush()
    command = python_command(f"benchmarks.{benchmark}", *options, *(["--json"] if as_json else []))
    os.execv(sys.executable, command)  # noqa: S606 - our own module, and no shell is wanted
