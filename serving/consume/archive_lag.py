"""Waits until the archive contains every message that the log has now: training reads the archive."""

import time
from collections.abc import Callable
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from serving.consume.archiver import FLUSH_S, GROUP, KAFKA_TIMEOUT_MS, TOPICS
from serving.settings import Settings
from stream.client import kafka_python_config

TIMEOUT_S: Final = 120.0
STALLED_AFTER_S: Final = 3 * FLUSH_S
"""Without progress for this long, no archive process is running."""
POLL_S: Final = 0.5


def wait_for_archive(settings: Settings, report: Callable[[str], None], within_s: float = TIMEOUT_S) -> int:
    """Wait until the archive contains what the log contains now; the number of messages that are still missing.

    `report` gets a message when the wait begins, and one when it ends early: after `within_s`, when the archive makes
    no progress, or when Kafka does not answer (then the result is 0: the lag is unknown).
    """
    config = kafka_python_config(settings.bootstrap, settings.kafka_security)
    try:
        consumer = KafkaConsumer(
            **config,
            group_id=GROUP,
            enable_auto_commit=False,
            bootstrap_timeout_ms=KAFKA_TIMEOUT_MS,
        )
    except KafkaError:
        report(f"no Kafka at {settings.bootstrap}: using the archive as it is")
        return 0
    try:
        return _wait(consumer, report, within_s)
    except KafkaError as error:
        report(f"Kafka stopped answering ({error}): using the archive as it is")
        return 0
    finally:
        consumer.close(timeout_ms=KAFKA_TIMEOUT_MS)


def _wait(consumer: KafkaConsumer, report: Callable[[str], None], within_s: float) -> int:
    partitions = [
        TopicPartition(topic, number)
        for topic in TOPICS
        for number in sorted(consumer.partitions_for_topic(topic) or ())
    ]
    ends = consumer.end_offsets(partitions, timeout_ms=KAFKA_TIMEOUT_MS)
    started = progress_at = time.monotonic()
    least: int | None = None
    while missing := sum(max(0, ends[partition] - (consumer.committed(partition) or 0)) for partition in partitions):
        now = time.monotonic()
        if least is None:
            report(f"waiting for the archive: {missing:,} messages behind the log")
        if least is None or missing < least:
            least, progress_at = missing, now
        if now - progress_at > STALLED_AFTER_S or now - started > within_s:
            report(f"the archive is {missing:,} messages behind (is `coldstream archive` running?); using it as it is")
            result: int = missing
            return result
        time.sleep(POLL_S)
    return 0
