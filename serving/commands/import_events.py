"""`coldstream import`: a file of events, cleaned and sent to Kafka."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.options import AsJson, DomainOption, settings_of
from serving.commands.output import print_json, print_value
from serving.commands.table_options import with_table_options

if TYPE_CHECKING:
    from stream.sources.table_options import TableOptions


@with_table_options
def import_events(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Events, CSV or Parquet, plain or gzip; - reads a pipe.")],
    table: "TableOptions",
    domain: DomainOption = None,
    as_json: AsJson = False,
) -> None:
    """Import your own events: clean them, report every step, and send them to Kafka."""
    import msgspec

    from serving.commands.data_loading import import_table

    report, sent = import_table(settings_of(ctx, domain=domain), file, table)
    if as_json:
        print_json({"report": msgspec.to_builtins(report), "sent": msgspec.to_builtins(sent)})
        return
    typer.echo(report.table())
    print_value(msgspec.to_builtins(sent), as_json=False)
