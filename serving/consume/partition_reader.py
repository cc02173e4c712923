"""What the readers of events and of catalogue updates share: positions, stopped partitions, and batches that fail."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.structs import ConsumerRecord
from mode import Service

from features.errors import StoreError
from features.store import OnlineStore
from serving import metrics
from serving.consume.log_guard import LogGuard
from serving.consume.membership import follow_instance
from serving.store_health import StoreHealth
from stream import dead_letters
from stream.batch_probe import UnreadableBatch
from stream.errors import BrokerError, EventError
from stream.partition_guard import PartitionGuard

RETRY_S: Final = 0.25
T = TypeVar("T")

log = logging.getLogger("coldstream.consumer")


class PartitionReader(Service, ConsumerRebalanceListener):  # type: ignore[misc]  # mode has no types
    """A Service that applies the records of its partitions to the store.

    `next_offsets` holds the next offset to apply of each assigned partition; `busy` is held while they change.
    Subclasses set `consumer` and `guard` when they start.
    """

    consumer: AIOKafkaConsumer
    guard: PartitionGuard
    log_guard: LogGuard
    store_thread: ThreadPoolExecutor
    store_health: StoreHealth
    instance: str | None = None
    """The name in the consumer groups; None: a name that the broker gives."""

    def __init__(self, store: OnlineStore, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.store = store
        self.next_offsets: dict[TopicPartition, int] = {}
        self.busy = asyncio.Lock()
        self.fenced = asyncio.Event()
        self._domains = frozenset(store.domains)

    async def join(self, topics: Sequence[str]) -> None:
        """Connect `consumer`, and read topics with the group."""
        await self.consumer.start()
        if self.instance is not None:
            follow_instance(self.consumer, self.fenced.set)
        self.consumer.subscribe(topics, listener=self)

    @property
    def stopped(self) -> dict[TopicPartition, UnreadableBatch]:
        """The assigned partitions that wait at a batch that cannot be read."""
        return self.guard.stopped

    async def retry_stopped(self) -> None:
        """Resume stopped partitions whose batch can be read by now, or was skipped."""
        async with self.busy:
            await self.guard.retry()

    async def try_step(
        self, step: Callable[[], Awaitable[None]], redelivered: str, *transient: type[Exception], retry_s: float
    ) -> None:
        """Run one step; after an error of the classes `transient`, wait `retry_s`.

        `redelivered` says what the log sends again if the step ends because the store is unavailable at a stop.

        Raises:
            StoreError: the store is unavailable, and this service is not stopping.
        """
        try:
            await step()
        except transient as error:
            log.warning("Kafka: %s: %s; retrying", type(error).__name__, error)
            await self.sleep(retry_s)
        except StoreError as error:
            if not self.should_stop:
                raise
            log.warning(
                "stopped while the online store is unavailable (%s); %s will be redelivered", error, redelivered
            )

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        async with self.busy:
            for partition in revoked:
                self.drop_partition(partition)

    def drop_partition(self, partition: TopicPartition) -> None:
        """Forget a revoked partition, and its metrics."""
        self.next_offsets.pop(partition, None)
        self.guard.drop(partition)
        for gauge in (metrics.consumer_lag, metrics.partition_stopped):
            gauge.remove(partition_name(partition))

    async def has_other_log(self, fetched: Mapping[TopicPartition, list[ConsumerRecord]]) -> bool:
        """Whether the log is not the one that the store's rows are of: what was fetched must not be applied then."""
        if any(records[0].offset < self.next_offsets[partition] for partition, records in fetched.items()):
            await self.recheck_log([partition_name(partition) for partition in fetched])
        return bool(self.log_guard.problem)

    async def recheck_log(self, names: Sequence[str]) -> None:
        """Compare the log with the store's marks of partitions. Waits for Kafka and the store."""
        marks = await self.call_store(partial(self.store.read_log_marks, names), "read")
        while True:
            try:
                await asyncio.to_thread(self.log_guard.recheck, marks)
            except BrokerError as error:
                log.warning("the log cannot be checked (%s); retrying", error)
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def call_store(self, call: Callable[[], T], operation: str) -> T:
        """Run `call` in the store's thread; retry while the store is unavailable: nothing is lost, the lag grows."""
        waiting = False
        while True:
            try:
                result = await asyncio.get_running_loop().run_in_executor(self.store_thread, call)
            except StoreError as error:
                self.store_health.count_error(error, operation)
                if not waiting:
                    log.warning("%s; retrying until it does", error)
                waiting = True
                if self.should_stop:
                    raise
                await asyncio.sleep(RETRY_S)
            else:
                self.store_health.count_calls()
                if waiting:
                    log.info("the online store responds again")
                return result

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
