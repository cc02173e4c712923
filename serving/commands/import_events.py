"""`coldstream import`: a file of events, cleaned and sent to Kafka."""

from pathlib import Path
from typing import Annotated, Final

import typer

from serving.commands.options import AsJson, ColumnMap, DomainOption, ItemsFile, ProfilesFile, settings_of
from serving.commands.output import print_json, print_value

HOUR_MS: Final = 60 * 60 * 1000


def import_events(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="Events, CSV or Parquet, plain or gzip.")],
    mapping: ColumnMap = None,
    domain: DomainOption = None,
    users: ProfilesFile = None,
    items: ItemsFile = None,
    kind: Annotated[str | None, typer.Option(help="The kind of every event, if no column has it.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be read.")] = False,
    rejects: Annotated[Path | None, typer.Option(help="Write rejected rows to this file.")] = None,
    bots: Annotated[int | None, typer.Option(help="Drop users with more events than this within an hour.")] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="The column separator. Default: detected in the first line.")
    ] = None,
    time_format: Annotated[str | None, typer.Option(help="The format of times, such as %d.%m.%Y %H:%M.")] = None,
    as_json: AsJson = False,
) -> None:
    """Import your own events: clean them, report every step, and send them to Kafka."""
    import msgspec

    from serving.commands.data_loading import import_table
    from stream.cleaning import BotRule, CleaningOptions

    cleaning = CleaningOptions(strict=strict, rejects=rejects, bots=BotRule(bots, HOUR_MS) if bots else None)
    report, sent = import_table(
        settings_of(ctx, domain=domain),
        file,
        mapping,
        cleaning,
        kind=kind,
        users=users,
        items=items,
        delimiter=delimiter,
        time_format=time_format,
    )
    if as_json:
        print_json({"report": msgspec.to_builtins(report), "sent": msgspec.to_builtins(sent)})
        return
    typer.echo(report.table())
    print_value(msgspec.to_builtins(sent), as_json=False)
