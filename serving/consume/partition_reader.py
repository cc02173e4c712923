"""What the readers of events and of catalogue updates share: positions, stopped partitions, and batches that fail."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.structs import ConsumerRecord
from mode import Service

from features.store import OnlineStore
from serving import metrics
from stream import dead_letters
from stream.batch_probe import UnreadableBatch
from stream.errors import EventError
from stream.partition_guard import PartitionGuard


class PartitionReader(Service, ConsumerRebalanceListener):  # type: ignore[misc]  # mode has no types
    """A Service that applies the records of its partitions to the store.

    `next_offsets` holds the next offset to apply of each assigned partition; `busy` is held while they change.
    Subclasses set `consumer` and `guard` when they start.
    """

    consumer: AIOKafkaConsumer
    guard: PartitionGuard

    def __init__(self, store: OnlineStore, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.store = store
        self.next_offsets: dict[TopicPartition, int] = {}
        self.busy = asyncio.Lock()
        self._domains = frozenset(store.domains)

    @property
    def stopped(self) -> dict[TopicPartition, UnreadableBatch]:
        """The assigned partitions that wait at a batch that cannot be read."""
        return self.guard.stopped

    async def retry_stopped(self) -> None:
        """Resume stopped partitions whose batch can be read by now, or was skipped."""
        async with self.busy:
            await self.guard.retry()

    def drop_partition(self, partition: TopicPartition) -> None:
        """Forget a revoked partition, and its metrics."""
        self.next_offsets.pop(partition, None)
        self.guard.drop(partition)
        for gauge in (metrics.consumer_lag, metrics.partition_stopped):
            gauge.remove(partition_name(partition))

    @asynccontextmanager
    async def seeking_back(self, partitions: Iterable[TopicPartition]) -> AsyncIterator[None]:
        """If the block fails, seek to where `partitions` are applied, or the next fetch would skip the batch."""
        try:
            yield
        except BaseException:
            for partition in partitions:
                if partition in self.next_offsets and partition in self.consumer.assignment():
                    self.consumer.seek(partition, self.next_offsets[partition])
            raise

    def check_domain(self, domain: str) -> None:
        """Raise EventError where the settings do not name the domain."""
        if domain not in self._domains:
            known = ", ".join(self.store.domains)
            raise EventError("unknown-domain", f"domain={domain!r} is not one of {known} (setting: domains)")


def letters_of(message: ConsumerRecord, error: EventError) -> list[bytes]:
    """Dead letters of a message that cannot be applied; counted in the metric."""
    metrics.dead_letters.labels(error.reason).inc()
    source = (message.topic, message.partition, message.offset, message.key, message.value or b"")
    return dead_letters.encode_letters(error.reason, error.detail, *source)


def partition_name(partition: TopicPartition) -> str:
    """A partition as it is written everywhere, such as `events/3`."""
    return f"{partition.topic}/{partition.partition}"
