"""`coldstream bench`: the benchmarks that every installation can run."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from serving.commands.output import AsJson

app = typer.Typer(no_args_is_help=True, help="Benchmarks; each takes --json.")


@app.command("freshness")
def freshness(
    seconds: Annotated[int, typer.Option(help="How long the load lasts.")] = 60,
    rate: Annotated[int, typer.Option(help="Events offered a second.")] = 2000,
    items: Annotated[int, typer.Option(help="Items in the catalogue and the release.")] = 100_000,
    as_json: AsJson = False,
) -> None:
    """From an event's acknowledgement to a changed answer, under load."""
    from benchmarks.freshness import measure, show

    _bench(measure(seconds=seconds, rate=rate, items=items), show, as_json)


@app.command("lookups")
def lookups(
    items: Annotated[int, typer.Option(help="Items in the catalogue and the release.")] = 100_000,
    users: Annotated[int, typer.Option(help="Users with histories.")] = 100_000,
    recommender: Annotated[
        str, typer.Option(help="transformer, dnn, cnn, rnn, item-knn, sequential-rules, ease or blend.")
    ] = "transformer",
    seconds: Annotated[float, typer.Option(help="How long each part lasts.")] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Look-up latency and throughput at 100,000 items and users."""
    from benchmarks.lookups import measure, show

    _bench(measure(users, items, recommender, seconds), show, as_json)


@app.command("ingest")
def ingest(
    events: Annotated[int, typer.Option(help="Events to catch up on.")] = 1_000_000,
    store: Annotated[str | None, typer.Option(help="Only this store: sqlite or redis.")] = None,
    as_json: AsJson = False,
) -> None:
    """Catching up to features written, and events over HTTP."""
    from benchmarks.ingest import measure, show

    _bench(measure(events=events, stores=(store,) if store else ("sqlite", "redis")), show, as_json)


@app.command("start")
def start(as_json: AsJson = False) -> None:
    """First live answer, neural release, second start, memory."""
    from benchmarks.start import measure, show

    _bench(measure(), show, as_json)


def _bench(figures: dict[str, Any], show: Callable[[dict[str, Any]], None], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(figures, default=str, indent=2))
    else:
        show(figures)
