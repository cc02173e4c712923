"""`coldstream replay`: a public data set, sent to Kafka."""

from typing import Annotated

import typer

from serving.commands.options import AsJson
from serving.commands.output import print_value


def replay(
    ctx: typer.Context,
    source: Annotated[
        str, typer.Argument(help="complete-journey, or NAME:PATH such as movielens-1m:ml-1m")
    ] = "complete-journey",
    speed: Annotated[
        float | None, typer.Option(help="Multiple of real time. Default: as fast as Kafka accepts events.")
    ] = None,
    start: Annotated[str | None, typer.Option("--from", help="Only events on or after this date (RFC 3339).")] = None,
    until: Annotated[str | None, typer.Option(help="Only events before this date.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget the place, and compare all with the log.")] = False,
    shift: Annotated[bool, typer.Option(help="Shift all times so that the data set ends about now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replay a data set into Kafka. An interrupted replay resumes; what the log has already is not sent again."""
    from serving.commands.data_loading import replay_source

    figures = replay_source(ctx.obj, source, speed=speed, start=start, until=until, restart=restart, shift=shift)
    print_value(figures, as_json)
