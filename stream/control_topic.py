"""Small compacted topics with one partition, read as a whole: values in order, and one value sent at a time."""

from collections.abc import Mapping
from typing import Final

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from stream.client import READ_COMMITTED, kafka_python_config
from stream.errors import BrokerError
from stream.readable_polls import poll_readable

TIMEOUT_S: Final = 10


def read_values(bootstrap: str, security: Mapping[str, str] | None, topic: str) -> list[bytes]:
    """The value of every message of a topic; none if it does not exist. Raises BrokerError."""
    try:
        consumer = KafkaConsumer(
            **kafka_python_config(bootstrap, security),
            **READ_COMMITTED,
            enable_auto_commit=False,
            bootstrap_timeout_ms=TIMEOUT_S * 1000,
        )
        try:
            return _read(consumer, topic, bootstrap, security)
        finally:
            consumer.close(timeout_ms=TIMEOUT_S * 1000)
    except KafkaError as error:
        raise BrokerError(f"the topic {topic} cannot be read at {bootstrap}: {error}") from error


def send_value(bootstrap: str, security: Mapping[str, str] | None, topic: str, key: bytes, value: bytes) -> None:
    """Send a value, and wait until it is acknowledged. Raises BrokerError."""
    try:
        producer = KafkaProducer(**kafka_python_config(bootstrap, security), acks="all")
        try:
            producer.send(topic, value, key).get(TIMEOUT_S)
        finally:
            producer.close(TIMEOUT_S)
    except KafkaError as error:
        raise BrokerError(f"no message sent to {topic} ({type(error).__name__}: {error})") from error


def _read(consumer: KafkaConsumer, topic: str, bootstrap: str, security: Mapping[str, str] | None) -> list[bytes]:
    place = TopicPartition(topic, 0)
    if not consumer.partitions_for_topic(topic):
        return []
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    end = consumer.end_offsets([place])[place]
    values: list[bytes] = []
    while consumer.position(place) < end:
        values += [message.value or b"" for message in poll_readable(consumer, place, bootstrap, security)]
    return values
