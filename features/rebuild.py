"""Rebuild: the features computed again from the archive and the rest of the log, into a store of their own.

The fold is sequential in log order and does not depend on batches, so the rows are byte-equal to the live ones at the
same positions.
"""

import heapq
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec
from kafka import KafkaConsumer

from features import popularity
from features.activity import Activity, FoldSettings, LoggedEvent, apply_batch
from features.archive import Archive, forwarded_originals, partitions, read_events
from features.event_log import read_log
from features.popularity import PartitionPopularity
from features.store import OnlineStore, UserKey
from stream import log_epochs, topics
from stream.client import kafka_python_config
from stream.events import DEFAULT_LIMITS, TimeLimits
from stream.log_epochs import FIRST_EPOCH, LogEpochs

BATCH = 20_000
Progress = Callable[[str, int], None]
"""Called with the partition and the events applied so far."""


class RebuildReport(msgspec.Struct, frozen=True):
    """The result of a rebuild: events read, users written, and the last position of each partition."""

    events: int
    users: int
    positions: dict[str, int]
    seconds: float


def rebuild(
    log: Mapping[str, Iterable[LoggedEvent]],
    store: OnlineStore,
    settings: FoldSettings,
    progress: Progress | None = None,
    ends: Mapping[str, int] | None = None,
    popularity_settings: popularity.SettingsByDomain | None = None,
) -> RebuildReport:
    """Fold the events of all partitions, each in log order and together by the broker's time, into an empty `store`.

    `popularity_settings` are by domain.

    `ends` are the last positions of the log by partition, which need not be those of events
    (`event_log.last_positions`).
    """
    started = time.monotonic()
    states: dict[UserKey, Activity] = {}
    rows: dict[str, PartitionPopularity] = {}
    events = 0
    for batch in _batches(heapq.merge(*log.values(), key=lambda entry: entry.logged_at)):
        states |= apply_batch(states, batch, settings)
        for name, entries in _by_partition(batch).items():
            rows[name] = popularity.apply(rows.get(name), entries, popularity_settings or {})
        events += len(batch)
        if progress is not None:
            progress(batch[-1].partition, events)
    for name, end in (ends or {}).items():
        if end >= 0:
            row = rows.setdefault(name, PartitionPopularity())
            row.position = max(row.position, end)
    keys = list(states)
    for start in range(0, len(keys), BATCH):
        store.write_activities({key: states[key] for key in keys[start : start + BATCH]})
    store.write_popularity(rows)
    store.write_popularity({popularity.TOP_PREFIX + name: popularity.most_popular(row) for name, row in rows.items()})
    return RebuildReport(
        events, len(states), {name: row.position for name, row in rows.items()}, time.monotonic() - started
    )


def log_by_partition(
    archive: Path,
    bootstrap: str | None,
    security: Mapping[str, str] | None,
    domains: Iterable[str],
    limits: TimeLimits = DEFAULT_LIMITS,
) -> dict[str, Iterator[LoggedEvent]]:
    """Each partition's events: from the archive, then from the log behind it (where `bootstrap` is given).

    Of an event that a consumer forwarded, the copy stands for the original.
    """
    known = frozenset(domains)
    epochs = log_epochs.read(bootstrap, security) if bootstrap is not None else FIRST_EPOCH
    originals = forwarded_originals(archive, topics.EVENTS)
    numbers = set(partitions(archive, topics.EVENTS))
    if bootstrap is not None:
        consumer = KafkaConsumer(**kafka_python_config(bootstrap, security))
        numbers |= consumer.partitions_for_topic(topics.EVENTS) or set()
        consumer.close()
        for number in sorted(numbers):  # first, because a copy may stand in another partition, and later
            behind = (number, _archived(archive, number))
            originals |= {
                (int(entry.origin[0].rpartition("/")[2]), entry.origin[1])
                for entry in read_log(bootstrap, security, *behind, limits, epochs=epochs)
                if entry.origin is not None
            }
    return {
        f"{topics.EVENTS}/{number}": _partition(
            archive, (bootstrap, security, epochs), number, known, limits, originals
        )
        for number in sorted(numbers)
    }


def differing_keys(store: OnlineStore, other: OnlineStore, keys: Iterable[UserKey]) -> list[UserKey]:
    """The keys whose rows are not the same bytes in both stores."""
    users = list(keys)
    left, right = store.read_activities(users), other.read_activities(users)
    encode = msgspec.json.encode
    return [key for key in users if encode(left.get(key)) != encode(right.get(key))]


def _partition(
    archive: Path,
    log: tuple[str | None, Mapping[str, str] | None, LogEpochs],
    number: int,
    domains: frozenset[str],
    limits: TimeLimits,
    originals: Container[tuple[int, int]],
) -> Iterator[LoggedEvent]:
    last = -1
    for entry in read_events(archive, topics.EVENTS, number):
        last = entry.offset
        if entry.event.domain in domains and (number, last) not in originals:
            yield entry
    bootstrap, security, epochs = log
    if bootstrap is not None:
        rest = read_log(bootstrap, security, number, last + 1, limits, epochs=epochs)
        yield from (
            entry for entry in rest if entry.event.domain in domains and (number, entry.offset) not in originals
        )


def _archived(archive: Path, number: int) -> int:
    """The first offset of a partition that the archive does not hold."""
    return Archive(archive).position(topics.EVENTS, number)


def _by_partition(batch: Iterable[LoggedEvent]) -> dict[str, list[LoggedEvent]]:
    entries: dict[str, list[LoggedEvent]] = {}
    for entry in batch:
        entries.setdefault(entry.partition, []).append(entry)
    return entries


def _batches(entries: Iterable[LoggedEvent]) -> Iterator[list[LoggedEvent]]:
    batch: list[LoggedEvent] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
