"""`coldstream settings`: the settings in force, and the reference of all settings."""

from typing import Annotated

import typer

from serving.commands.options import AsJson
from serving.commands.output import print_json, print_value


def settings(
    ctx: typer.Context,
    reference: Annotated[
        bool, typer.Option("--reference", help="Print every setting with default, values and meaning, as Markdown.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a settings file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the settings in force; passwords are masked."""
    from serving.setting_reference import reference_table, settings_schema

    if schema:
        print_json(settings_schema())
    elif reference:
        typer.echo(reference_table())
    else:
        print_value(ctx.obj.shown, as_json)
