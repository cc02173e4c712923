"""A new epoch: store and archive go on with a log that began again, or went back.

Each affected partition gets a shift that puts the offsets of the log behind every position in store and archive: so
nothing of the new log counts as applied already, and nothing that was applied is applied again. If the log lost only
its end (a restored backup), the epoch begins at the first record that the broker received after the last one that was
read: brokers stamp every record.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from features.archive import PART_ROWS, Archive, partitions
from features.archive_marks import read_marks, write_marks
from features.catalogue_rebuild import send_catalogue
from features.store import OnlineStore
from stream import log_epochs, topics
from stream.client import kafka_python_config
from stream.errors import BrokerError
from stream.log_epochs import LogEpochs
from stream.log_marks import LogMark, identity_problem, mark_problem, record_times
from stream.log_watch import LogState, LogWatch

TOPICS: Final = (topics.EVENTS, topics.ITEMS, topics.USERS)
MARGIN: Final = 20 * PART_ROWS
"""Positions left free: rows of users may be ahead of the positions that are known per partition."""

Kafka = tuple[str, Mapping[str, str] | None]
Marks = Mapping[str, LogMark]


class EpochReport(msgspec.Struct, frozen=True):
    """A new epoch: its number, by partition (`events/3`) the offset at which it begins, and the records of items and
    users sent to the log again. `not_in_features`: archived records, by partition, that the store had not applied and
    the log no longer has; `coldstream features rebuild` applies them."""

    epoch: int
    starts: dict[str, int]
    catalogue: int = 0
    not_in_features: dict[str, int] = {}


class KnownPositions(msgspec.Struct, frozen=True):
    """The next position of each partition in the store and in the archive, and the marks of both."""

    store: dict[str, int]
    archive: dict[str, int]
    marks: list[Marks]

    def following(self, name: str) -> int:
        """The position behind everything that is known of a partition."""
        return max(self.store.get(name, 0), self.archive.get(name, 0))


def log_problem(archive: Path, store: OnlineStore | None, kafka: Kafka) -> str | None:
    """Why the log is not the one that archive and store were written from; None where it is. Raises BrokerError."""
    epochs = log_epochs.read(*kafka)
    state = _state(kafka)
    known = known_positions(archive, store, state)
    for marks in known.marks:
        present = {name: mark for name, mark in marks.items() if 0 <= mark.offset < state.ends.get(name, 0)}
        problem = mark_problem(marks, state, epochs.number, record_times(*kafka, present))
        if problem is not None:
            return problem
    return None


def start_epoch(archive: Path, store: OnlineStore | None, kafka: Kafka) -> EpochReport:
    """Begin a new epoch for every partition whose log is not the one that was read before. No other process may run.

    Raises:
        BrokerError: Kafka does not answer, or lacks the topics.
        StoreError, FileError: the store or the archive cannot be written.
    """
    before = log_epochs.read(*kafka)
    state = _state(kafka)
    known = known_positions(archive, store, state)
    starts = {
        name: start for name in _names(archive, state) if (start := _start(name, known, state, before, kafka)) >= 0
    }
    after = msgspec.structs.replace(before, number=before.number + 1)
    for name, start in starts.items():
        after = after.with_shift(name, start, _first_position(known.following(name)))
    missing = {} if store is None else _not_in_features(known, starts, before)
    log_epochs.send(*kafka, after)
    marks = _new_marks(known, state, after.number, starts, _names(archive, state))
    write_marks(archive, marks)
    sent = 0
    if store is not None:
        store.write_log_marks(marks)
        sent = send_catalogue(archive, store, *kafka)
    return EpochReport(after.number, starts, sent, missing)


def known_positions(archive: Path, store: OnlineStore | None, state: LogState) -> KnownPositions:
    """What archive and store hold of each partition. Raises StoreError."""
    names = _names(archive, state)
    files = Archive(archive)
    archived = {name: _archived(files, name) for name in names}
    if store is None:
        return KnownPositions({}, archived, [read_marks(archive)])
    stored = {name: row.position + 1 for name, row in store.read_popularity(names).items()}
    stored |= {name: position + 1 for name, position in store.read_positions(names).items()}
    return KnownPositions(stored, archived, [read_marks(archive), store.read_log_marks(names)])


def current_marks(kafka: Kafka) -> dict[str, LogMark]:
    """Marks that say only which log there is now. Raises BrokerError."""
    return identity_marks(_state(kafka), log_epochs.read(*kafka).number)


def identity_marks(state: LogState, epoch: int) -> dict[str, LogMark]:
    """Marks that say only which log it is, for every partition that it has."""
    return {name: LogMark(state.cluster, state.topics[_topic(name)], epoch=epoch) for name in state.ends}


def _start(name: str, known: KnownPositions, state: LogState, epochs: LogEpochs, kafka: Kafka) -> int:
    """The offset at which a new epoch begins in a partition; -1 where its log is the one that was read before."""
    marks = [marks[name] for marks in known.marks if name in marks]
    others = {mark for mark in marks if _is_other(name, mark, state)}
    if others or (not marks and any(_is_other(name, mark, state) for mark in _of_topic(name, known))):
        return 0
    end = state.ends.get(name, 0)
    lost_end = epochs.offset(name, known.following(name)) > end
    if not lost_end and not any(_is_outdated(name, mark, state, kafka) for mark in marks):
        return -1
    last_at = max((mark.logged_at for mark in marks), default=0)
    return _first_after(kafka, name, last_at, end)


def _is_other(name: str, mark: LogMark, state: LogState) -> bool:
    return identity_problem(name, mark, state, mark.epoch) is not None


def _is_outdated(name: str, mark: LogMark, state: LogState, kafka: Kafka) -> bool:
    """Whether the log lost the record of a mark, or has another one there."""
    times = record_times(*kafka, {name: mark}) if 0 <= mark.offset < state.ends.get(name, 0) else {}
    return mark_problem({name: mark}, state, mark.epoch, times) is not None


def _of_topic(name: str, known: KnownPositions) -> Iterable[LogMark]:
    return (mark for marks in known.marks for other, mark in marks.items() if _topic(other) == _topic(name))


def _first_after(kafka: Kafka, name: str, at: int, end: int) -> int:
    """The first offset that the broker received after `at` (epoch ms); `end` where there is none."""
    place = TopicPartition(_topic(name), int(name.rpartition("/")[2]))
    try:
        consumer = KafkaConsumer(**kafka_python_config(*kafka), enable_auto_commit=False)
        try:
            following = consumer.offsets_for_times({place: at + 1})[place]
        finally:
            consumer.close()
    except KafkaError as error:
        raise BrokerError(f"no Kafka at {kafka[0]} ({type(error).__name__}: {error}); is it running?") from error
    return end if following is None else int(following.offset)


def _first_position(following: int) -> int:
    """The first position of a new epoch, behind `following` and at the beginning of an archive part."""
    return -(-following // PART_ROWS) * PART_ROWS + MARGIN


def _not_in_features(known: KnownPositions, starts: Mapping[str, int], epochs: LogEpochs) -> dict[str, int]:
    """How many archived records of each partition the store has not applied and the log no longer has."""
    missing = {}
    for name, start in starts.items():
        first = max(known.store.get(name, 0), epochs.position(name, start) if start else 0)
        if known.archive[name] > first:
            missing[name] = known.archive[name] - first
    return missing


def _new_marks(
    known: KnownPositions, state: LogState, epoch: int, starts: Mapping[str, int], names: Iterable[str]
) -> dict[str, LogMark]:
    """Marks of the log in its new epoch; of partitions that go on, the mark that was read last."""
    marks = identity_marks(state, epoch)
    for name in names:
        read = [marks[name] for marks in known.marks if name in marks]
        if name in starts or not read:
            marks.setdefault(name, LogMark(state.cluster, state.topics.get(_topic(name), ""), epoch=epoch))
        else:
            marks[name] = msgspec.structs.replace(min(read, key=lambda mark: mark.offset), epoch=epoch)
    return marks


def _state(kafka: Kafka) -> LogState:
    with LogWatch(*kafka, TOPICS) as watch:
        state = watch.read()
    missing = set(TOPICS) - state.topics.keys()
    if missing:
        raise BrokerError(f"{kafka[0]} has no topics {', '.join(sorted(missing))}; `coldstream topics` creates them")
    return state


def _names(archive: Path, state: LogState) -> list[str]:
    """Every partition that the log or the archive has."""
    archived = {f"{topic}/{number}" for topic in TOPICS for number in partitions(archive, topic)}
    return sorted(archived | state.ends.keys())


def _archived(files: Archive, name: str) -> int:
    """The position behind the last archived record of a partition, whatever is missing before it."""
    topic, _, number = name.rpartition("/")
    return files.end(topic, int(number))


def _topic(name: str) -> str:
    return name.rpartition("/")[0]
