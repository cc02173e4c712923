"""Files of items and users beside the events: their key, the labels that the schema knows, the rest as attributes."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from stream.cleaning import LINE, Cleaner
from stream.errors import SourceError
from stream.events import DEFAULT_LIMITS
from stream.sources.columnar import CheckedColumns, as_attributes, flat
from stream.sources.columns import choose
from stream.sources.numbers import numbers_where_all_are
from stream.sources.table_file import labels, row_example
from stream.sources.times import to_epoch_ms

LOOKS_LIKE: Final = {
    "title": re.compile(r"titl|name|label|bezeichnung|produ[ck]t$|beschreibung|nom$|nombre", re.IGNORECASE),
    "category": re.compile(r"cat|kat|genre|department|group|section|shelf|rubri", re.IGNORECASE),
    "expires_at": re.compile(r"expir|valid|until|end(s|_|$)|ablauf|best_before|gueltig|available_to", re.IGNORECASE),
    "segment": re.compile(r"segment|tier|group|cohort|class", re.IGNORECASE),
}
"""Columns that look like a field of the schema, for a hint."""


class SideTable(msgspec.Struct, frozen=True):
    """Which table a file holds: `name` (items, users), its key, its optional fields, and the option of its map."""

    name: str
    key: str
    fields: tuple[str, ...]
    option: str


ITEMS: Final = SideTable("items", "item_id", ("title", "category", "expires_at"), "--map-items")
USERS: Final = SideTable("users", "user_id", ("segment",), "--map-users")


def read_side_table(
    cleaner: Cleaner, path: Path, table: SideTable, columns: Mapping[str, str], opened: CheckedColumns
) -> pl.DataFrame:
    """The rows of an opened file of items or users: key, labels, and a struct `attributes`.

    `cleaner` is that of the table, `columns` the map of this file.

    Raises:
        SourceError: the file cannot be read as asked, or the map does not fit it.
    """
    names = [name for name in opened.frame.columns if name != LINE]
    chosen, guessed = choose(
        str(path), names, columns, required=(table.key,), optional=table.fields, guess=True, option=table.option
    )
    guesses = ", ".join(f"{field}={column}" for field, column in guessed.items())
    cleaner.note(f"{path.name}: {opened.frame.height:,} rows{f', columns guessed: {guesses}' if guesses else ''}")
    frame = _without_unreadable_keys(cleaner, path, opened, chosen[table.key])
    _hint(cleaner, path, table, names, chosen)
    texts = labels(
        cleaner, path, frame, chosen, [field for field in (table.key, *table.fields) if field != "expires_at"]
    )
    times = {"expires_at": _expiries(cleaner, path, frame, chosen["expires_at"])} if "expires_at" in chosen else {}
    attributes = [
        attribute
        for name in names
        if name not in chosen.values()
        for attribute in _attributes(cleaner, path, frame[name])
    ]
    rest = {"attributes": pl.DataFrame(attributes).to_struct("attributes")} if attributes else {}
    return pl.DataFrame({**texts, **times, **rest})


def _without_unreadable_keys(cleaner: Cleaner, path: Path, opened: CheckedColumns, key: str) -> pl.DataFrame:
    for name, bad in opened.unreadable.items():
        if name != key:
            cleaner.leave_out(name, int(bad.sum()), f"{row_example(path, opened.frame, bad, key)} has bytes, no text")
    if key not in opened.unreadable:
        return opened.frame
    bad = opened.unreadable[key]
    reason = pl.when(bad).then(pl.lit(f"{key}: bytes that are not text"))
    faults = pl.select(fault=pl.when(bad).then(pl.lit("bytes that are not text")), reason=reason)
    return cleaner.keep_parsed(path.name, opened.frame, opened.frame, faults)


def _hint(cleaner: Cleaner, path: Path, table: SideTable, names: list[str], chosen: Mapping[str, str]) -> None:
    """Point out columns that look like a field that no column was found for."""
    taken = set(chosen.values())
    for field in table.fields:
        like = [name for name in names if name not in taken and LOOKS_LIKE[field].search(name)]
        if field not in chosen and like:
            cleaner.note(
                f"{path.name}: no column for {field}; {like[0]!r} looks like it and became an attribute "
                f"(to map it: {table.option} {field}={like[0]})"
            )


def _attributes(cleaner: Cleaner, path: Path, column: pl.Series) -> list[pl.Series]:
    if column.dtype != pl.String:
        if column.dtype == pl.Duration:
            cleaner.note(f"{path.name}: {column.name}: durations, taken as seconds")
        return as_attributes(column)
    numbers, note = numbers_where_all_are(column)
    if note is not None:
        cleaner.note(f"{path.name}: {column.name}: {note}")
    return [numbers]


def _expiries(cleaner: Cleaner, path: Path, frame: pl.DataFrame, column: str) -> pl.Series:
    """When items expire, Int64 epoch ms, null where nothing is written.

    Raises:
        SourceError: the first one that is no time: an item that would be sold for ever is worse than a file to mend.
    """
    times, note = to_epoch_ms(frame[column])
    cleaner.note(f"{path.name}: expires_at: {note}")
    cure = (
        "give RFC 3339 or epoch milliseconds, or nothing for an item that does not expire "
        "(a text that means nothing: --missing TEXT)"
    )
    wrong = (times.is_null() & frame[column].is_not_null()) | (times < DEFAULT_LIMITS.earliest_at).fill_null(
        value=False
    )
    for row in wrong.arg_true().head(1):
        why = "is not a time" if times[row] is None else f"lies before 1990 ({note})"
        written = str(flat(frame[column].gather([row]))[0])[:80]
        raise SourceError(f"{path} line {frame[LINE][row]}: expires_at='{written}' {why}; {cure}")
    return times
