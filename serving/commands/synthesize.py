"""`coldstream synthesize` and `coldstream probe`: synthetic users, and how good they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.options import AsJson, DomainOption, settings_of
from serving.commands.output import print_lines, print_value
from serving.commands.synthesis_options import SynthesisOptions, with_synthesis_options
from serving.commands.table_options import with_table_options
from serving.process.native_output import without_native_lines

if TYPE_CHECKING:
    from stream.sources.table_options import TableOptions


@with_table_options
@with_synthesis_options
@without_native_lines()
def synthesize(
    ctx: typer.Context,
    table: "TableOptions",
    synthesis: SynthesisOptions,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Synthetic users to generate.")] = 10_000,
    out: Annotated[
        Path | None, typer.Option(help="Write their events to this file: Parquet or CSV, by its name.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write a report to this folder: fidelity, utility, attacks (Markdown, HTML with plots, JSON)."
        ),
    ] = None,
    compared: Annotated[int, typer.Option(min=10, help="With --report: at most so many users are compared.")] = 2_000,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --report: leave out the network that reads sequences.")
    ] = False,
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Learn from your events, generate synthetic users, and report how good they are: give --out, --report or both."""
    from serving.commands import synthesis as work
    from serving.process import memory

    settings = settings_of(ctx, domain=domain)
    memory.configure_allocator(memory.TRAINING)
    request = work.SynthesisRequest(n=n, out=out, report=report, compared=compared, quick=quick)
    print_value(work.synthesize(settings, table, synthesis, domain, request), as_json)


@with_table_options
@with_synthesis_options
@without_native_lines()
def probe(
    ctx: typer.Context,
    table: "TableOptions",
    synthesis: SynthesisOptions,
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=1_000, help="Synthetic users to show.")] = 100,
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Look at synthetic users: what each does, when, in titles where there are some."""
    from serving.commands import synthesis as work
    from serving.process import memory

    settings = settings_of(ctx, domain=domain)
    memory.configure_allocator(memory.TRAINING)
    shown = work.probe(settings, table, synthesis, domain, n=n)
    print_lines(shown, work.probe_lines(shown), as_json)
