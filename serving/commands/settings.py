"""`coldstream settings`: the settings in force."""

import typer

from serving.commands.options import AsJson
from serving.commands.output import print_value
from serving.settings import Settings


def settings(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show the settings in force."""
    print_value({name: getattr(ctx.obj, name) for name in Settings.__struct_fields__}, as_json)
