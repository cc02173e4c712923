"""Messages straight from Kafka: those that the archive does not hold yet."""

from collections.abc import Iterator, Mapping
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from features.activity import LoggedEvent, origin_of
from stream import log_epochs, skips, topics
from stream.batch_probe import probe_now, stop_message
from stream.client import READ_COMMITTED, kafka_python_config
from stream.errors import BrokerError, EventError
from stream.events import DEFAULT_LIMITS, TimeLimits, decode_event
from stream.headers import forwarded_from, is_backfill
from stream.log_epochs import FIRST_EPOCH, LogEpochs


def read_log(
    bootstrap: str,
    security: Mapping[str, str] | None,
    partition: int,
    start: int,
    limits: TimeLimits = DEFAULT_LIMITS,
    until: int | None = None,
    epochs: LogEpochs = FIRST_EPOCH,
) -> Iterator[LoggedEvent]:
    """The events of a partition that are in the log now, from position `start` on; dead letters are skipped.

    `until`: read only to this position (exclusive). Positions are offsets in the first of the log's `epochs`.

    Raises:
        BrokerError: a batch cannot be read, and no operator skipped it.
    """
    name = f"{topics.EVENTS}/{partition}"
    for position, message in read_messages(bootstrap, security, topics.EVENTS, partition, start, until, epochs):
        try:
            event = decode_event(message.key, message.value or b"", message.timestamp, limits)
        except EventError:
            continue  # a dead letter
        origin = origin_of(name, forwarded_from(message.headers), epochs)
        yield LoggedEvent(event, name, position, is_backfill(message.headers), origin, message.timestamp)


def read_messages(
    bootstrap: str,
    security: Mapping[str, str] | None,
    topic: str,
    partition: int,
    start: int,
    until: int | None = None,
    epochs: LogEpochs = FIRST_EPOCH,
) -> Iterator[tuple[int, Any]]:
    """Positions and messages of a partition that are in the log now, from `start` to `until` (exclusive).

    Raises:
        BrokerError: a batch cannot be read, and no operator skipped it.
    """
    place, name = TopicPartition(topic, partition), f"{topic}/{partition}"
    consumer = KafkaConsumer(
        **kafka_python_config(bootstrap, security), **READ_COMMITTED, max_partition_fetch_bytes=16 * 1024 * 1024
    )
    try:
        consumer.assign([place])
        end = consumer.end_offsets([place])[place]
        end = end if until is None else min(end, epochs.offset(name, until))
        first = consumer.beginning_offsets([place])[place]
        consumer.seek(place, max(epochs.offset(name, start), first))
        while consumer.position(place) < end:
            for message in _poll(consumer, place, bootstrap, security):
                if message.offset >= end:
                    break
                yield epochs.position(name, message.offset), message
    finally:
        consumer.close()


def _poll(
    consumer: KafkaConsumer, place: TopicPartition, bootstrap: str, security: Mapping[str, str] | None
) -> list[Any]:
    """The next messages. Passes over a batch that cannot be read if an operator skipped it, else raises BrokerError."""
    try:
        messages: list[Any] = consumer.poll(1_000).get(place, [])
    except Exception:  # codecs raise classes of their own
        batch, _ = probe_now(bootstrap, security, place.topic, place.partition, consumer.position(place))
        if batch is None:
            raise
        skip = skips.covering(skips.read(bootstrap, security), batch.name, batch.first)
        if skip is None:
            raise BrokerError(stop_message(batch)) from None
        consumer.seek(place, skip.next)
        return []
    return messages


def last_positions(bootstrap: str, security: Mapping[str, str] | None) -> dict[str, int]:
    """The last position of each partition of `events`; -1 for an empty one in the first epoch."""
    epochs = log_epochs.read(bootstrap, security)
    consumer = KafkaConsumer(**kafka_python_config(bootstrap, security))
    try:
        numbers = consumer.partitions_for_topic(topics.EVENTS) or set()
        ends = consumer.end_offsets([TopicPartition(topics.EVENTS, number) for number in sorted(numbers)])
    finally:
        consumer.close()
    names = {f"{place.topic}/{place.partition}": end for place, end in ends.items()}
    return {name: epochs.position(name, end) - 1 for name, end in names.items()}
