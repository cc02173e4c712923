"""How far the consumer's groups are behind the log, asked of the broker itself."""

from kafka import KafkaConsumer, TopicPartition

from serving.consume import catalogue, events
from stream import topics
from stream.client import kafka_python_config

TOPICS = {events.GROUP: (topics.EVENTS,), catalogue.GROUP: (topics.ITEMS, topics.USERS)}
"""The topics of each consumer group."""


def uncommitted(bootstrap: str) -> int:
    """The messages of events, items and users that are in the log now and not yet committed.

    Raises:
        KafkaError: the broker does not answer.
    """
    return sum(_behind(bootstrap, group, names) for group, names in TOPICS.items())


def _behind(bootstrap: str, group: str, names: tuple[str, ...]) -> int:
    consumer = KafkaConsumer(**kafka_python_config(bootstrap, None), group_id=group, enable_auto_commit=False)
    try:
        places = [
            TopicPartition(name, number) for name in names for number in consumer.partitions_for_topic(name) or ()
        ]
        ends = consumer.end_offsets(places)
        return sum(max(0, end - (consumer.committed(place) or 0)) for place, end in ends.items())
    finally:
        consumer.close()
