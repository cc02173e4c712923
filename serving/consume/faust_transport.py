"""Faust's Kafka transport for logs as they are: it reads committed messages only, and passes over unreadable batches.

Faust's own consumer ends, and the process with it, at the first batch that cannot be read.
"""

import logging
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from faust import App
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer, Transport

from serving.consume.membership import leave_at_stop
from stream.batch_probe import probe
from stream.client import READ_COMMITTED
from stream.partition_guard import NOT_ABOUT_BATCHES

log = logging.getLogger("coldstream.kafka")


class ReadableTransport(Transport):  # type: ignore[misc]  # Faust has no types
    """The transport of an app that uses the brokers `bootstrap`."""

    def __init__(self, app: App, bootstrap: str, security: dict[str, str]) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self.kafka = (bootstrap, security)


class ReadableConsumerThread(AIOKafkaConsumerThread):  # type: ignore[misc]  # Faust has no types
    """Faust's consumer, which fetches in a thread of its own."""

    def _create_worker_consumer(self, transport: ReadableTransport) -> AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = READ_COMMITTED["isolation_level"]  # Faust has no setting for it
        return consumer

    async def on_thread_stop(self) -> None:
        if self._consumer is not None:
            leave_at_stop(self._consumer)
        await super().on_thread_stop()

    async def _fetch_records(self, consumer: AIOKafkaConsumer, active_partitions: set[Any], **limits: Any) -> Any:
        try:
            return await super()._fetch_records(consumer, active_partitions, **limits)
        except NOT_ABOUT_BATCHES:
            raise
        except Exception as error:  # codecs raise classes of their own
            if not await self._pass_over(consumer, active_partitions):
                raise KafkaError(f"a fetch failed: {error!r}") from error
            return {}

    async def _pass_over(self, consumer: AIOKafkaConsumer, active_partitions: set[Any]) -> bool:
        """Continue behind the batches that cannot be read; whether there was one."""
        bootstrap, security = self.transport.kafka
        passed = False
        for topic, number in active_partitions & consumer.assignment():
            place = TopicPartition(topic, number)
            batch = await probe(bootstrap, security, place, await consumer.position(place))
            if batch is not None:
                log.warning("%s: passed over offsets %d to %d", batch.name, batch.first, batch.next - 1)
                consumer.seek(place, batch.next)
                passed = True
        return passed


class ReadableConsumer(Consumer):  # type: ignore[misc]  # Faust has no types
    """A consumer with that thread."""

    def _new_consumer_thread(self) -> ReadableConsumerThread:
        return ReadableConsumerThread(self, loop=self.loop, beacon=self.beacon)


ReadableTransport.Consumer = ReadableConsumer
