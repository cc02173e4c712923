"""Bring your own: events from a CSV or Parquet file of any shape, by a column map; users, items from other files.

A time may be epoch seconds or milliseconds, RFC 3339, or a common form of date; one form a column, UTC where no zone is
written. What was assumed stands in the report's notes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import polars as pl

from stream.cleaning import DUPLICATES, LINE, Cleaner
from stream.cleaning_report import EVENTS
from stream.errors import SourceError
from stream.sources.columnar import CheckedColumns, flat
from stream.sources.columns import FIELDS, choose, look_alikes
from stream.sources.numbers import is_dash, read_numbers
from stream.sources.side_tables import ITEMS, USERS, SideTable, read_side_table
from stream.sources.source import (
    EVENT_COLUMNS,
    IDENTITY,
    MAX_ID,
    Source,
    assemble,
    content_ids,
    keep_first,
    keep_users,
    row_faults,
)
from stream.sources.table_file import labels, note_other_times, open_columns, row_example
from stream.sources.table_options import TableOptions, check_kinds, skips_of
from stream.sources.times import to_epoch_ms

DOMAIN: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
KIND: Final = "view"
LABELS: Final = ("user_id", "item_id", "session_id", "category", "segment", "event_id", "kind")
TYPED: Final = "\x00"
"""Marks columns that hold a field, beside those of the file."""
ALIASES: Final[dict[str, str]] = {
    "pageview": "view",
    "detail_view": "view",
    "product_view": "view",
    "addtocart": "cart",
    "add_to_cart": "cart",
    "add-to-cart": "cart",
    "remove_from_cart": "remove",
    "transaction": "purchase",
    "order": "purchase",
    "buy": "purchase",
    "bought": "purchase",
    "listen": "play",
    "watch": "play",
    "rating": "rate",
    "favorite": "like",
    "fav": "like",
    "pv": "view",
}
"""Names that other systems give to kinds."""


class OpenedFiles(msgspec.Struct, frozen=True):
    """The files of one import, opened; `maps` holds each table's part of the column maps."""

    tables: dict[str, CheckedColumns]
    paths: dict[str, Path]
    maps: dict[str, dict[str, str]]


def open_table(path: Path | None, options: TableOptions | None = None, *, domain: str = "shop") -> Source:
    """The events of a file, with the items and users of their own files; None reads only these.

    Fields of events are user_id, item_id, at and, where there are such, kind, value, session_id, category, segment,
    event_id; of items item_id, title, category, expires_at; of users user_id, segment. What else items and users hold
    becomes attributes. Columns that no map names are guessed, and the report says how.

    Raises:
        SourceError: a file cannot be read as asked, or the map does not fit it.
    """
    options = options or TableOptions()
    _check(domain, options)
    cleaner, files = _open(path, options)
    events = pl.DataFrame(schema=EVENT_COLUMNS)
    if path is not None:
        events = _identified(cleaner, _events(cleaner, path, files, options), domain)
    items, users = (_side(cleaner, files, table) for table in (ITEMS, USERS))
    return assemble(cleaner, cleaner.source, domain, events, items=items, users=users)


def _check(domain: str, options: TableOptions) -> None:
    if not DOMAIN.fullmatch(domain):
        raise SourceError(f"domain {domain!r}: use a small letter, then small letters, digits and _, at most 32")
    check_kinds(options)


def _open(path: Path | None, options: TableOptions) -> tuple[Cleaner, OpenedFiles]:
    named = {EVENTS: path, ITEMS.name: options.items, USERS.name: options.users}
    paths = {table: file for table, file in named.items() if file is not None}
    if not paths:
        raise SourceError("there is nothing to read: give a file of events, --items FILE or --users FILE")
    cleaner = Cleaner(next(iter(paths.values())).name, options.cleaning)
    skips = skips_of(options, list(paths))
    tables = {
        table: open_columns(file, cleaner if table == EVENTS else cleaner.of(table), options, skips.get(table, 0))
        for table, file in paths.items()
    }
    return cleaner, OpenedFiles(tables, paths, _shared_maps(options, tables))


def _shared_maps(options: TableOptions, tables: Mapping[str, CheckedColumns]) -> dict[str, dict[str, str]]:
    """Each table's map: those pairs of --map whose column it has, and its own map, which wins.

    Raises:
        SourceError: a pair has no table that could use it.
    """
    fields = {EVENTS: FIELDS, **{side.name: (side.key, *side.fields) for side in (ITEMS, USERS)}}
    maps: dict[str, dict[str, str]] = {table: {} for table in fields}
    for field, column in options.columns.items():
        able = [table for table, names in fields.items() if field in names]
        if not able:
            every = ", ".join(dict.fromkeys(name for names in fields.values() for name in names))
            raise SourceError(f"{field} in the column map is no field; fields are {every}")
        given = [table for table in able if table in tables]
        if not given:
            raise SourceError(f"{field} in the column map is a field of {able[0]}; give their file with --{able[0]}")
        having = [table for table in given if column in tables[table].frame.columns]
        for table in having or given[:1]:
            maps[table][field] = column
    for side, own in (
        (ITEMS, options.item_columns),
        (USERS, options.user_columns),
    ):
        if own and side.name not in tables:
            raise SourceError(f"{side.option} describes a file of {side.name}; give it with --{side.name}")
        maps[side.name] |= own
    return maps


def _side(cleaner: Cleaner, files: OpenedFiles, table: SideTable) -> pl.DataFrame | None:
    if table.name not in files.tables:
        return None
    path, opened = files.paths[table.name], files.tables[table.name]
    return read_side_table(cleaner.of(table.name), path, table, files.maps[table.name], opened)


def _events(cleaner: Cleaner, path: Path, files: OpenedFiles, options: TableOptions) -> pl.DataFrame:
    """The parsed events of the file, with `LINE`; what is wrong with them is counted."""
    opened = files.tables[EVENTS]
    names = [name for name in opened.frame.columns if name != LINE]
    chosen, guessed = choose(str(path), names, files.maps[EVENTS] or None, hint=opened.hint)
    if options.kind is not None and "kind" in guessed:
        cleaner.note(f"kind: {options.kind}, as asked, whatever column {chosen.pop('kind')} says")
        guessed.pop("kind")
    if guessed:
        cleaner.note(f"columns guessed: {', '.join(f'{field}={column}' for field, column in guessed.items())}")
    alike = look_alikes(names, guessed)
    if alike is not None:
        cleaner.note(f"{path.name}: {alike}")
    raw = _readable(cleaner, path, opened, chosen)
    texts = labels(cleaner, path, raw, chosen, LABELS)
    raw = raw.with_columns(text.alias(f"{TYPED}{field}") for field, text in texts.items())
    raw = keep_users(cleaner, raw, f"{TYPED}user_id")
    typed = _typed(cleaner, path, raw, chosen, options)
    raw = raw.drop(name for name in raw.columns if name.startswith(TYPED))
    faults = row_faults(typed, cleaner.now_ms, {"at": flat(raw[chosen["at"]])})
    comparable = [flat(raw[name]).alias(f"raw {name}") for name in names]
    whole = typed.with_columns(comparable)
    events = cleaner.keep_parsed(path.name, raw, whole, faults)
    events = keep_first(cleaner, events, [column.name for column in comparable])
    return events.select(typed.columns)


def _readable(cleaner: Cleaner, path: Path, opened: CheckedColumns, chosen: Mapping[str, str]) -> pl.DataFrame:
    """Without the rows whose required fields hold bytes that are no text; of the others these fields are left out."""
    raw = opened.frame
    reason = pl.Series([None], dtype=pl.String).new_from_index(0, raw.height)
    for field, column in chosen.items():
        bad = opened.unreadable.get(column)
        if bad is None:
            continue
        if field in {"user_id", "item_id", "at", "kind"}:
            reason = reason.set(bad, f"{field}: bytes that are not text")
        else:
            cleaner.leave_out(field, int(bad.sum()), f"{row_example(path, raw, bad, column)}: bytes, no text")
    if reason.null_count() == raw.height:
        return raw
    fault = reason.set(reason.is_not_null(), "bytes that are not text")
    return cleaner.keep_parsed(path.name, raw, raw, pl.DataFrame({"fault": fault, "reason": reason}))


def _typed(
    cleaner: Cleaner, path: Path, raw: pl.DataFrame, chosen: Mapping[str, str], options: TableOptions
) -> pl.DataFrame:
    at, note = to_epoch_ms(raw[chosen["at"]], options.time_format)
    cleaner.note(f"at: {note}")
    note_other_times(cleaner, path, raw, chosen["at"], at)
    columns: dict[str, Any] = {LINE: raw[LINE]}
    for field in LABELS:
        if field in chosen and field != "kind":
            columns[field] = _short(cleaner, path, raw, chosen[field], field)
    columns |= {"at": at, "kind": _kinds(cleaner, raw, chosen, options)}
    if "value" in chosen:
        columns["value"] = _values(cleaner, path, raw, chosen["value"])
    return pl.DataFrame(columns)


def _short(cleaner: Cleaner, path: Path, raw: pl.DataFrame, column: str, field: str) -> pl.Series:
    """A label of the schema; an optional one that is too long is left out."""
    text = raw[f"{TYPED}{field}"]
    if field in {"user_id", "item_id"}:
        return text
    long = (text.str.len_chars() > MAX_ID).fill_null(value=False)
    if not long.any():
        return text
    example = row_example(path, raw, long, column)
    cleaner.leave_out(field, int(long.sum()), f"{example}: more than {MAX_ID} characters")
    return text.set(long, None)


def _kinds(cleaner: Cleaner, raw: pl.DataFrame, chosen: Mapping[str, str], options: TableOptions) -> pl.Series:
    if "kind" not in chosen:
        kind = options.kind or KIND
        cleaner.note(f"kind: every event is a {kind}")
        return pl.Series("kind", [kind], pl.String).new_from_index(0, raw.height)
    names = {**ALIASES, **{name.strip().lower(): kind for name, kind in options.kinds.items()}}
    kinds = raw[f"{TYPED}kind"].str.to_lowercase().replace(names)
    return kinds if options.kind is None else kinds.fill_null(options.kind)


def _values(cleaner: Cleaner, path: Path, raw: pl.DataFrame, column: str) -> pl.Series:
    """Amounts; what is no number is left out, for the event says enough without it."""
    numbers, note = read_numbers(raw[column])
    if note is not None:
        cleaner.note(f"value: {note}")
    bad = numbers.is_null() & raw[column].is_not_null()
    if bad.any():
        dash = raw[column].dtype == pl.String and is_dash(raw[column].filter(bad)).all()
        why = "a dash, read as nothing" if dash else "not a number"
        cleaner.leave_out("value", int(bad.sum()), f"{row_example(path, raw, bad, column)}: {why}")
    return numbers


def _identified(cleaner: Cleaner, events: pl.DataFrame, domain: str) -> pl.DataFrame:
    """Event ids of the file, or from what each row says (`content_ids`); the first row of each user and id."""
    if "event_id" not in events.columns:
        return events.with_columns(event_id=content_ids(domain, events))
    known = events.filter(pl.col("event_id").is_not_null())
    first = known.unique(["user_id", "event_id"], keep="first", maintain_order=True)
    cleaner.remove(DUPLICATES, known.height - first.height)
    differing = known.unique([*IDENTITY, "event_id"]).height - first.height
    if differing:
        cleaner.note(
            f"{differing:,} rows repeat an event id of their user but say something else, and are left out as "
            "duplicates; if that column holds no ids of events, give a --map without event_id"
        )
    bare = events.filter(pl.col("event_id").is_null())
    bare = bare.with_columns(event_id=content_ids(domain, bare))
    return pl.concat([first, bare]).sort(LINE)
