"""`coldstream bench`: benchmarks that run on every installation."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from serving.commands.options import AsJson

app = typer.Typer(no_args_is_help=True, help="Run benchmarks.")


@app.command("freshness")
def freshness(
    seconds: Annotated[int, typer.Option(help="Duration of the load in seconds.")] = 60,
    rate: Annotated[int, typer.Option(help="Events sent per second.")] = 2000,
    items: Annotated[int, typer.Option(help="Items in the catalogue and the release.")] = 100_000,
    as_json: AsJson = False,
) -> None:
    """Measure the time from an event's acknowledgement to a changed recommendation, under load."""
    from benchmarks.freshness import measure, show

    _print(measure(seconds=seconds, rate=rate, items=items), show, as_json)


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
    from benchmarks.lookups import measure, show

    _print(measure(users, items, recommender, seconds), show, as_json)


@app.command("ingest")
def ingest(
    events: Annotated[int, typer.Option(help="Size of the backlog.")] = 1_000_000,
    store: Annotated[str | None, typer.Option(help="The online store: sqlite or redis. Default: both.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how fast the consumer catches up with a backlog, and how fast events enter over HTTP."""
    from benchmarks.ingest import measure, show

    _print(measure(events=events, stores=(store,) if store else ("sqlite", "redis")), show, as_json)


@app.command("start")
def start(as_json: AsJson = False) -> None:
    """Measure a first start, a second start and the memory of each process."""
    from benchmarks.start import measure, show

    _print(measure(), show, as_json)


def _print(figures: dict[str, Any], show: Callable[[dict[str, Any]], None], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(figures, default=str, indent=2))
    else:
        show(figures)
