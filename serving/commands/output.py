"""What commands have in common: options of the same name, and values printed for people or for scripts."""

import json
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DomainOption = Annotated[str | None, typer.Option("--domain", help="The domain; the setting if left out.")]


def show(value: Any, as_json: bool) -> None:
    """A value as JSON; or a line for each entry."""
    if as_json:
        typer.echo(json.dumps(value, default=str))
    elif isinstance(value, dict):
        for name, one in value.items():
            typer.echo(f"{name:<24} {json.dumps(one, default=str) if isinstance(one, dict | list) else one}")
    else:
        typer.echo(value)
