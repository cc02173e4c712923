"""The archive: the log as Parquet, Feast's offline side and what training reads.

A part covers a fixed range of offsets, [n * PART, (n + 1) * PART) of one partition, and is named after the first. An
unfinished part is written whole again as it grows (aside, fsync, rename), so writing the same log twice makes the same
files, byte for byte, whatever happened in between.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from features.activity import LoggedEvent
from features.errors import ArchiveError
from stream.events import Event, Impression, Interaction, Item, Record, Search, User

PART_ROWS: Final = 50_000

_text = pa.string()
EVENT_SCHEMA: Final = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("logged_at", pa.int64()),
        ("type", _text),
        ("event_id", _text),
        ("user_id", _text),
        ("item_id", _text),
        ("kind", _text),
        ("value", pa.float64()),
        ("at", pa.int64()),
        ("domain", _text),
        ("session_id", _text),
        ("category", _text),
        ("segment", _text),
        ("item_ids", pa.list_(_text)),
        ("query", _text),
        ("release", _text),
        ("request_id", _text),
        ("context", _text),
    ]
)
RECORD_SCHEMA: Final = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("logged_at", pa.int64()),
        ("id", _text),
        ("at", pa.int64()),
        ("domain", _text),
        ("label", _text),
        ("record", _text),
    ]
)
_encode = msgspec.json.Encoder().encode


class ArchiveRow(msgspec.Struct, frozen=True):
    """A record with its place in the log; `logged_at` is the broker's time (epoch ms)."""

    partition: int
    offset: int
    logged_at: int
    record: Record


class Archive:
    """The Parquet parts below `folder`, one folder per topic. One process writes; any number read."""

    def __init__(self, folder: Path, part: int = PART_ROWS) -> None:
        self.folder = folder
        self.part = part
        self._open: dict[tuple[str, int, int], pa.Table] = {}
        self._new: dict[tuple[str, int, int], list[ArchiveRow]] = {}
        self._positions: dict[tuple[str, int], int] = {}

    def append(self, topic: str, rows: Iterable[ArchiveRow]) -> None:
        """Take rows in, in log order; `flush` writes them. Rows that are already there are passed over."""
        for row in rows:
            if row.offset < self.position(topic, row.partition):
                continue
            self._positions[topic, row.partition] = row.offset + 1
            first = row.offset // self.part * self.part
            self._new.setdefault((topic, row.partition, first), []).append(row)

    def flush(self) -> int:
        """Write every part that has new rows; how many rows were new.

        Raises:
            ArchiveError: a part cannot be written. The rows stay in memory, the earlier file stays whole: flush again.
        """
        written = 0
        for key in sorted(self._new):
            topic, partition, first = key
            rows = self._new[key]
            path = part_path(self.folder, topic, partition, first)
            table = _table(topic, rows)
            before = self._open.get(key)
            if before is None and path.exists():
                before = read_part(path)
            whole = pa.concat_tables([before, table]).combine_chunks() if before is not None else table
            _write(path, whole)
            written += len(rows)
            del self._new[key]
            self._open = {other: kept for other, kept in self._open.items() if other[:2] != key[:2]}
            self._open[key] = whole
        return written

    def waiting(self) -> int:
        """Rows taken in and not yet written."""
        return sum(len(rows) for rows in self._new.values())

    def position(self, topic: str, partition: int) -> int:
        """The next offset to take in, from the files themselves."""
        key = (topic, partition)
        if key not in self._positions:
            parts = sorted((self.folder / topic).glob(f"{topic}-{partition}-*.parquet"))
            self._positions[key] = _last_offset(parts[-1]) + 1 if parts else 0
        return self._positions[key]


def part_path(folder: Path, topic: str, partition: int, first: int) -> Path:
    """Where a part lies: named by topic, partition and the first offset of its range."""
    return folder / topic / f"{topic}-{partition}-{first:012d}.parquet"


def parts(folder: Path, topic: str) -> list[Path]:
    """Every part of a topic, by partition and offset."""
    return sorted((folder / topic).glob(f"{topic}-*.parquet"))


def read_part(path: Path) -> pa.Table:
    """One part.

    Raises:
        ArchiveError: it is damaged; deleting it makes the archive process write it again from the log.
    """
    try:
        return pq.read_table(path, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise ArchiveError(
            f"{path} is damaged ({error}); delete it and the archive is written again from the log"
        ) from error


def read_events(folder: Path, topic: str, partition: int, start: int = 0) -> Iterator[LoggedEvent]:
    """The events of one partition from offset `start` on, in log order, as the consumer saw them."""
    for path in parts(folder, topic):
        if int(path.stem.rsplit("-", 2)[1]) != partition:
            continue
        for row in read_part(path).to_pylist():
            if row["offset"] >= start:
                yield LoggedEvent(_event(row), f"{topic}/{partition}", row["offset"])


def partitions(folder: Path, topic: str) -> list[int]:
    """The partitions that have parts."""
    return sorted({int(path.stem.rsplit("-", 2)[1]) for path in parts(folder, topic)})


def _last_offset(path: Path) -> int:
    return int(read_part(path).column("offset")[-1].as_py())


def _table(topic: str, rows: list[ArchiveRow]) -> pa.Table:
    event = topic not in {"items", "users"}
    schema = EVENT_SCHEMA if event else RECORD_SCHEMA
    lines = [(_event_line if event else _record_line)(row) for row in rows]
    columns = list(zip(*lines, strict=True)) if lines else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _event_line(row: ArchiveRow) -> tuple[Any, ...]:
    one: Any = row.record
    act = isinstance(one, Interaction)
    shown = isinstance(one, Impression)
    return (
        row.partition,
        row.offset,
        row.logged_at,
        "interaction" if act else "impression" if shown else "search",
        one.event_id,
        one.user_id,
        one.item_id if act else None,
        one.kind if act else None,
        one.value if act else None,
        one.at,
        one.domain,
        one.session_id,
        one.category if act else None,
        one.segment if act else None,
        one.item_ids if shown else None,
        one.query if isinstance(one, Search) else None,
        one.release if shown else None,
        one.request_id if shown else None,
        _encode(one.context).decode() if one.context else None,
    )


def _record_line(row: ArchiveRow) -> tuple[Any, ...]:
    one = row.record
    assert isinstance(one, Item | User)
    identity, label = (one.item_id, one.category) if isinstance(one, Item) else (one.user_id, one.segment)
    return (row.partition, row.offset, row.logged_at, identity, one.at, one.domain, label, _encode(one).decode())


def _event(row: dict[str, Any]) -> Event:
    base = {name: row[name] for name in ("event_id", "user_id", "at", "domain", "session_id")}
    base["context"] = msgspec.json.decode(row["context"]) if row["context"] else {}
    if row["type"] == "interaction":
        names = ("item_id", "kind", "value", "category", "segment")
        return Interaction(**base, **{name: row[name] for name in names})
    if row["type"] == "impression":
        return Impression(**base, **{name: row[name] for name in ("item_ids", "release", "request_id")})
    return Search(**base, query=row["query"])


def _write(path: Path, table: pa.Table) -> None:
    aside = path.with_suffix(".aside")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            pq.write_table(table, file, compression="zstd", row_group_size=PART_ROWS, store_schema=False)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise ArchiveError(
            f"{path} cannot be written: {error}; free space below {path.parent} — nothing is lost, it is tried again"
        ) from error
