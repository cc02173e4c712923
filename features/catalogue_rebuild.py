"""Rebuild of items and profiles from the archive and the rest of the log, into a store of their own.

The updates are merged as the consumer merges them, so the rows are byte-equal to the live ones at the same positions.
Then the compacted topics get those merged records that they lack: API processes read them from there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from features.archive import partitions, parts, read_part
from features.catalogue import CatalogueEntry, ItemRow, ProfileRow, UserProfile, item_row_of, profile_row_of
from features.catalogue_fold import LoggedUpdate, write_updates
from features.catalogue_topics import Message, decode_message, progress_message, record_message
from features.event_log import read_messages
from features.store import OnlineStore, RecordKey
from stream import log_epochs, topics
from stream.client import kafka_python_config
from stream.errors import BrokerError, EventError
from stream.events import DEFAULT_LIMITS, Item, TimeLimits, User, decode_catalogue_update
from stream.log_epochs import FIRST_EPOCH, LogEpochs

BATCH: Final = 5_000
UPDATES: Final[dict[str, type[Item | User]]] = {topics.ITEMS: Item, topics.USERS: User}
SEND_TIMEOUT_S: Final = 30

Security = Mapping[str, str] | None


class CatalogueReport(msgspec.Struct, frozen=True):
    """The result of a rebuild: updates read, items and profiles written, and merged records sent to their topics."""

    updates: int
    items: int
    profiles: int
    sent: int


class RebuiltKeys(msgspec.Struct):
    """What a rebuild wrote: the keys of items and profiles, and the last offset of each partition of updates."""

    items: set[RecordKey] = msgspec.field(default_factory=set)
    profiles: set[RecordKey] = msgspec.field(default_factory=set)
    positions: dict[str, int] = msgspec.field(default_factory=dict)
    updates: int = 0


def rebuild_catalogue(
    archive: Path,
    store: OnlineStore,
    bootstrap: str | None,
    security: Security = None,
    limits: TimeLimits = DEFAULT_LIMITS,
) -> CatalogueReport:
    """Merge every update of the archive, and of the log behind it (where `bootstrap` is given), into an empty `store`.

    Then sends what the topics `catalogue` and `profiles` lack. The consumer must not run.

    Raises:
        BrokerError: Kafka does not answer.
    """
    written = RebuiltKeys()
    epochs = log_epochs.read(bootstrap, security) if bootstrap is not None else FIRST_EPOCH
    try:
        for topic in UPDATES:
            ends = _ends(bootstrap, security, topic) if bootstrap is not None else {}
            for number in sorted({*partitions(archive, topic), *ends}):
                name = f"{topic}/{number}"
                log = _partition(archive, (bootstrap, security, epochs), topic, number, limits)
                end = ends.get(number, 0) - 1
                _write(store, log, name, epochs.position(name, end) if end >= 0 else -1, written)
        sent = _send_missing(store, written, bootstrap, security) if bootstrap is not None else 0
    except KafkaError as error:
        raise BrokerError(f"no Kafka at {bootstrap}: {type(error).__name__}: {error}; is it running?") from error
    return CatalogueReport(written.updates, len(written.items), len(written.profiles), sent)


def send_catalogue(archive: Path, store: OnlineStore, bootstrap: str, security: Security = None) -> int:
    """Send what the topics `catalogue` and `profiles` lack of the store's records, as after the loss of the log.

    The archive says which items and users there are. Returns how many records were sent. Raises BrokerError.
    """
    keys = RebuiltKeys()
    for topic, into in ((topics.ITEMS, keys.items), (topics.USERS, keys.profiles)):
        for path in parts(archive, topic):
            table = read_part(path)
            into.update(zip(table["domain"].to_pylist(), table["id"].to_pylist(), strict=True))
    keys.items = {key for key in keys.items if key[0] in store.domains}
    keys.profiles = {key for key in keys.profiles if key[0] in store.domains}
    keys.positions = store.read_positions([f"{topic}/0" for topic in UPDATES])
    try:
        return _send_missing(store, keys, bootstrap, security, restore=False)
    except KafkaError as error:
        raise BrokerError(f"no Kafka at {bootstrap}: {type(error).__name__}: {error}; is it running?") from error


def _write(store: OnlineStore, log: Iterator[LoggedUpdate], name: str, end: int, written: RebuiltKeys) -> None:
    """Merge a partition's updates into the store; its position is the log's end, or that of the last update."""
    position = end
    while batch := list(islice(log, BATCH)):
        known = [entry for entry in batch if entry.update.domain in store.domains]
        position = max(position, batch[-1].offset)
        folded = write_updates(store, known, {})
        written.items |= folded.items.keys()
        written.profiles |= folded.profiles.keys()
        written.updates += len(known)
    if position >= 0:
        store.write_positions({name: position})
        written.positions[name] = position


def _partition(
    archive: Path, source: tuple[str | None, Security, LogEpochs], topic: str, number: int, limits: TimeLimits
) -> Iterator[LoggedUpdate]:
    """The updates of a partition: from the archive, then from the log behind it."""
    last, name = -1, f"{topic}/{number}"
    decode = msgspec.json.Decoder(UPDATES[topic]).decode
    for path in parts(archive, topic):
        if int(path.stem.rsplit("-", 2)[1]) != number:
            continue
        table = read_part(path)
        for last, record in zip(table["offset"].to_pylist(), table["record"].to_pylist(), strict=True):
            yield LoggedUpdate(decode(record), name, last)
    bootstrap, security, epochs = source
    if bootstrap is None:
        return
    for position, message in read_messages(bootstrap, security, topic, number, last + 1, epochs=epochs):
        try:
            update = decode_catalogue_update(topic, message.value, message.timestamp, limits)
        except EventError:
            continue  # a dead letter
        yield LoggedUpdate(update, name, position)


def _send_missing(
    store: OnlineStore, written: RebuiltKeys, bootstrap: str, security: Security, *, restore: bool = True
) -> int:
    """Send the records that the compacted topics lack or have otherwise; returns how many.

    With `restore`, records of which neither archive nor log has an update any more are written to the store: the
    topics are the only place that knows them.
    """
    producer = KafkaProducer(**kafka_python_config(bootstrap, security), acks="all")
    try:
        sent = 0
        for topic, keys, read in (
            (topics.CATALOGUE, written.items, store.read_item_rows),
            (topics.PROFILES, written.profiles, store.read_profile_rows),
        ):
            present = _present(bootstrap, security, topic)
            for message in _changes(sorted(keys), read, present):
                producer.send(*_arguments(message))
                sent += 1
            if restore:
                _restore(store, present.values())
        for name, position in written.positions.items():
            producer.send(*_arguments(progress_message(name, position)))
        producer.flush(SEND_TIMEOUT_S)
    finally:
        producer.close(SEND_TIMEOUT_S)
    return sent


def _changes(keys: Sequence[RecordKey], read: Any, present: dict[bytes, bytes]) -> Iterator[Message]:
    """The messages of records that `present` lacks or has otherwise; takes the keys out of it."""
    for start in range(0, len(keys), BATCH):
        rows: Iterable[ItemRow | ProfileRow] = read(keys[start : start + BATCH]).values()
        for message in map(record_message, rows):
            _, key, value = message
            if present.pop(key, None) != value:
                yield message


def _restore(store: OnlineStore, records: Iterable[bytes]) -> None:
    messages = [decode_message(None, value) for value in records]
    domains = store.domains
    store.write_items(
        item_row_of(entry) for entry in messages if isinstance(entry, CatalogueEntry) and entry.domain in domains
    )
    store.write_profiles(
        profile_row_of(user) for user in messages if isinstance(user, UserProfile) and user.domain in domains
    )


def _present(bootstrap: str, security: Security, topic: str) -> dict[bytes, bytes]:
    """The records that a compacted topic holds now, by key."""
    records: dict[bytes, bytes] = {}
    for number in _ends(bootstrap, security, topic):
        for _, message in read_messages(bootstrap, security, topic, number, 0):
            key = message.key or b""
            if message.value is None:
                records.pop(key, None)
            elif isinstance(_decoded(message), CatalogueEntry | UserProfile):
                records[key] = message.value
    return records


def _decoded(message: Any) -> object:
    try:
        return decode_message(message.key, message.value)
    except EventError:
        return None


def _arguments(message: Message) -> tuple[Any, ...]:
    """Topic, value, key, headers and partition, as `KafkaProducer.send` takes them."""
    topic, key, value = message
    return topic, value, key, None, 0


def _ends(bootstrap: str, security: Security, topic: str) -> dict[int, int]:
    """The end offset of each partition of a topic; empty where the topic does not exist."""
    consumer = KafkaConsumer(**kafka_python_config(bootstrap, security))
    try:
        numbers = consumer.partitions_for_topic(topic) or set()
        ends = consumer.end_offsets([TopicPartition(topic, number) for number in sorted(numbers)])
    finally:
        consumer.close()
    return {place.partition: end for place, end in ends.items()}
