"""Values printed for people or for scripts."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import typer


def print_json(value: Any) -> None:
    """A value as one line of JSON; what JSON lacks (paths, times) becomes text."""
    typer.echo(json.dumps(value, default=str))


def print_value(value: Any, as_json: bool) -> None:
    """A value as JSON; or a line for each entry of a mapping."""
    if as_json:
        print_json(value)
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            typer.echo(f"{name:<24} {json.dumps(entry, default=str) if isinstance(entry, dict | list) else entry}")
    else:
        typer.echo(value)


def print_lines(value: Any, lines: Iterable[str], as_json: bool) -> None:
    """A value as JSON; or its lines for people."""
    if as_json:
        print_json(value)
        return
    for line in lines:
        typer.echo(line)
