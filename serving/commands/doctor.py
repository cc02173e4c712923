"""`coldstream doctor`: whether this machine has what a system needs."""

from typing import TYPE_CHECKING, Final

import typer

from serving.commands.options import AsJson
from serving.commands.output import print_json
from serving.plain_text import one_line

if TYPE_CHECKING:
    from serving.commands.system_checks import Finding

COLORS: Final = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Check everything that a system needs. Each finding names its cure; exits with 1 if a check fails."""
    import msgspec

    from serving.commands.system_checks import run_checks

    findings = run_checks(ctx.obj)
    if as_json:
        print_json(msgspec.to_builtins(findings))
    else:
        for finding in findings:
            typer.echo(f"{typer.style(f'{finding.state:>4}', COLORS[finding.state])}  {one_line(_line(finding))}")
    raise typer.Exit(any(finding.state == "fail" for finding in findings))


def _line(finding: "Finding") -> str:
    return f"{finding.what}: {finding.detail}" + (f" — {finding.cure}" if finding.cure else "")
