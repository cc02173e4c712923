"""The operator's way past a batch that cannot be read: its bytes go to the dead letters, and readers pass over it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import BrokerResponseError, KafkaError

from stream import dead_letters, skips, topics
from stream.batch_probe import UnreadableBatch, probe_now
from stream.client import kafka_python_config
from stream.errors import BrokerError, StreamError

GROUPS: Final = ("coldstream-events", "coldstream-catalogue", "coldstream-archive", "coldstream-forget")
"""The consumer groups whose committed offsets say how far the log is read."""
SEND_S: Final = 30


def skip_unreadable(bootstrap: str, security: Mapping[str, str] | None, name: str) -> UnreadableBatch:
    """Skip the first batch of the partition `name` (`events/3`) that cannot be read and that readers have before them.

    Raises:
        StreamError: there is no such partition, or every batch can be read. BrokerError: Kafka does not answer.
    """
    topic, _, number = name.rpartition("/")
    if not number.isdigit():
        raise StreamError(f"{name!r} is not a partition; give one such as events/3")
    place = TopicPartition(topic, int(number))
    with _kafka_errors(bootstrap):
        first, end = _range(bootstrap, security, place)
    batch = _find(bootstrap, security, place, first, end)
    if batch is None:
        raise StreamError(f"{name}: every batch from offset {first} to {end - 1} can be read; nothing was skipped")
    with _kafka_errors(bootstrap):
        _keep(bootstrap, security, batch)
    skips.send(bootstrap, security, name, batch.first, batch.next, batch.reason)
    return batch


def _range(bootstrap: str, security: Mapping[str, str] | None, place: TopicPartition) -> tuple[int, int]:
    """From the least committed offset of the groups that read the partition to the end of the log."""
    config = kafka_python_config(bootstrap, security)
    consumer = KafkaConsumer(**config)
    try:
        if place.partition not in (consumer.partitions_for_topic(place.topic) or ()):
            raise StreamError(f"partition {place.topic}/{place.partition} does not exist at {bootstrap}")
        first, end = consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]
    finally:
        consumer.close()
    admin = KafkaAdminClient(**config)
    try:
        known = [_committed(admin, group, place) for group in GROUPS]
    finally:
        admin.close()
    return max(first, min((offset for offset in known if offset >= 0), default=first)), end


def _committed(admin: KafkaAdminClient, group: str, place: TopicPartition) -> int:
    try:
        position = admin.list_group_offsets({group: [place]}).get(group, {}).get(place)
    except BrokerResponseError:  # no such group
        return -1
    return position.offset if position is not None else -1


def _find(
    bootstrap: str, security: Mapping[str, str] | None, place: TopicPartition, first: int, end: int
) -> UnreadableBatch | None:
    known = skips.read(bootstrap, security)
    offset = first
    while offset < end:
        skip = skips.covering(known, f"{place.topic}/{place.partition}", offset)
        if skip is not None:
            offset = skip.next
            continue
        batch, following = probe_now(bootstrap, security, place.topic, place.partition, offset)
        if batch is not None and skips.covering(known, batch.name, batch.first) is None:
            return batch
        offset = max(offset + 1, batch.next if batch is not None else following)
    return None


def _keep(bootstrap: str, security: Mapping[str, str] | None, batch: UnreadableBatch) -> None:
    detail = f"offsets {batch.first} to {batch.next - 1}: {batch.reason}"
    letters = dead_letters.encode_letters(
        dead_letters.UNREADABLE, detail, batch.topic, batch.partition, batch.first, None, batch.raw
    )
    producer = KafkaProducer(**kafka_python_config(bootstrap, security), acks="all")
    try:
        for letter in letters:
            producer.send(topics.DEAD_LETTERS, letter).get(SEND_S)
    finally:
        producer.close(SEND_S)


@contextmanager
def _kafka_errors(bootstrap: str) -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise BrokerError(f"Kafka at {bootstrap} does not do as asked: {type(error).__name__}: {error}") from error
