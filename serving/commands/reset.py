"""`coldstream reset`: delete the state folder."""

import shutil
from typing import Annotated

import typer

from serving.settings import Settings
from stream.errors import ColdstreamError


def reset(
    ctx: typer.Context, yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False
) -> None:
    """Delete all persistent state: event log, features, archive and releases."""
    from serving.process.state_folder import is_running

    settings: Settings = ctx.obj
    folder = settings.state_path
    if is_running(settings):
        raise ColdstreamError(f"a system runs on {folder}; stop it first")
    if not folder.exists():
        typer.echo(f"{folder} does not exist; nothing to delete")
        return
    if not yes:
        typer.confirm(f"Delete {folder} and everything in it?", abort=True)
    shutil.rmtree(folder)
    typer.echo(f"deleted {folder}")
