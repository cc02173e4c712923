"""The options of reading files, written once: `import`, `evaluate` and `tune` read exactly the same."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from serving.commands.shared_options import with_options

if TYPE_CHECKING:
    from stream.sources.table_options import TableOptions

HOUR_MS: Final = 60 * 60 * 1000


def table_options(
    mapping: Annotated[
        str | None,
        typer.Option(
            "--map",
            metavar="FIELD=COLUMN,...",
            help="Columns by field, such as user_id=uid,item_id=sku,at=ts[,kind=..]. Each file uses what it has.",
        ),
    ] = None,
    map_items: Annotated[
        str | None,
        typer.Option(metavar="FIELD=COLUMN,...", help="Columns of --items alone, such as title=name,category=cat."),
    ] = None,
    map_users: Annotated[
        str | None,
        typer.Option(metavar="FIELD=COLUMN,...", help="Columns of --users alone, such as user_id=uid,segment=tier."),
    ] = None,
    items: Annotated[Path | None, typer.Option(help="The item catalogue, CSV or Parquet.")] = None,
    users: Annotated[Path | None, typer.Option(help="User profiles, CSV or Parquet.")] = None,
    kind: Annotated[str | None, typer.Option(help="The kind of every event, unless --map names its column.")] = None,
    kind_map: Annotated[
        str | None, typer.Option(metavar="NAME=KIND,...", help="The file's kinds, such as favourite=like.")
    ] = None,
    delimiter: Annotated[str | None, typer.Option(help="The column separator. Default: detected.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="The encoding, such as cp1252. Default: UTF-8, or by the byte order mark.")
    ] = None,
    quotes: Annotated[
        bool, typer.Option("--quotes/--no-quotes", help="Whether a quote sign encloses values or is plain text.")
    ] = True,
    skip_lines: Annotated[
        str | None, typer.Option(metavar="N", help="Lines above the header, such as 3, or events=3,items=1.")
    ] = None,
    time_format: Annotated[
        str | None, typer.Option(help="The format of times, such as '%d.%m.%y %H:%M'; several: 'auto|%d/%m/%Y'.")
    ] = None,
    missing: Annotated[
        str | None, typer.Option(metavar="TEXT,...", help="Texts that mean an empty value, such as NULL,NA.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first row that cannot be read.")] = False,
    rejects: Annotated[Path | None, typer.Option(help="Write rejected rows to this file.")] = None,
    bots: Annotated[
        int | None, typer.Option(min=1, help="Drop users with more events than this within an hour.")
    ] = None,
) -> "TableOptions":
    """The options of a command line as one value. Raises SourceError for maps that do not parse."""
    from stream.cleaning import BotRule, CleaningOptions
    from stream.sources.columns import parse_map
    from stream.sources.table_options import TableOptions, parse_skips

    return TableOptions(
        columns=parse_map(mapping),
        item_columns=parse_map(map_items, "--map-items"),
        user_columns=parse_map(map_users, "--map-users"),
        items=items,
        users=users,
        kind=kind,
        kinds=parse_map(kind_map, "--kind-map"),
        delimiter=delimiter,
        encoding=encoding,
        quotes=quotes,
        skip_lines=parse_skips(skip_lines),
        time_format=time_format,
        missing=tuple(text.strip() for text in missing.split(",")) if missing else (),
        cleaning=CleaningOptions(strict=strict, rejects=rejects, bots=BotRule(bots, HOUR_MS) if bots else None),
    )


with_table_options: Final = with_options("table", table_options)
"""The command with the options of `table_options` added; it gets their value as its argument `table`."""
