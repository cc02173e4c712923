"""The path of deletions: the topic `forget`, whose messages empty users' rows; offsets are committed afterwards."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import ConsumerRecord
from mode import Service

from features.store import OnlineStore
from serving.consume.catalogue import CatalogueProcessor
from serving.consume.events import OTHER_LOG_S, disconnect
from serving.consume.partition_reader import PartitionReader
from serving.errors import MessageError
from serving.messages import decode_forget
from serving.skipped_records import SkippedRecords
from stream import topics
from stream.client import READ_COMMITTED, aiokafka_config
from stream.partition_guard import PartitionGuard

GROUP: Final = "coldstream-forget"
BATCH: Final = 100
FETCH_MS: Final = 500
RETRY_S: Final = 0.5

log = logging.getLogger("coldstream.consumer")


class ForgetProcessor(PartitionReader):
    """The Service of the Faust app that deletes users' features and profiles. A repeated deletion changes nothing."""

    def __init__(self, store: OnlineStore, catalogue: CatalogueProcessor, **kwargs: Any) -> None:
        super().__init__(store, **kwargs)
        self.catalogue = catalogue
        self.events = catalogue.events
        self._skipped = SkippedRecords(log)

    async def on_start(self) -> None:
        options = self.events.options
        self.consumer = AIOKafkaConsumer(
            **aiokafka_config(options.bootstrap, options.security),
            group_id=GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **READ_COMMITTED,
            session_timeout_ms=10_000,
            max_poll_interval_ms=600_000,
        )
        self.guard = PartitionGuard(self.consumer, options.bootstrap, options.security, self.next_offsets)
        await self.consumer.start()
        self.consumer.subscribe([topics.FORGET], listener=self)

    async def on_stop(self) -> None:
        if not await disconnect([self.consumer], self.events.disconnect_timeout_s):
            log.warning("stopped without leaving the consumer group of deletions: Kafka does not respond")

    @Service.task  # type: ignore[untyped-decorator]  # mode and Faust have no types
    async def run(self) -> None:
        while not self.should_stop:
            await self.try_step(self._step, "deletions", KafkaError, retry_s=RETRY_S)

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
        for record in records:
            try:
                message = decode_forget(record.value)
            except MessageError as error:
                self._skipped.skip(record.topic, record.partition, record.offset, error)
            else:
                await self.events.forget(message.user_id)
                await self.catalogue.forget(message.user_id)
                log.info("deleted the features of user %s", message.user_id)
            self.next_offsets[partition] = record.offset + 1
        try:
            await self.consumer.commit({partition: self.next_offsets[partition]})
        except (CommitFailedError, IllegalStateError) as error:
            log.info("not committed (%s): these deletions will be redelivered and change nothing", error)
