"""What the consumer reports about itself: lag against the broker's ends, and to the API how far each partition is.

The reports go to the topic `feature-updates`, to the partition's own number. An API process that gets none for a
partition, or one that says it stopped, is not ready: an event sent now would not be applied.
"""

import asyncio
import logging
import time
from typing import Any, Final

from aiokafka.errors import KafkaError
from mode import Service

from features.errors import StoreError
from serving import metrics
from serving.consume.events import EventProcessor
from serving.consume.membership import rejoin
from serving.consume.partition_reader import PartitionReader, partition_name
from serving.messages import FeatureUpdate, encode
from stream import topics
from stream.batch_probe import stop_message
from stream.errors import BrokerError
from stream.log_watch import LogState, LogWatch

EVERY_S: Final = 2.0
REPORTS_PER_RETRY: Final = 2
"""Stopped partitions are tried again at every second report."""

log = logging.getLogger("coldstream.consumer")


class ConsumerHealth(Service):  # type: ignore[misc]  # mode has no types
    """Measures lag, reports positions, and tries stopped partitions again, every two seconds."""

    def __init__(self, events: EventProcessor, *others: PartitionReader, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.events = events
        self.others = others
        self.readers: list[PartitionReader] = [events, *others]
        watched = [topics.EVENTS, topics.ITEMS, topics.USERS]
        self.rows_problem = ""
        self.log_watch = LogWatch(events.options.bootstrap, events.options.security, watched)

    @Service.task  # type: ignore[untyped-decorator]  # mode and Faust have no types
    async def run(self) -> None:
        number = 0
        while not self.should_stop:
            number += 1
            try:
                offsets = self.read_offsets()
                state = await asyncio.to_thread(self.log_watch.read)
                self.events.log_guard.on_state(state, offsets)
                self.measure_lag(state)
                self.rows_problem = await asyncio.to_thread(self._check_rows)
                partitions = sum(name.startswith(f"{topics.EVENTS}/") for name in state.ends)
                if self.events.forwarder.should_rejoin(partitions):
                    rejoin(self.events.consumer)
                if number % REPORTS_PER_RETRY == 0:
                    await self._retry_stopped()
                await self.report()
            except (BrokerError, KafkaError) as error:
                log.warning("consumer lag unknown: %s", error)
            await self.sleep(EVERY_S)

    async def on_stop(self) -> None:
        await asyncio.to_thread(self.log_watch.close)

    def read_offsets(self) -> dict[str, int]:
        """The next offset of every assigned partition."""
        places = (place for reader in self.readers for place in reader.next_offsets.items())
        return {partition_name(partition): offset for partition, offset in places}

    async def _retry_stopped(self) -> None:
        for reader in self.readers:
            if reader.stopped and not self.store_problem():  # a reader that waits for the store would hold up reports
                await reader.retry_stopped()

    def store_problem(self) -> str:
        """Why the consumer cannot write features now, with the cure; empty where it can."""
        problem = self.events.store_health.problem or self.rows_problem
        metrics.store_failing.set(bool(problem))
        return problem

    def _check_rows(self) -> str:
        """Why the rows that were opened are not the present ones any more. Blocks."""
        if self.events.store_health.problem:
            return ""
        try:
            self.events.store.opened.check()
        except StoreError as error:
            return str(error)
        return ""

    def measure_lag(self, state: LogState) -> None:
        """Set the metrics of the assigned partitions."""
        self.events.ends.update(state.ends)
        for reader in self.readers:
            for partition, position in reader.next_offsets.items():
                name = partition_name(partition)
                metrics.consumer_lag.labels(name).set(max(0, state.ends.get(name, position) - position))
                metrics.partition_stopped.labels(name).set(partition in reader.stopped)

    async def report(self) -> None:
        """Tell API processes the position of every assigned partition of events, and why one stopped."""
        now, store_problem = int(time.time() * 1000), self.store_problem()
        for partition, position in list(self.events.next_offsets.items()):
            batch = self.events.stopped.get(partition)
            why = self.events.log_guard.problem or (stop_message(batch) if batch is not None else store_problem)
            name = partition_name(partition)
            through = self.events.log_guard.epochs.position(name, position) - 1
            update = FeatureUpdate(name, through, now, 0, [], why)
            await self.events.send_update(partition, update)
        for reader in self.others:
            await self._report_stops(reader, now)

    async def _report_stops(self, reader: PartitionReader, now: int) -> None:
        """Tell API processes which of a reader's partitions stopped. Positions of updates come with their records."""
        for partition in list(reader.next_offsets):
            batch = reader.stopped.get(partition)
            why = stop_message(batch) if batch is not None else ""
            topic, _, value = encode(FeatureUpdate(partition_name(partition), -1, now, 0, [], why))
            await self.events.producer.send(topic, value, partition=0)
