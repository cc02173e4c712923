"""Files of items and users beside the events: their key, the labels that the schema knows, the rest as attributes."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from stream.cleaning import LINE, Cleaner
from stream.events import DEFAULT_LIMITS
from stream.sources.columnar import CheckedColumns, as_attributes, flat
from stream.sources.columns import choose, look_alikes
from stream.sources.flags import read_flags
from stream.sources.numbers import numbers_where_all_are
from stream.sources.row_faults import Faults
from stream.sources.table_file import labels, row_example
from stream.sources.times import to_epoch_ms

LOOKS_LIKE: Final = {
    "title": re.compile(r"titl|name|label|bezeichnung|produ[ck]t$|beschreibung|nom$|nombre", re.IGNORECASE),
    "category": re.compile(r"cat|kat|genre|department|group|section|shelf|rubri", re.IGNORECASE),
    "expires_at": re.compile(r"expir|valid|until|end(s|_|$)|ablauf|best_before|gueltig|available_to", re.IGNORECASE),
    "available": re.compile(r"avail|stock|active|enabled|lager|liefer|verf(ü|ue)g|dispon", re.IGNORECASE),
    "segment": re.compile(r"segment|tier|group|cohort|class", re.IGNORECASE),
}
"""Columns that look like a field of the schema, for a hint."""


class SideTable(msgspec.Struct, frozen=True):
    """Which table a file holds: `name` (items, users), its key, its optional fields, and the option of its map."""

    name: str
    key: str
    fields: tuple[str, ...]
    option: str


ITEMS: Final = SideTable("items", "item_id", ("title", "category", "expires_at", "available"), "--map-items")
USERS: Final = SideTable("users", "user_id", ("segment",), "--map-users")
TYPED: Final = "\x00"
"""Marks columns that hold a field as the schema has it, beside those of the file."""
NO_TEXT: Final = "bytes that are not text"


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
        str(path),
        names,
        columns,
        required=(table.key,),
        optional=table.fields,
        guess=True,
        option=table.option,
        hint=opened.hint,
    )
    guesses = ", ".join(f"{field}={column}" for field, column in guessed.items())
    cleaner.note(f"{path.name}: {opened.frame.height:,} rows{f', columns guessed: {guesses}' if guesses else ''}")
    alike = look_alikes(names, guessed)
    if alike is not None:
        cleaner.note(f"{path.name}: {alike}")
    frame = _readable(cleaner, path, opened, table, chosen)
    _hint(cleaner, path, table, names, chosen)
    texts = labels(
        cleaner, path, frame, chosen, [field for field in (table.key, *table.fields) if field not in CHECKED]
    )
    typed = {field: frame[f"{TYPED}{field}"].alias(field) for field in CHECKED if field in chosen}
    attributes = [
        attribute
        for name in names
        if name not in chosen.values()
        for attribute in _attributes(cleaner, path, frame[name])
    ]
    named = _own_names(cleaner, path, attributes)
    rest = {"attributes": pl.DataFrame(named).to_struct("attributes")} if named else {}
    return pl.DataFrame({**texts, **typed, **rest})


def _readable(
    cleaner: Cleaner, path: Path, opened: CheckedColumns, table: SideTable, chosen: Mapping[str, str]
) -> pl.DataFrame:
    """The rows that say what they hide and until when: without those whose id, expires_at or available cannot be read.

    Such an item would be offered although it must not be. Fields of `CHECKED` are added as typed columns.
    """
    frame = opened.frame
    faults = Faults.of(frame.height)
    for name, bad in opened.unreadable.items():
        field = next((field for field in (table.key, *CHECKED) if chosen.get(field) == name), None)
        if field is None:
            cleaner.leave_out(name, int(bad.sum()), f"{row_example(path, frame, bad, table.key)} has {NO_TEXT}")
        else:
            faults = faults.plus(bad, NO_TEXT, f"{field}: {NO_TEXT}")
    typed: list[pl.Series] = []
    for field, check in CHECKED.items():
        if field in chosen:
            values, faults = check(cleaner, path, frame[chosen[field]], faults)
            typed.append(values.alias(f"{TYPED}{field}"))
    return cleaner.keep_parsed(path.name, frame, frame.with_columns(typed), faults.table())


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


def _own_names(cleaner: Cleaner, path: Path, attributes: list[pl.Series]) -> list[pl.Series]:
    """Attributes whose name another one has (a struct's field `geo.lat`, a column `geo.lat`) get one of their own."""
    names: set[str] = set()
    for number, attribute in enumerate(attributes):
        name = attribute.name
        while name in names:
            name += "_"
        names.add(name)
        if name != attribute.name:
            cleaner.note(f"{path.name}: a second column {attribute.name!r} became the attribute {name!r}")
            attributes[number] = attribute.alias(name)
    return attributes


def _attributes(cleaner: Cleaner, path: Path, column: pl.Series) -> list[pl.Series]:
    if column.dtype != pl.String:
        if column.dtype == pl.Duration:
            cleaner.note(f"{path.name}: {column.name}: durations, taken as seconds")
        return as_attributes(column)
    numbers, note = numbers_where_all_are(column)
    if note is not None:
        cleaner.note(f"{path.name}: {column.name}: {note}")
    return [numbers]


def _expiries(cleaner: Cleaner, path: Path, column: pl.Series, faults: Faults) -> tuple[pl.Series, Faults]:
    """When items expire, Int64 epoch ms, null where nothing is written."""
    times, note = to_epoch_ms(column)
    cleaner.note(f"{path.name}: expires_at: {note}")
    written = flat(column)
    cure = "give RFC 3339, epoch milliseconds, or nothing for an item that does not expire"
    early = (times < DEFAULT_LIMITS.earliest_at).fill_null(value=False)
    faults = faults.plus(
        times.is_null() & column.is_not_null(),
        "expires_at not a time",
        lambda row: f"expires_at='{str(written[row])[:80]}' is not a time; {cure} (a text that means that: --missing)",
    )
    return times, faults.plus(
        early,
        "expires_at before 1990",
        lambda row: f"expires_at='{str(written[row])[:80]}' lies before 1990 ({note}); {cure}",
    )


def _flags(cleaner: Cleaner, path: Path, column: pl.Series, faults: Faults) -> tuple[pl.Series, Faults]:
    """Whether items are available, null where nothing is written."""
    flags, note = read_flags(column)
    if note is not None:
        cleaner.note(f"{path.name}: available: {note}")
    written = flat(column)
    return flags, faults.plus(
        flags.is_null() & column.is_not_null(),
        "available not true or false",
        lambda row: (
            f"available='{str(written[row])[:80]}' is neither true nor false; give true or false, yes or no, "
            "1 or 0, in stock or out of stock"
        ),
    )


Check = Callable[[Cleaner, Path, pl.Series, Faults], tuple[pl.Series, Faults]]
"""Types a column of the file, and adds what is wrong with its values to the faults of the rows."""
CHECKED: Final[dict[str, Check]] = {"expires_at": _expiries, "available": _flags}
"""Fields that hide an item: a row with an unreadable one is rejected as a whole."""
