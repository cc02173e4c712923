"""Values printed for people or for scripts."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

import typer

from serving.plain_text import lines_of, one_line

REPORT: Final = "report"
"""The key of a command's cleaning report in its JSON; as text the report goes to standard error."""


def print_json(value: Any) -> None:
    """A value as one line of JSON; what JSON lacks (paths, times) becomes text, NaN and infinity null."""
    try:
        text = json.dumps(value, default=str, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(value), default=str)
    typer.echo(text)


def print_value(value: Any, as_json: bool) -> None:
    """A value as JSON; or a line for each entry of a mapping, but its cleaning report."""
    if as_json:
        print_json(value)
    elif isinstance(value, Mapping):
        for name, entry in ((name, entry) for name, entry in value.items() if name != REPORT):
            text = json.dumps(entry, default=str) if isinstance(entry, dict | list) else str(entry)
            typer.echo(f"{name:<24} {one_line(text)}")
    else:
        typer.echo(lines_of(str(value)))


def print_lines(value: Any, lines: Iterable[str], as_json: bool) -> None:
    """A value as JSON; or its lines for people. Nothing in a line reaches the terminal as a control character."""
    if as_json:
        print_json(value)
        return
    for line in lines:
        typer.echo(one_line(line))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_report(text: str, *, err: bool = False) -> None:
    """Several lines for people: a table, an error."""
    typer.echo(lines_of(text), err=err)
