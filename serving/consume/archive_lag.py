"""Waiting for the archive, until it holds what the log held a moment ago: what is trained on is read from it."""

import time
from collections.abc import Callable
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from serving.consume.archiver import ANSWER_MS, FLUSH_S, GROUP, TOPICS
from serving.settings import Settings
from stream.client import kafka_python_config

WITHIN_S: Final = 120.0
STUCK_S: Final = 3 * FLUSH_S
"""An archive that comes no nearer for so long has nobody who writes it."""
LOOK_S: Final = 0.5


def wait_for_archive(settings: Settings, say: Callable[[str], None], within_s: float = WITHIN_S) -> int:
    """Wait until the archive holds what the log holds at this moment; how many messages it still lacks.

    `say` is told what is waited for, and why it is waited for no longer: after `within_s`, where nobody writes the
    archive, and where Kafka is away (then 0 is given: what is missing is not known).
    """
    config = kafka_python_config(settings.bootstrap, settings.kafka_security)
    try:
        consumer = KafkaConsumer(**config, group_id=GROUP, enable_auto_commit=False, bootstrap_timeout_ms=ANSWER_MS)
    except KafkaError:
        say(f"no Kafka at {settings.bootstrap}: the archive is taken as it is")
        return 0
    try:
        return _wait(consumer, say, within_s)
    except KafkaError as error:
        say(f"Kafka answers no longer ({error}): the archive is taken as it is")
        return 0
    finally:
        consumer.close(timeout_ms=ANSWER_MS)


def _wait(consumer: KafkaConsumer, say: Callable[[str], None], within_s: float) -> int:
    places = [
        TopicPartition(topic, one) for topic in TOPICS for one in sorted(consumer.partitions_for_topic(topic) or ())
    ]
    ends = consumer.end_offsets(places, timeout_ms=ANSWER_MS)
    started = nearer_at = time.monotonic()
    least: int | None = None
    while missing := sum(max(0, ends[one] - (consumer.committed(one) or 0)) for one in places):
        now = time.monotonic()
        if least is None:
            say(f"waiting for the archive: {missing:,} messages of the log are not in it yet")
        if least is None or missing < least:
            least, nearer_at = missing, now
        if now - nearer_at > STUCK_S or now - started > within_s:
            say(f"the archive lacks {missing:,} messages; `coldstream archive` writes it. It is taken as it is")
            return missing
        time.sleep(LOOK_S)
    return 0
