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
from collections import Counter
from types import FrameType
from typing import Any, Final

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, RetriableError
from prometheus_client import start_http_server

from features.archive import Archive, ArchiveRow
from features.errors import ArchiveError
from features.offline import OfflineStore
from serving import metrics
from serving.process import logs, memory
from serving.settings import Settings, read
from stream import topics
from stream.admin import wait_ready
from stream.client import kafka_python_config
from stream.errors import BrokerError, EventError
from stream.events import Record, TimeLimits, decode, decode_event
from stream.headers import is_backfill

GROUP: Final = "coldstream-archive"
FLUSH_S: Final = 5.0
OFFLINE_SHARE: Final = 0.05
"""Share of the time spent on updates of Feast's offline store, which rewrite whole files; training updates it, too."""
MAX_BUFFERED_ROWS: Final = 80_000
"""Rows held in memory, at about 1 KiB each."""
RETRY_S: Final = 1.0
KAFKA_TIMEOUT_MS: Final = 5_000
"""How long a commit, and closing the consumer, may wait for Kafka: archived rows are safe without them."""
TOPICS: Final = (topics.EVENTS, topics.ITEMS, topics.USERS)

log = logging.getLogger("coldstream.archive")


def archive(settings: Settings, stop: threading.Event) -> None:
    """Copy until `stop` is set; writes buffered rows before it returns.

    Skips messages that the consumer moves to the dead letters (not JSON, not in the schema).
    """
    store = Archive(settings.state_path / "archive")
    offline = OfflineStore(store.folder, settings.domain_names)
    limits = TimeLimits(max_future_ms=settings.max_future_ms)
    config = kafka_python_config(settings.bootstrap, settings.kafka_security)
    consumer = KafkaConsumer(
        **config, group_id=GROUP, enable_auto_commit=False, max_partition_fetch_bytes=16 * 1024 * 1024
    )
    try:
        partitions = _assign(consumer, store, stop)
        flushed_at, archived = time.monotonic(), Counter[str]()
        next_update_at = flushed_at
        while not stop.is_set():
            if store.waiting() >= MAX_BUFFERED_ROWS or not _poll(consumer, store, limits, archived):
                stop.wait(RETRY_S)
            if time.monotonic() - flushed_at >= FLUSH_S or store.waiting() >= MAX_BUFFERED_ROWS // 2:
                _flush(consumer, store, partitions, archived)
                flushed_at = time.monotonic()
                if flushed_at >= next_update_at:
                    next_update_at = flushed_at + _update(offline) / OFFLINE_SHARE
        _flush(consumer, store, partitions, archived)
        _update(offline)
    finally:
        consumer.close(timeout_ms=KAFKA_TIMEOUT_MS)


def _assign(consumer: KafkaConsumer, store: Archive, stop: threading.Event) -> list[TopicPartition]:
    """Assign every partition of the topics, each from the position in the files. Waits for missing topics: a skipped
    topic would never be archived."""
    partitions = []
    for topic in TOPICS:
        while not (numbers := consumer.partitions_for_topic(topic)):
            log.warning("topic %s does not exist yet; `coldstream topics` creates it", topic)
            if stop.wait(RETRY_S):
                return []
        partitions += [TopicPartition(topic, number) for number in sorted(numbers)]
    consumer.assign(partitions)
    for partition in partitions:
        consumer.seek(partition, store.position(partition.topic, partition.partition))
    return partitions


def _poll(consumer: KafkaConsumer, store: Archive, limits: TimeLimits, archived: Counter[str]) -> bool:
    """Append what arrives within half a second; False if Kafka is unavailable."""
    try:
        polled = consumer.poll(500, max_records=20_000)
    except RetriableError as error:
        log.warning("Kafka does not respond (%s); retrying", error)
        return False
    for partition, messages in polled.items():
        rows = []
        for message in messages:
            try:
                record = _record(partition.topic, message, limits)
            except EventError:
                continue  # the consumer sends it to the dead letters
            rows.append(
                ArchiveRow(message.partition, message.offset, message.timestamp, record, is_backfill(message.headers))
            )
        archived[partition.topic] += len(rows)
        store.append(partition.topic, rows)
    return True


def _record(topic: str, message: Any, limits: TimeLimits) -> Record:
    if topic == topics.EVENTS:
        return decode_event(message.key, message.value or b"", message.timestamp, limits)
    return decode(message.value or b"", message.timestamp, limits)


def _flush(consumer: KafkaConsumer, store: Archive, partitions: list[TopicPartition], archived: Counter[str]) -> None:
    try:
        store.flush()
        for topic, rows in archived.items():
            metrics.archived_rows.labels(topic).inc(rows)
        archived.clear()
        offsets: dict[Any, Any] = {
            partition: OffsetAndMetadata(consumer.position(partition), "", -1) for partition in partitions
        }
        consumer.commit(offsets, timeout_ms=KAFKA_TIMEOUT_MS)
        ends = consumer.end_offsets(partitions, timeout_ms=KAFKA_TIMEOUT_MS)
        metrics.archive_lag.set(sum(ends[partition] - consumer.position(partition) for partition in partitions))
    except ArchiveError as error:
        metrics.archive_errors.inc()
        log.error("%s", error)
    except KafkaError as error:
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
    start_http_server(settings.archive_metrics_port, settings.host, metrics.registry)
    try:
        wait_ready(settings.bootstrap, settings.kafka_security)
        log.info("the archive is ready")
        while not stop.is_set():
            try:
                archive(settings, stop)
            except RetriableError as error:  # connection lost while listing the topics
                log.warning("Kafka does not respond (%s); the archive restarts from its files", error)
                stop.wait(RETRY_S)
    except BrokerError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
