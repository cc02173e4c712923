"""`coldstream up`: the whole system."""

import asyncio
from typing import Annotated

import typer

from serving.commands.options import DomainOption, settings_of


def up(
    ctx: typer.Context,
    train: Annotated[bool, typer.Option(help="Also run the trainer.")] = True,
    archive: Annotated[bool, typer.Option(help="Also run the archive process.")] = True,
    domain: DomainOption = None,
    kafka: Annotated[
        str | None, typer.Option(metavar="HOST:PORT,...", help="Use this Kafka cluster instead of the embedded broker.")
    ] = None,
) -> None:
    """Run the whole system: broker, API, consumer, archive and trainer. Ctrl-C stops it cleanly."""
    from serving.process.supervisor import Supervisor, parts_of

    settings = settings_of(ctx, domain=domain, kafka=kafka)

    async def supervise() -> int:
        supervisor = Supervisor(settings, parts_of(settings, train=train, archive=archive))
        return await supervisor.up(lambda: supervisor.log("up", f"API {settings.api_url}, docs at /docs"))

    raise typer.Exit(asyncio.run(supervise()))
