"""The path of deletions: each message of the topic `forget` is sent to the user's events and updates, then committed.

There the writers of the user's rows apply it, in its place: whichever consumer that is, and after whatever it has read.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import ConsumerRecord
from mode import Service

from features.store import OnlineStore
from serving.consume.events import OTHER_LOG_S, EventProcessor, disconnect
from serving.consume.membership import leave_at_stop
from serving.consume.partition_reader import PartitionReader
from serving.errors import MessageError
from serving.messages import KafkaMessage, UserDeletion, decode_forget, encode_deletion
from serving.skipped_records import SkippedRecords
from stream import topics
from stream.client import READ_COMMITTED, aiokafka_config
from stream.errors import BrokerError
from stream.partition_guard import PartitionGuard
from stream.producer import Producer

GROUP: Final = "coldstream-forget"
BATCH: Final = 100
FETCH_MS: Final = 500
RETRY_S: Final = 0.5

log = logging.getLogger("coldstream.consumer")


class ForgetProcessor(PartitionReader):
    """The Service of the Faust app that sends deletions to `events` and `users`."""

    def __init__(self, store: OnlineStore, events: EventProcessor, **kwargs: Any) -> None:
        super().__init__(store, **kwargs)
        self.events = events
        self.producer = Producer(events.options.bootstrap, events.options.security)
        self._skipped = SkippedRecords(log)

    async def on_start(self) -> None:
        options = self.events.options
        self.consumer = AIOKafkaConsumer(
            **aiokafka_config(options.bootstrap, options.security),
            group_id=GROUP,
            group_instance_id=self.instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **READ_COMMITTED,
            session_timeout_ms=options.session_timeout_ms,
            max_poll_interval_ms=600_000,
        )
        self.guard = PartitionGuard(self.consumer, options.bootstrap, options.security, self.next_offsets)
        await self.producer.start()
        await self.join([topics.FORGET])

    async def on_stop(self) -> None:
        leave_at_stop(self.consumer)
        if not await disconnect([self.consumer, self.producer], self.events.disconnect_timeout_s):
            log.warning("stopped without leaving the consumer group of deletions: Kafka does not respond")

    @Service.task  # type: ignore[untyped-decorator]  # mode and Faust have no types
    async def run(self) -> None:
        while not self.should_stop:
            await self.try_step(self._step, "deletions", KafkaError, BrokerError, retry_s=RETRY_S)

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        async with self.busy:
            for partition in assigned:
                self.next_offsets[partition] = await self.consumer.committed(partition) or 0
                self.consumer.seek(partition, self.next_offsets[partition])

    async def _step(self) -> None:
        if self.events.log_guard.problem:
            await self.sleep(OTHER_LOG_S)
            return
        fetched = await self.guard.fetch(FETCH_MS, BATCH)
        async with self.busy:
            owned = {partition: records for partition, records in fetched.items() if partition in self.next_offsets}
            async with self.seeking_back(owned):
                for partition, records in owned.items():
                    await self._apply(partition, records)

    async def _apply(self, partition: TopicPartition, records: list[ConsumerRecord]) -> None:
        deletions: list[KafkaMessage] = []
        for record in records:
            try:
                message = decode_forget(record.value)
            except MessageError as error:
                self._skipped.skip(record.topic, record.partition, record.offset, error)
            else:
                deletions += encode_deletion(UserDeletion(message.user_id, message.at, self._origin(record)))
        if deletions:
            await self.producer.send_raw(deletions)
        self.next_offsets[partition] = records[-1].offset + 1
        try:
            await self.consumer.commit({partition: self.next_offsets[partition]})
        except (CommitFailedError, IllegalStateError) as error:
            log.info("not committed (%s): these deletions will be sent again and change nothing", error)

    def _origin(self, record: ConsumerRecord) -> tuple[str, int]:
        """Where a message stands. Another epoch is another partition: its offsets begin again."""
        epoch = self.events.log_guard.epochs.number
        return f"{record.topic}/{record.partition}" + (f" of epoch {epoch}" if epoch else ""), record.offset
