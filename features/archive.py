"""The archive: the log as Parquet files, from which training and Feast's offline store are made.

A part covers a fixed range of offsets, [n * PART_ROWS, (n + 1) * PART_ROWS) of one partition, and is named after the
first. An unfinished part is replaced as a whole as it grows, so writing the same log twice makes the same files, byte
for byte, whatever happened in between.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import UNSET

from features.activity import LoggedEvent, origin_of
from features.errors import ArchiveError
from stream.events import Event, Impression, Interaction, Item, Record, Search, User
from stream.files import replacing

PART_ROWS: Final = 50_000
DAMAGED: Final = ".damaged"
PARTIAL: Final = ".partial"

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
        ("backfill", pa.bool_()),
        ("forwarded_from", _text),
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
        ("valid_from", pa.int64()),
        ("record", _text),
    ]
)
_encode = msgspec.json.Encoder().encode


class ArchiveRow(msgspec.Struct, frozen=True):
    """A record with its position in the log; `logged_at` is the broker's time (epoch ms).

    `backfill`: an import sent it. `forwarded_from`: it is a copy, whose original stands there (`3:17`); both are
    headers (`stream.headers`).
    """

    partition: int
    offset: int
    logged_at: int
    record: Record
    backfill: bool = False
    forwarded_from: str | None = None


class DamagedPart(msgspec.Struct, frozen=True):
    """A part that was set aside: its new path, and the offsets that it had to cover, `first` to before `end`."""

    path: Path
    topic: str
    partition: int
    first: int
    end: int


class Archive:
    """The Parquet parts below `folder`, one folder per topic. One process writes; any number read.

    A part that cannot be read is set aside (`damaged`), and its offsets are archived again: `position` is then
    their first offset. Until such a part is complete it is written under another name, since readers take a part
    for complete.
    """

    def __init__(self, folder: Path, part: int = PART_ROWS) -> None:
        self.folder = folder
        self.part = part
        self.damaged: list[DamagedPart] = []
        """Parts that were set aside; whoever reports them clears the list."""
        self._open: dict[tuple[str, int, int], pa.Table] = {}
        self._new: dict[tuple[str, int, int], list[ArchiveRow]] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._tails: dict[tuple[str, int], int] = {}
        self._gaps: dict[tuple[str, int], set[int]] = {}

    def append(self, topic: str, rows: Iterable[ArchiveRow]) -> None:
        """Buffer rows, in log order; `flush` writes them. Rows that are already archived are skipped."""
        for row in rows:
            if row.offset < self.position(topic, row.partition, row.offset):
                continue
            self._positions[topic, row.partition] = row.offset + 1
            first = row.offset // self.part * self.part
            self._new.setdefault((topic, row.partition, first), []).append(row)

    def advance(self, topic: str, partition: int, offset: int) -> None:
        """Everything before `offset` was appended or is not to be archived."""
        self._positions[topic, partition] = max(offset, self.position(topic, partition))

    def flush(self) -> Counter[str]:
        """Write every part that has new rows; returns the number of rows written, by topic.

        A part that turns out to be damaged is set aside with its buffered rows: read the log again from `position`.

        Raises:
            ArchiveError: a part cannot be written. The rows stay in memory, the earlier file stays whole: flush again.
        """
        written: Counter[str] = Counter()
        for key in sorted(self._new):
            if key not in self._new:
                continue  # dropped: an earlier part of the partition is damaged
            topic, partition, first = key
            try:
                before = self._before(key)
            except ArchiveError:
                self._set_aside(part_path(self.folder, topic, partition, first))
                self._forget(topic, partition)
                continue
            rows = self._new[key]
            table = _table(topic, rows)
            part = pa.concat_tables([before, table]).combine_chunks() if before is not None else table
            _write(self._path(key), part)
            written[topic] += len(rows)
            del self._new[key]
            self._open = {other: table for other, table in self._open.items() if other[:2] != key[:2]}
            self._open[key] = part
        self._complete()
        return written

    def waiting(self) -> int:
        """The number of rows that are buffered and not yet written."""
        return sum(len(rows) for rows in self._new.values())

    def position(self, topic: str, partition: int, at_least: int = 0) -> int:
        """The next offset to archive from `at_least` on, from the files themselves. Damaged ones are set aside."""
        key = (topic, partition)
        if key not in self._positions:
            self._load(topic, partition)
        position = max(self._positions[key], at_least)
        tail, gaps = self._tails[key], self._gaps[key]
        if position >= tail or position // self.part * self.part in gaps:
            return position
        return min((first for first in gaps if first >= position), default=tail)

    def end(self, topic: str, partition: int) -> int:
        """The position behind the last row of a partition, whatever is missing before it; 0 without one."""
        self.position(topic, partition)
        return self._tails[topic, partition]

    def _load(self, topic: str, partition: int) -> None:
        """Find the end of the partition's parts, and the parts that are missing before it."""
        tail = 0
        firsts: set[int] = set()
        for path in sorted((self.folder / topic).glob(f"{topic}-{partition}-*.parquet"), reverse=True):
            try:
                if firsts:
                    _check_footer(path)
                else:
                    tail = _last_offset(path) + 1
                firsts.add(_first(path))
            except ArchiveError:
                self._set_aside(path)
        for partial in (self.folder / topic).glob(f"{topic}-{partition}-*.parquet{PARTIAL}"):
            partial.unlink(missing_ok=True)  # a process ended before it was complete
        key = (topic, partition)
        self._tails[key], self._positions[key] = tail, 0
        self._gaps[key] = {first for first in range(0, max(firsts, default=0), self.part) if first not in firsts}

    def _forget(self, topic: str, partition: int) -> None:
        self._open = {key: table for key, table in self._open.items() if key[:2] != (topic, partition)}
        self._new = {key: rows for key, rows in self._new.items() if key[:2] != (topic, partition)}
        key = (topic, partition)
        del self._positions[key], self._tails[key], self._gaps[key]

    def _set_aside(self, path: Path) -> None:
        aside = path.with_name(path.name + DAMAGED)
        path.replace(aside)
        topic, partition, first = path.stem.rsplit("-", 2)
        self.damaged.append(DamagedPart(aside, topic, int(partition), int(first), int(first) + self.part))

    def _before(self, key: tuple[str, int, int]) -> pa.Table | None:
        before = self._open.get(key)
        path = self._path(key)
        return read_part(path) if before is None and path.exists() else before

    def _path(self, key: tuple[str, int, int]) -> Path:
        path = part_path(self.folder, *key)
        return path.with_name(path.name + PARTIAL) if key[2] in self._gaps[key[:2]] else path

    def _complete(self) -> None:
        """Give the parts their names whose missing offsets were all read."""
        for (topic, partition), gaps in self._gaps.items():
            for first in [first for first in gaps if first + self.part <= self._positions[topic, partition]]:
                path = part_path(self.folder, topic, partition, first)
                partial = path.with_name(path.name + PARTIAL)
                if partial.exists():
                    partial.replace(path)
                gaps.discard(first)


def part_path(folder: Path, topic: str, partition: int, first: int) -> Path:
    """The path of a part, named by topic, partition and the first offset of its range."""
    return folder / topic / f"{topic}-{partition}-{first:012d}.parquet"


def parts(folder: Path, topic: str) -> list[Path]:
    """Every part of a topic, by partition and offset."""
    return sorted((folder / topic).glob(f"{topic}-*.parquet"))


def read_part(path: Path) -> pa.Table:
    """One part.

    Raises:
        ArchiveError: it is damaged; once deleted, the archive process writes it again from the log at its next start.
    """
    try:
        return pq.read_table(path, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(
            f"{path} is damaged ({error}); delete it and the archive is written again from the log when it starts"
        ) from error


def read_events(
    folder: Path, topic: str, partition: int, start: int = 0, skipped: Container[tuple[int, int]] = ()
) -> Iterator[LoggedEvent]:
    """The events of one partition from offset `start` on, in log order, as the consumer saw them.

    `skipped`: (partition, offset) pairs to leave out, such as `forwarded_originals`.
    """
    name = f"{topic}/{partition}"
    for path in parts(folder, topic):
        if int(path.stem.rsplit("-", 2)[1]) != partition:
            continue
        for row in read_part(path).to_pylist():
            if row["offset"] >= start and (partition, row["offset"]) not in skipped:
                origin = origin_of(name, row["forwarded_from"])
                yield LoggedEvent(_event(row), name, row["offset"], row["backfill"], origin, row["logged_at"])


def forwarded_originals(folder: Path, topic: str) -> set[tuple[int, int]]:
    """Partition and offset of every event of which a consumer forwarded a copy: the copy counts instead."""
    originals = set()
    for path in parts(folder, topic):
        column = read_part(path)["forwarded_from"]
        for text in column.drop_null().to_pylist():
            if (origin := origin_of(f"{topic}/0", text)) is not None:
                originals.add((int(origin[0].rpartition("/")[2]), origin[1]))
    return originals


def partitions(folder: Path, topic: str) -> list[int]:
    """The partitions that have parts."""
    return sorted({int(path.stem.rsplit("-", 2)[1]) for path in parts(folder, topic)})


def missing_ranges(folder: Path, topic: str, partition: int, part: int = PART_ROWS) -> list[tuple[int, int | None]]:
    """The offsets of a partition that no part covers: from each first to before its second; None is the log's end."""
    paths = [path for path in parts(folder, topic) if int(path.stem.rsplit("-", 2)[1]) == partition]
    if not paths:
        return [(0, None)]
    firsts = sorted(int(path.stem.rsplit("-", 1)[1]) for path in paths)
    ends = [0, *(first + part for first in firsts)]
    gaps: list[tuple[int, int | None]] = [
        (end, first) for end, first in zip(ends[:-1], firsts, strict=True) if end < first
    ]
    return [*gaps, (_last_offset(paths[-1]) + 1, None)]


def _last_offset(path: Path) -> int:
    table = read_part(path)
    if not table.num_rows or "offset" not in table.column_names:
        raise ArchiveError(f"{path} has no rows of the log; delete it and restart the archive process")
    return int(table.column("offset")[-1].as_py())


def _check_footer(path: Path) -> None:
    """Raises ArchiveError for a cut or overwritten part; damage within its columns shows when it is read."""
    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(f"{path} is damaged ({error})") from error


def _first(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])


def _table(topic: str, rows: list[ArchiveRow]) -> pa.Table:
    event = topic not in {"items", "users"}
    schema = EVENT_SCHEMA if event else RECORD_SCHEMA
    lines = [(_event_line if event else _record_line)(row) for row in rows]
    columns = list(zip(*lines, strict=True)) if lines else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def _event_line(row: ArchiveRow) -> tuple[Any, ...]:
    event: Any = row.record
    interaction = isinstance(event, Interaction)
    impression = isinstance(event, Impression)
    return (
        row.partition,
        row.offset,
        row.logged_at,
        "interaction" if interaction else "impression" if impression else "search",
        event.event_id,
        event.user_id,
        event.item_id if interaction else None,
        event.kind if interaction else None,
        event.value if interaction else None,
        event.at,
        event.domain,
        event.session_id,
        event.category if interaction else None,
        event.segment if interaction else None,
        event.item_ids if impression else None,
        event.query if isinstance(event, Search) else None,
        event.release if impression else None,
        event.request_id if impression else None,
        _encode(event.context).decode() if event.context else None,
        row.backfill,
        row.forwarded_from,
    )


def _record_line(row: ArchiveRow) -> tuple[Any, ...]:
    record = row.record
    assert isinstance(record, Item | User)
    key = record.item_id if isinstance(record, Item) else record.user_id
    valid_from = record.at if record.valid_from is UNSET else record.valid_from
    content = _encode(record).decode()
    return (row.partition, row.offset, row.logged_at, key, record.at, record.domain, valid_from, content)


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
    try:
        with replacing(path) as temporary:
            pq.write_table(table, temporary, compression="zstd", row_group_size=PART_ROWS, store_schema=False)
    except OSError as error:
        raise ArchiveError(
            f"{path} cannot be written: {error}; free space below {path.parent} — nothing is lost, it is tried again"
        ) from error
