"""`coldstream run`: the demonstration that `make run` starts."""

import asyncio
from typing import Annotated

import typer


def run(
    ctx: typer.Context,
    speed: Annotated[float, typer.Option(help="Replay the last weeks this many times faster than real time.")] = 900.0,
    weeks: Annotated[float, typer.Option(help="How many of the last weeks to replay live.")] = 2.0,
    user: Annotated[
        str | None, typer.Option(help="The user to follow. Default: the most active one of the last weeks.")
    ] = None,
) -> None:
    """Demonstrate the system: start it, load the Complete Journey data, replay its last weeks with a live view."""
    from serving.commands.demonstration import demonstrate

    raise typer.Exit(asyncio.run(demonstrate(ctx.obj, speed=speed, weeks=weeks, user=user)))
