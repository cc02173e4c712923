"""Two SQLite online stores compared row by row, in every feature view."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

Rows = dict[tuple[str, bytes, str], bytes]
"""Values by table, entity key and feature."""


MARKS: Final = "coldstream_log_marks"
"""The table that says which log was read: no feature, and a rebuild reads the log at another time."""


def stored_rows(folder: Path) -> Rows:
    """Every row of the online store in `folder`, without the times of writing, and without marks of the log."""
    rows: Rows = {}
    with closing(sqlite3.connect(f"file:{folder / 'online.db'}?mode=ro", uri=True)) as connection:
        tables = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
        for (table,) in tables:
            if table == MARKS:
                continue
            for key, feature, value in connection.execute(f"select entity_key, feature_name, value from {table}"):  # noqa: S608  # names of tables
                rows[table, key, feature] = value
    return rows


def differing_rows(folder: Path, other: Path) -> list[str]:
    """The rows that are not the same bytes in both stores: table, key and feature."""
    left, right = stored_rows(folder), stored_rows(other)
    differing = [place for place in left.keys() | right.keys() if left.get(place) != right.get(place)]
    return sorted(f"{table} {key!r} {feature}" for table, key, feature in differing)
