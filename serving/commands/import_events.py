"""`coldstream import`: files of events, items and users, cleaned and sent to Kafka."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.options import AsJson, DomainOption, settings_of
from serving.commands.output import print_json, print_lines, print_report
from serving.commands.table_options import with_table_options

if TYPE_CHECKING:
    from stream.sources.table_options import TableOptions


@with_table_options
def import_events(
    ctx: typer.Context,
    table: "TableOptions",
    file: Annotated[
        Path | None,
        typer.Argument(
            help="Events, CSV or Parquet, plain or gzip; - reads a pipe. Not needed with --items or --users."
        ),
    ] = None,
    domain: DomainOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the report and ten rows of each file; send nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Import your own events, items and users: clean them, report every step, and send to Kafka what is new.

    Events that were imported before are not sent again; items and users are updated at every import.
    """
    import msgspec

    from serving.commands.file_import import import_source, sample, sample_lines
    from stream.sources.table import open_table

    settings = settings_of(ctx, domain=domain)
    source = open_table(file, table, domain=settings.domain)
    report = msgspec.to_builtins(source.report)
    if not as_json:
        print_report(source.report.table())
    if dry_run:
        rows = sample(source)
        print_lines({"report": report, "rows": rows, "sent": None}, [*sample_lines(rows), "nothing was sent"], as_json)
        return
    sent = import_source(settings, source)
    if as_json:
        print_json({"report": report, "sent": msgspec.to_builtins(sent)})
        return
    print_lines(None, sent.lines(), as_json=False)
