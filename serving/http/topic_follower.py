"""Topics that every API process reads in full: without a consumer group, from the beginning or from the end."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from serving import metrics
from serving.messages import FETCH_BYTES
from serving.skipped_records import SkippedRecords
from stream.admin import describe
from stream.batch_probe import UnreadableBatch, stop_message
from stream.client import READ_COMMITTED, aiokafka_config
from stream.errors import BrokerError
from stream.partition_guard import PartitionGuard

RETRY_S: Final = 0.5
RETRY_STOPPED_S: Final = 4.0
BATCH_RECORDS: Final = 1_000

MessageHandler = Callable[[bytes | None, bytes | None], None]
"""Called with the key and the value of each message."""

log = logging.getLogger("coldstream.api")


class TopicFollower:
    """Passes every message of some topics to their handlers, in order, and resumes after an outage of the broker.

    `on_progress` is called with each partition (`items/0`) and the last offset that was handled. A batch that cannot be
    read stops its partition until it can be read or an operator skips it. A follower from the end passes over it: what
    it reads is of this moment only.
    """

    def __init__(
        self,
        bootstrap: str,
        security: dict[str, str],
        handlers: Mapping[str, MessageHandler],
        *,
        from_start: bool,
        on_progress: Callable[[str, int], None] | None = None,
    ) -> None:
        self._kafka = (bootstrap, security)
        self._config = aiokafka_config(bootstrap, security)
        self._handlers = handlers
        self._from_start = from_start
        self._on_progress = on_progress
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._guard: PartitionGuard | None = None
        self._retried_at = 0.0
        self._skipped = SkippedRecords(log)
        self.caught_up = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            consumer = AIOKafkaConsumer(
                **self._config,
                **READ_COMMITTED,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=FETCH_BYTES,
                fetch_max_wait_ms=200,
            )
            try:
                await consumer.start()
                await self._assign(consumer)
                self._consumer = consumer
                self._guard = PartitionGuard(consumer, *self._kafka, self._positions)
                await self._follow(consumer, self._guard)
            except (KafkaError, BrokerError) as error:
                log.warning("%s: %s: %s; retrying", ", ".join(self._handlers), type(error).__name__, error)
            finally:
                self._consumer = None
                await consumer.stop()
            await asyncio.sleep(RETRY_S)

    @property
    def stopped(self) -> list[UnreadableBatch]:
        """The batches at which partitions wait."""
        return list(self._guard.stopped.values()) if self._guard is not None else []

    def problems(self) -> dict[str, str]:
        """Why partitions wait, with the cure, by topic."""
        return {batch.topic: stop_message(batch) for batch in self.stopped}

    async def broker_answers(self, timeout_s: float) -> bool:
        """Whether the broker answers a request now. Also true for a broker that lost its log."""
        consumer = self._consumer
        if consumer is None:
            return False
        try:
            await asyncio.wait_for(consumer.end_offsets(list(self._positions)), timeout_s)
        except (KafkaError, TimeoutError):
            return False
        return True

    async def _assign(self, consumer: AIOKafkaConsumer) -> None:
        """Assign all partitions once the topics exist; resume at known positions that the log still has."""
        while not set(self._handlers) <= set(existing := await asyncio.to_thread(describe, *self._kafka)):
            await asyncio.sleep(RETRY_S)
        partitions = [
            TopicPartition(topic, number) for topic in self._handlers for number in range(existing[topic].partitions)
        ]
        consumer.assign(partitions)
        beginnings = await consumer.beginning_offsets(partitions)
        self._ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            first, end = beginnings[partition], self._ends[partition]
            position = self._positions.get(partition, first if self._from_start else end)
            self._positions[partition] = min(max(position, first), end)
            consumer.seek(partition, self._positions[partition])

    async def _follow(self, consumer: AIOKafkaConsumer, guard: PartitionGuard) -> None:
        while True:
            if not self.caught_up.is_set():
                await self._check_caught_up(consumer)
            fetched = await guard.fetch(100 if not self.caught_up.is_set() else 1_000, BATCH_RECORDS)
            for partition, records in fetched.items():
                self._handle(partition, records)
            await self._retry_stopped(guard)
            await asyncio.sleep(0)  # a long topic must not keep requests waiting

    async def _check_caught_up(self, consumer: AIOKafkaConsumer) -> None:
        """Compare positions, not messages: a compacted topic may end in offsets that no longer exist."""
        stopped = {(batch.topic, batch.partition) for batch in self.stopped}
        for partition in self._positions.keys() - stopped:
            self._positions[partition] = await consumer.position(partition)
        if all(self._positions[partition] >= self._ends[partition] for partition in self._positions.keys() - stopped):
            self.caught_up.set()

    async def _retry_stopped(self, guard: PartitionGuard) -> None:
        """Continue behind batches that can be read by now, or were skipped."""
        for partition in self._positions:
            name = f"{partition.topic}/{partition.partition}"
            metrics.partition_stopped.labels(name).set(partition in guard.stopped)
        if not guard.stopped:
            return
        if not self._from_start:
            guard.pass_over()
        elif time.monotonic() - self._retried_at >= RETRY_STOPPED_S:
            self._retried_at = time.monotonic()
            await guard.retry()

    def _handle(self, partition: TopicPartition, records: list[ConsumerRecord]) -> None:
        handler = self._handlers[partition.topic]
        for record in records:
            try:
                handler(record.key, record.value)
            except Exception as error:  # one odd record must not keep the others from their handler
                self._skipped.skip(record.topic, record.partition, record.offset, error)
        self._positions[partition] = records[-1].offset + 1
        if self._on_progress is not None:
            self._on_progress(f"{partition.topic}/{partition.partition}", records[-1].offset)
