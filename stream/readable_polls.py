"""Reads with kafka-python that pass over a batch that cannot be read, where the rest is worth more than a stop."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition

from stream.batch_probe import probe_now

POLL_MS: Final = 1_000

log = logging.getLogger("coldstream.kafka")


def poll_readable(
    consumer: KafkaConsumer, place: TopicPartition, bootstrap: str, security: Mapping[str, str] | None
) -> list[Any]:
    """The next messages of `place`; empty if a batch that cannot be read was passed over.

    Raises:
        KafkaError: the broker does not answer. BrokerError: it does not let the log be probed.
    """
    try:
        messages: list[Any] = consumer.poll(POLL_MS).get(place, [])
    except Exception:  # codecs raise classes of their own
        batch, _ = probe_now(bootstrap, security, place.topic, place.partition, consumer.position(place))
        if batch is None:
            raise
        log.warning("%s: passed over offsets %d to %d: %s", batch.name, batch.first, batch.next - 1, batch.reason)
        consumer.seek(place, batch.next)
        return []
    return messages
