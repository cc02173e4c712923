"""`coldstream new-epoch`: go on with a log that began again, or went back."""

from typing import Any

import msgspec
import typer

from serving.commands.options import AsJson
from serving.commands.output import print_value
from serving.settings import Settings
from stream.errors import ColdstreamError


def new_epoch(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Go on with a log that was lost, restored or replaced. Keeps features and archive. Stop the system first."""
    print_value(begin_epoch(ctx.obj), as_json)


def begin_epoch(settings: Settings) -> dict[str, Any]:
    """Begin a new epoch, if the log is not the one that was read before; what was done.

    Raises:
        ColdstreamError: the system runs, or the log is the one that was read before.
    """
    from features.new_epoch import log_problem, start_epoch
    from features.store import open_store
    from serving.commands.stopped_system import stopped_system

    archive = settings.state_path / "archive"
    with stopped_system(settings) as kafka:
        store = open_store(settings.state_path / "feast", settings.store, settings.domain_names)
        try:
            if log_problem(archive, store, kafka) is None:
                raise ColdstreamError(
                    f"the log at {kafka[0]} is the one that features and archive were written from; "
                    "a new epoch is not needed: start the system"
                )
            return dict(msgspec.to_builtins(start_epoch(archive, store, kafka)))
        finally:
            store.close()
