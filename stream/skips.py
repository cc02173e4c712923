"""Batches that readers pass over: an operator decided so with `coldstream dead-letters skip`.

They stand on the compacted topic `skips`, so every reader of the log, now or later, passes over the same offsets.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from stream import topics
from stream.client import READ_COMMITTED, kafka_python_config
from stream.errors import BrokerError
from stream.readable_polls import poll_readable

TIMEOUT_S: Final = 10


class Skip(msgspec.Struct, frozen=True):
    """Offsets `first` (inclusive) to `next` (exclusive) of `partition` (`events/3`) are not read; `at` is epoch ms."""

    partition: str
    first: int
    next: int
    reason: str
    at: int

    def covers(self, partition: str, offset: int) -> bool:
        """Whether a reader of `partition` that stands at `offset` continues at `next`."""
        return partition == self.partition and self.first <= offset < self.next


_decoder = msgspec.json.Decoder(Skip)


def covering(skips: Iterable[Skip], partition: str, offset: int) -> Skip | None:
    """The skip that covers `offset` of `partition`."""
    return next((skip for skip in skips if skip.covers(partition, offset)), None)


def read(bootstrap: str, security: Mapping[str, str] | None = None) -> list[Skip]:
    """Every skip. Raises BrokerError."""
    try:
        consumer = KafkaConsumer(
            **kafka_python_config(bootstrap, security),
            **READ_COMMITTED,
            enable_auto_commit=False,
            bootstrap_timeout_ms=TIMEOUT_S * 1000,
        )
        try:
            return _read(consumer, bootstrap, security)
        finally:
            consumer.close(timeout_ms=TIMEOUT_S * 1000)
    except KafkaError as error:
        raise BrokerError(f"the topic {topics.SKIPS} cannot be read at {bootstrap}: {error}") from error


def send(
    bootstrap: str, security: Mapping[str, str] | None, partition: str, first: int, following: int, why: str
) -> Skip:
    """Make every reader of `partition` pass over the offsets from `first` to before `following`. Raises BrokerError."""
    skip = Skip(partition, first, following, why, int(time.time() * 1000))
    try:
        producer = KafkaProducer(**kafka_python_config(bootstrap, security), acks="all")
        try:
            producer.send(topics.SKIPS, msgspec.json.encode(skip), f"{partition}:{first}".encode()).get(TIMEOUT_S)
        finally:
            producer.close(TIMEOUT_S)
    except KafkaError as error:
        raise BrokerError(f"no message sent to {topics.SKIPS} ({type(error).__name__}: {error})") from error
    return skip


def _read(consumer: KafkaConsumer, bootstrap: str, security: Mapping[str, str] | None) -> list[Skip]:
    place = TopicPartition(topics.SKIPS, 0)
    if not consumer.partitions_for_topic(topics.SKIPS):
        return []
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    end = consumer.end_offsets([place])[place]
    skips: list[Skip] = []
    while consumer.position(place) < end:
        for message in poll_readable(consumer, place, bootstrap, security):
            try:
                skips.append(_decoder.decode(message.value or b""))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue  # not from this project
    return skips
