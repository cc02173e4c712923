"""`coldstream doctor`: whether this machine has what a system needs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import typer

from serving.commands.options import AsJson
from serving.commands.output import print_lines

if TYPE_CHECKING:
    from serving.commands.system_checks import Finding

COLORS: Final = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Check everything that a system needs. Each finding names its cure; exits with 1 if a check fails."""
    import msgspec

    from serving.commands.system_checks import run_checks

    findings = run_checks(ctx.obj)
    print_lines(msgspec.to_builtins(findings), _lines(findings), as_json)
    raise typer.Exit(any(finding.state == "fail" for finding in findings))


def _lines(findings: "list[Finding]") -> Iterator[str]:
    for finding in findings:
        state = typer.style(f"{finding.state:>4}", COLORS[finding.state])
        yield f"{state}  {finding.what}: {finding.detail}" + (f" — {finding.cure}" if finding.cure else "")
