"""Feast's offline store: one Parquet file per feature view, derived from the archive and read by training.

A profile or item file holds every version of the records of a domain, by user or item and time: at each update's
`valid_from`, all updates merged that are valid by then. It follows from the archive alone, so writing it twice makes
the same bytes. Of versions of one user with the same time only the last one is kept: Feast's join would pick any of
them. States of users are many times larger, so they are folded from the events on request (`write_activity_history`).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.activity import DAY_MS, Activity, FoldSettings, LoggedEvent, apply
from features.archive import partitions, parts, read_events, read_part
from features.catalogue import merge, row_of
from features.errors import ArchiveError
from stream.events import Item, User
from stream.files import exclusive, replacing
from stream.topics import EVENTS, ITEMS, USERS

FOLDER: Final = "offline"
TIMESTAMP: Final = "event_timestamp"
PARTS: Final = b"archived_parts"
"""In a file's metadata: the size in bytes of each archived part that it was made from, as JSON."""

_instant: Final = pa.timestamp("ms", tz="UTC")
PROFILE_SCHEMA: Final = pa.schema([("user_id", pa.string()), (TIMESTAMP, _instant), ("record", pa.string())])
ITEM_SCHEMA: Final = pa.schema([("item_id", pa.string()), (TIMESTAMP, _instant), ("record", pa.string())])
UPDATES: Final[dict[str, type[Item | User]]] = {ITEMS: Item, USERS: User}
ACTIVITY_SCHEMA: Final = pa.schema([("user_id", pa.string()), (TIMESTAMP, _instant), ("state", pa.binary())])


class OfflineStore:
    """The offline store beside an archive, in the folder `offline`. Any number of processes may update and read it."""

    def __init__(self, archive: Path, domains: Sequence[str]) -> None:
        self.archive = archive
        self.folder = archive.with_name(FOLDER)
        self.domains = tuple(domains)

    def update(self) -> list[str]:
        """Write the profiles and items whose archived parts have changed; the views that were written.

        Raises:
            ArchiveError: a part is damaged, or a file cannot be written. The earlier files stay whole: update again.
        """
        try:
            with exclusive(self.folder / ".lock"):
                profiles = self._update(USERS, "profile", PROFILE_SCHEMA)
                items = self._update(ITEMS, "item", ITEM_SCHEMA)
                return [*profiles, *items, *self._start_activities()]
        except OSError as error:
            raise ArchiveError(
                f"{self.folder} cannot be written: {error}; free space there — nothing is lost, it is tried again"
            ) from error

    def profile_history(self, domain: str) -> pd.DataFrame:
        """Every version of the profiles of `domain`: user_id, event_timestamp, record; by user and time."""
        result: pd.DataFrame = pq.read_table(self.path(f"{domain}_profile"), partitioning=None).to_pandas()
        return result

    def path(self, view: str) -> Path:
        """The file of a feature view."""
        return self.folder / f"{view}.parquet"

    def _update(self, topic: str, view: str, schema: pa.Schema) -> list[str]:
        archived = parts(self.archive, topic)
        sizes = {part.name: part.stat().st_size for part in archived}
        outdated = [domain for domain in self.domains if _sizes(self.path(f"{domain}_{view}")) != sizes]
        if outdated:
            records = [read_part(part) for part in archived]
            for domain in outdated:
                tables = [table.filter(pc.equal(table["domain"], domain)) for table in records]
                table = _history(pa.concat_tables(tables), schema, UPDATES[topic]) if tables else schema.empty_table()
                _write(self.path(f"{domain}_{view}"), table, {PARTS: msgspec.json.encode(sizes)})
        return [f"{domain}_{view}" for domain in outdated]

    def _start_activities(self) -> list[str]:
        """Files without rows: Feast's join does not accept a view whose file is missing."""
        missing = [view for domain in self.domains if not self.path(view := f"{domain}_activity").exists()]
        for view in missing:
            _write(self.path(view), ACTIVITY_SCHEMA.empty_table())
        return missing


def write_activity_history(
    archive: Path, domain: str, settings: FoldSettings, *, every_ms: int = DAY_MS, since_at: int = 0
) -> int:
    """Add users' states as they were to the offline store, for `features.dataset.training_set`; the states written.

    A state is kept at a user's last event of every `every_ms` (0: at each event) from `since_at` on (epoch ms), under
    that event's own time. States are folded in order of time, so late events are in their place.

    Raises:
        ArchiveError: there is no archive yet.
    """
    users, times, states = [], [], []
    for user_id, entries in _by_user(archive, domain):
        state: Activity | None = None
        for entry, following in pairwise([*entries, None]):
            assert entry is not None
            state = apply(state, [entry], settings)
            at = entry.event.at
            next_at = following.event.at if following is not None else None
            last = next_at is None or (next_at != at and (not every_ms or next_at // every_ms != at // every_ms))
            if last and at >= since_at:
                users.append(user_id)
                times.append(at)
                states.append(msgspec.json.encode(state))
    columns = [pa.array(users, pa.string()), pa.array(times, pa.int64()).cast(_instant), pa.array(states, pa.binary())]
    store = OfflineStore(archive, [domain])
    store.update()
    _write(store.path(f"{domain}_activity"), pa.Table.from_arrays(columns, schema=ACTIVITY_SCHEMA))
    return len(states)


def _by_user(archive: Path, domain: str) -> Iterator[tuple[str, list[LoggedEvent]]]:
    """Each user's events in order of time, ties in log order, with offsets that count in this order."""
    users: dict[str, list[LoggedEvent]] = {}
    numbers = partitions(archive, EVENTS)
    if not numbers:
        raise ArchiveError(f"{archive}: no events are archived yet; is the archive process running?")
    for number in numbers:
        for entry in read_events(archive, EVENTS, number):
            if entry.event.domain == domain and entry.origin is None:  # a copy says nothing new about time
                users.setdefault(entry.event.user_id, []).append(entry)
    for user_id, entries in users.items():
        entries.sort(key=lambda entry: entry.event.at)
        yield (
            user_id,
            [LoggedEvent(entry.event, entry.partition, place, entry.backfill) for place, entry in enumerate(entries)],
        )


def _history(updates: pa.Table, schema: pa.Schema, kind: type[Item | User]) -> pa.Table:
    """Versions by id and time: at each `valid_from` what all updates until then say together."""
    updates = updates.sort_by([(name, "ascending") for name in ("id", "valid_from", "partition", "offset")])
    ids, times = updates["id"].to_numpy(), updates["valid_from"].to_numpy()
    first, last = np.ones(len(updates), bool), np.ones(len(updates), bool)
    first[1:] = ids[1:] != ids[:-1]
    last[:-1] = first[1:] | (times[1:] != times[:-1])
    decode = msgspec.json.Decoder(kind).decode
    row: Any = None
    records = []
    lines = zip(updates["record"].to_pylist(), updates["offset"].to_pylist(), first, last, strict=True)
    for content, offset, is_first, is_last in lines:
        update = row_of(decode(content), offset)
        row = update if is_first else merge(row, update)
        if is_last:
            records.append(msgspec.json.encode(row.record()).decode())
    versions = updates.filter(last)
    columns = [versions["id"], versions["valid_from"].cast(_instant), pa.array(records, pa.string())]
    return pa.Table.from_arrays(columns, schema=schema)


def _sizes(path: Path) -> dict[str, int] | None:
    """The archived parts that a file was made from; None where there is no whole file."""
    try:
        return msgspec.json.decode((pq.read_schema(path).metadata or {})[PARTS], type=dict[str, int])
    except (OSError, pa.ArrowInvalid, KeyError, msgspec.DecodeError):
        return None


def _write(path: Path, table: pa.Table, metadata: Mapping[bytes, bytes] | None = None) -> None:
    """One row group: Feast's join fails on a file that it reads in several pieces where a user is not known."""
    with replacing(path) as temporary:
        whole = table.replace_schema_metadata(metadata)
        pq.write_table(whole, temporary, compression="zstd", row_group_size=max(1, len(whole)))
