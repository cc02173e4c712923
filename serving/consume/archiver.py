"""The archive process: events, items and users from Kafka to Parquet, each message exactly once.

Where to go on is read from the files themselves, so the files and the log cannot disagree; the offsets committed to
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

GROUP: Final = "coldstream-archive"
FLUSH_S: Final = 5.0
OFFLINE_SHARE: Final = 0.05
"""Share of the time for updates of Feast's offline store, whose files are written whole; training updates it, too."""
MAX_BUFFERED_ROWS: Final = 80_000
"""Rows held in memory, at about 1 KiB each."""
RETRY_S: Final = 1.0
KAFKA_TIMEOUT_MS: Final = 5_000
"""How long a commit, and the goodbye, may wait for Kafka: what is archived is safe without them."""
TOPICS: Final = (topics.EVENTS, topics.ITEMS, topics.USERS)

log = logging.getLogger("coldstream.archive")


def archive(settings: Settings, stop: threading.Event) -> None:
    """Copy until `stop` is set; what is in memory is written before it returns.

    What the consumer sets aside (not JSON, not in the schema) is passed over here as well.
    """
    store = Archive(settings.state_path / "archive")
    offline = OfflineStore(store.folder, settings.domain_names)
    limits = TimeLimits(max_future_ms=settings.max_future_ms)
    config = kafka_python_config(settings.bootstrap, settings.kafka_security)
    consumer = KafkaConsumer(
        **config, group_id=GROUP, enable_auto_commit=False, max_partition_fetch_bytes=16 * 1024 * 1024
    )
    try:
        places = _assign(consumer, store, stop)
        flushed_at, taken = time.monotonic(), Counter[str]()
        next_update_at = flushed_at
        while not stop.is_set():
            if store.waiting() >= MAX_BUFFERED_ROWS or not _take(consumer, store, limits, taken):
                stop.wait(RETRY_S)
            if time.monotonic() - flushed_at >= FLUSH_S or store.waiting() >= MAX_BUFFERED_ROWS // 2:
                _flush(consumer, store, places, taken)
                flushed_at = time.monotonic()
                if flushed_at >= next_update_at:
                    next_update_at = flushed_at + _update(offline) / OFFLINE_SHARE
        _flush(consumer, store, places, taken)
        _update(offline)
    finally:
        consumer.close(timeout_ms=KAFKA_TIMEOUT_MS)


def _assign(consumer: KafkaConsumer, store: Archive, stop: threading.Event) -> list[TopicPartition]:
    """Every partition of the topics, each where the files say. Waits for a topic that Kafka does not know yet: one that
    was passed over would never be archived."""
    places = []
    for topic in TOPICS:
        while not (numbers := consumer.partitions_for_topic(topic)):
            log.warning("Kafka knows no topic %s yet; `coldstream topics` makes it", topic)
            if stop.wait(RETRY_S):
                return []
        places += [TopicPartition(topic, one) for one in sorted(numbers)]
    consumer.assign(places)
    for place in places:
        consumer.seek(place, store.position(place.topic, place.partition))
    return places


def _take(consumer: KafkaConsumer, store: Archive, limits: TimeLimits, taken: Counter[str]) -> bool:
    """What came within half a second; False where Kafka is away."""
    try:
        polled = consumer.poll(500, max_records=20_000)
    except RetriableError as error:
        log.warning("Kafka does not answer (%s); it is asked again", error)
        return False
    for place, messages in polled.items():
        rows = []
        for one in messages:
            try:
                record = _record(place.topic, one, limits)
            except EventError:
                continue  # the consumer has said so, and set it aside
            rows.append(ArchiveRow(one.partition, one.offset, one.timestamp, record))
        taken[place.topic] += len(rows)
        store.append(place.topic, rows)
    return True


def _record(topic: str, message: Any, limits: TimeLimits) -> Record:
    if topic == topics.EVENTS:
        return decode_event(message.key, message.value or b"", message.timestamp, limits)
    return decode(message.value or b"", message.timestamp, limits)


def _flush(consumer: KafkaConsumer, store: Archive, places: list[TopicPartition], taken: Counter[str]) -> None:
    try:
        store.flush()
        for topic, rows in taken.items():
            metrics.archived_rows.labels(topic).inc(rows)
        taken.clear()
        reached: dict[Any, Any] = {place: OffsetAndMetadata(consumer.position(place), "", -1) for place in places}
        consumer.commit(reached, timeout_ms=KAFKA_TIMEOUT_MS)
        ends = consumer.end_offsets(places, timeout_ms=KAFKA_TIMEOUT_MS)
        metrics.archive_lag.set(sum(ends[place] - consumer.position(place) for place in places))
    except ArchiveError as error:
        metrics.archive_errors.inc()
        log.error("%s", error)
    except KafkaError as error:
        log.warning("offsets are not committed (%s); the files say where to go on", error)


def _update(offline: OfflineStore) -> float:
    """Update Feast's offline store; the seconds that it took."""
    started = time.monotonic()
    try:
        offline.update()
    except ArchiveError as error:
        metrics.archive_errors.inc()
        log.error("%s", error)
    return time.monotonic() - started


def main(settings: Settings | None = None) -> int:
    """The process: until SIGTERM or SIGINT."""
    settings = settings or read()
    logs.configure(settings.log_format, settings.log_level)
    memory.configure_allocator(memory.SMALL)
    os.nice(10)  # it may lag by seconds; look-ups and features may not
    stop = threading.Event()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    start_http_server(settings.archive_metrics_port, settings.host, metrics.registry)
    try:
        wait_ready(settings.bootstrap, settings.kafka_security)
        log.info("the archive is ready")
        while not stop.is_set():
            try:
                archive(settings, stop)
            except RetriableError as error:  # lost while the topics were looked for
                log.warning("Kafka does not answer (%s); the archive begins again where its files end", error)
                stop.wait(RETRY_S)
    except BrokerError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
