"""The rows of online stores, in every feature view, to be compared one by one."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from feast.infra.online_stores.helpers import _mmh3
from redis import Redis

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


def redis_rows(client: Redis, project: str) -> Rows:
    """Every row of a Feast project in Redis by `""`, entity key and hashed feature; without times and marks."""
    mark = _mmh3("log_marks:mark")
    keys = [key for key in client.scan_iter() if key.endswith(project.encode()) and client.type(key) == b"hash"]
    rows: dict[bytes, Any] = {key.removesuffix(project.encode()): client.hgetall(key) for key in keys}
    return {
        ("", key, feature.hex()): value
        for key, row in rows.items()
        for feature, value in row.items()
        if not feature.startswith(b"_ts:") and feature != mark
    }
