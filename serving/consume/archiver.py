"""The archive process: events, items and users from Kafka to Parquet, each message exactly once.

The files themselves hold the position to continue from, so they cannot disagree with the log; the offsets committed to
Kafka only make the lag visible to Kafka's own tools.
"""

import logging
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, Final

from kafka import KafkaConsumer, OffsetAndMetadata
from kafka.errors import CorruptRecordError, KafkaError, RetriableError
from prometheus_client import start_http_server

from features.archive import Archive, ArchiveRow
from features.errors import ArchiveError
from features.offline import OfflineStore
from serving import metrics
from serving.consume.archive_partitions import ArchivePartitions
from serving.errors import LogError
from serving.process import logs, memory
from serving.settings import EXIT_MISCONFIGURED, Settings, read
from stream import topics
from stream.admin import wait_ready
from stream.client import READ_COMMITTED, kafka_python_config
from stream.errors import BrokerError, EventError, FileError
from stream.events import Record, TimeLimits, decode_catalogue_update, decode_event
from stream.files import try_lock
from stream.headers import is_backfill

GROUP: Final = "coldstream-archive"
LOCK_FILE: Final = "archive.lock"
FLUSH_S: Final = 5.0
OFFLINE_SHARE: Final = 0.05
"""Share of the time spent on updates of Feast's offline store, which rewrite whole files; training updates it, too."""
MAX_BUFFERED_ROWS: Final = 80_000
"""Rows held in memory, at about 1 KiB each."""
RETRY_S: Final = 1.0
KAFKA_TIMEOUT_MS: Final = 5_000
"""How long a commit, and closing the consumer, may wait for Kafka: archived rows are safe without them."""
NEW_PARTITIONS_MS: Final = 10_000
"""Added partitions are seen within this time."""
TOPICS: Final = (topics.EVENTS, topics.ITEMS, topics.USERS)

log = logging.getLogger("coldstream.archive")


def archive(settings: Settings, stop: threading.Event, checked: threading.Event) -> None:
    """Copy until `stop` is set; writes buffered rows before it returns. Sets `checked` once the log is the right one.

    Skips messages that the consumer moves to the dead letters (not JSON, not in the schema).

    Raises:
        LogError: the log is not the one that the archive was written from.
    """
    store = Archive(settings.state_path / "archive")
    offline = OfflineStore(store.folder, settings.domain_names)
    kafka = (settings.bootstrap, settings.kafka_security)
    partitions = ArchivePartitions(*kafka, store, TOPICS)
    while not stop.is_set():
        consumer = KafkaConsumer(
            **kafka_python_config(*kafka),
            **READ_COMMITTED,
            group_id=GROUP,
            enable_auto_commit=False,
            auto_offset_reset="none",
            metadata_max_age_ms=NEW_PARTITIONS_MS,
            max_partition_fetch_bytes=16 * 1024 * 1024,
        )
        try:
            partitions.check_log()
            checked.set()
            partitions.assign(consumer, stop)
            _copy(consumer, store, partitions, offline, TimeLimits(max_future_ms=settings.max_future_ms), stop)
        finally:
            consumer.close(timeout_ms=KAFKA_TIMEOUT_MS)


def _copy(
    consumer: KafkaConsumer,
    store: Archive,
    partitions: ArchivePartitions,
    offline: OfflineStore,
    limits: TimeLimits,
    stop: threading.Event,
) -> None:
    """Copy until `stop` is set or other partitions have to be assigned."""
    flushed_at = time.monotonic()
    next_update_at = flushed_at
    again = False
    while not stop.is_set() and not again:
        if store.waiting() >= MAX_BUFFERED_ROWS:
            stop.wait(RETRY_S)
        else:
            again = not _poll(consumer, store, limits, partitions, stop)
        if time.monotonic() - flushed_at >= FLUSH_S or store.waiting() >= MAX_BUFFERED_ROWS // 2:
            _flush(consumer, store, partitions)
            flushed_at = time.monotonic()
            again = again or bool(store.damaged) or partitions.resume() or partitions.changed(consumer)
            if flushed_at >= next_update_at:
                next_update_at = flushed_at + _update(offline) / OFFLINE_SHARE
    _flush(consumer, store, partitions)
    if stop.is_set():
        _update(offline)


def _poll(
    consumer: KafkaConsumer, store: Archive, limits: TimeLimits, partitions: ArchivePartitions, stop: threading.Event
) -> bool:
    """Append what arrives within half a second; False if a partition stopped at a batch that cannot be read."""
    try:
        polled = consumer.poll(500, max_records=20_000)
    except CorruptRecordError:
        return not partitions.isolate(consumer)
    except RetriableError as error:
        log.warning("Kafka does not respond (%s); retrying", error)
        stop.wait(RETRY_S)
        return True
    except Exception:  # codecs raise classes of their own
        if partitions.isolate(consumer):
            return False
        raise
    for partition, messages in polled.items():
        rows = []
        for message in messages:
            try:
                record = _record(partition.topic, message, limits)
            except EventError:
                continue  # the consumer sends it to the dead letters
            rows.append(
                ArchiveRow(
                    message.partition,
                    partitions.position(partition, message.offset),
                    message.timestamp,
                    record,
                    is_backfill(message.headers),
                    partitions.forwarded_from(message),
                )
            )
        store.append(partition.topic, rows)
        partitions.advance(consumer, partition, messages[-1])
    return True


def _record(topic: str, message: Any, limits: TimeLimits) -> Record:
    if topic == topics.EVENTS:
        return decode_event(message.key, message.value or b"", message.timestamp, limits)
    return decode_catalogue_update(topic, message.value, message.timestamp, limits)


def _flush(consumer: KafkaConsumer, store: Archive, partitions: ArchivePartitions) -> None:
    try:
        for topic, rows in store.flush().items():
            metrics.archived_rows.labels(topic).inc(rows)
        partitions.write_marks()
        positions = partitions.positions(consumer)
        offsets: dict[Any, Any] = {
            partition: OffsetAndMetadata(position, "", -1) for partition, position in positions.items()
        }
        metrics.archive_lag.set(partitions.lag(positions))
        consumer.commit(offsets, timeout_ms=KAFKA_TIMEOUT_MS)
    except (ArchiveError, FileError) as error:
        metrics.archive_errors.inc()
        log.error("%s", error)
    except (KafkaError, BrokerError) as error:
        log.warning("offsets not committed (%s); the archive continues from its files", error)


def _update(offline: OfflineStore) -> float:
    """Update Feast's offline store; returns the seconds it took."""
    started = time.monotonic()
    try:
        offline.update()
    except ArchiveError as error:
        metrics.archive_errors.inc()
        log.error("%s", error)
    return time.monotonic() - started


def main(settings: Settings | None = None) -> int:
    """Run the archive process until SIGTERM or SIGINT; returns its exit code."""
    settings = settings or read()
    logs.configure(settings)
    memory.configure_allocator(memory.SMALL)
    os.nice(10)  # it may lag by seconds; look-ups and features must not
    stop = threading.Event()

    def request_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    lock = try_lock(settings.state_path / LOCK_FILE)
    if lock is None:
        log.error("another archive process writes %s; stop it, or run only one", settings.state_path / "archive")
        return 1
    try:
        return _run(settings, stop)
    finally:
        lock.release()


def _run(settings: Settings, stop: threading.Event) -> int:
    start_http_server(settings.archive_metrics_port, settings.host, metrics.registry)
    checked = threading.Event()
    try:
        wait_ready(settings.bootstrap, settings.kafka_security)
        log.info("the archive is ready")
        while not stop.is_set():
            try:
                archive(settings, stop, checked)
            except LogError:  # the guard has logged it
                if not checked.is_set():
                    return EXIT_MISCONFIGURED
                stop.wait()
            except (KafkaError, BrokerError) as error:  # such as a connection lost while listing the topics
                log.warning("Kafka does not respond (%s); the archive restarts from its files", error)
                stop.wait(RETRY_S)
    except BrokerError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
