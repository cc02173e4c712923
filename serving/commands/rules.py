"""`coldstream rules`: merchandising rules of the running API, and rule files checked without one."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from serving.commands.options import AsJson
from serving.commands.output import print_lines, print_value
from serving.plain_text import one_line

app = typer.Typer(no_args_is_help=True, help="Manage rules: pin, boost, bury, exclude.")

RulesFile = Annotated[Path, typer.Argument(help="A file of rules, TOML or JSON.")]


@app.command("list")
def list_rules(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the rules of the running API."""
    from serving.commands.client import call_api

    answer = call_api(ctx.obj, "GET", "/v1/rules")
    print_lines(answer, _listed(answer["rules"]), as_json)
    if not as_json and answer["file"] and answer["file"]["error"]:
        typer.echo(f"{typer.style('error', typer.colors.RED)}: {one_line(answer['file']['error'])}", err=True)


@app.command()
def put(ctx: typer.Context, file: RulesFile, as_json: AsJson = False) -> None:
    """Send the rules of a file to the running API, which stores them in Kafka."""
    import msgspec

    from serving.commands.client import call_api
    from serving.rules.rule import read_rules

    answers = [
        call_api(ctx.obj, "PUT", f"/v1/rules/{rule.id}", body=msgspec.json.encode(rule)) for rule in read_rules(file)
    ]
    summary = f"{len(answers)} rules: {', '.join(answer['id'] for answer in answers)}"
    print_lines(answers, [summary], as_json)


@app.command()
def delete(
    ctx: typer.Context, rule: Annotated[str, typer.Argument(help="The rule's id.")], as_json: AsJson = False
) -> None:
    """Delete a rule from the running API."""
    from serving.commands.client import call_api
    from stream.errors import ColdstreamError

    if not rule:
        raise ColdstreamError("the rule's id is empty; `coldstream rules list` shows the ids")
    print_value(call_api(ctx.obj, "DELETE", f"/v1/rules/{quote(rule, safe='')}"), as_json)


@app.command()
def check(file: RulesFile, as_json: AsJson = False) -> None:
    """Read a file of rules and describe each one. No running system is needed."""
    from serving.commands.rule_summary import summary_of
    from serving.rules.rule import read_rules

    now_ms = int(time.time() * 1000)
    rows = [{**summary_of(rule), "holds now": rule.valid_at(now_ms)} for rule in read_rules(file)]
    lines = (_line(row) + ("" if row["holds now"] else " (not now)") for row in rows)
    print_lines(rows, lines, as_json)


def _listed(rules: list[dict[str, Any]]) -> Iterator[str]:
    import msgspec

    from serving.commands.rule_summary import summary_of
    from serving.rules.rule import Rule

    for entry in rules:
        fields = {name: value for name, value in entry.items() if name not in {"source", "holds"}}
        domains = ", ".join(entry["holds"]) or "not now"
        yield f"{_line(summary_of(msgspec.convert(fields, Rule)))} · {domains} ({entry['source']})"


def _line(row: dict[str, Any]) -> str:
    return f"{row['id']:<20} {row['does']:<12} {row['about']} · {row['for']}"
