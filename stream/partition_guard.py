"""Fetches in which a batch that cannot be read stops its own partition only.

aiokafka raises for the whole fetch: it drops the records of other partitions that it had already taken out, and those
before the bad batch, and continues after them. So after an error every partition is set to its reader's position, a
probe finds the bad batch, and its partition waits there until the batch can be read or an operator skips it.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import ConsumerRecord

from stream import skips
from stream.batch_probe import UnreadableBatch, probe, stop_message

DRAIN_MS: Final = 500
NOT_ABOUT_BATCHES: Final = (IllegalStateError, ConsumerStoppedError, NoOffsetForPartitionError, OffsetOutOfRangeError)

Fetched = dict[TopicPartition, list[ConsumerRecord]]

log = logging.getLogger("coldstream.kafka")


class PartitionGuard:
    """Fetches for a consumer. `positions` holds its reader's next offset of each partition; the reader keeps it so.

    `stopped` holds the batch at which each stopped partition waits.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        bootstrap: str,
        security: Mapping[str, str] | None,
        positions: dict[TopicPartition, int],
    ) -> None:
        self._consumer = consumer
        self._kafka = (bootstrap, security)
        self._positions = positions
        self.stopped: dict[TopicPartition, UnreadableBatch] = {}

    async def fetch(self, timeout_ms: int, max_records: int) -> Fetched:
        """What arrives within `timeout_ms`. A batch that cannot be read stops its partition; others are not affected.

        Raises:
            KafkaError: the fetch failed for another reason than a batch.
        """
        try:
            fetched: Fetched = await self._consumer.getmany(timeout_ms=timeout_ms, max_records=max_records)
        except NOT_ABOUT_BATCHES:
            self.seek_back()
            raise
        except Exception as error:  # codecs raise classes of their own
            self.seek_back()
            before, isolated = await self._isolate()
            if not isolated:
                raise KafkaError(f"a fetch failed: {error!r}") from error
            return before
        return fetched

    def seek_back(self) -> None:
        """Go back to the reader's positions, and drop what was fetched behind them."""
        for partition in self._consumer.assignment() & self._positions.keys():
            self._consumer.seek(partition, self._positions[partition])

    async def retry(self) -> bool:
        """Resume the stopped partitions whose batch can be read by now or was skipped; True if there was one."""
        if not self.stopped:
            return False
        known = await asyncio.to_thread(skips.read, *self._kafka)
        resumed = False
        for partition, batch in list(self.stopped.items()):
            at = max(self._positions[partition], batch.first)
            skip = skips.covering(known, batch.name, at)
            if skip is not None:
                log.warning("%s: skipped offsets %d to %d as ordered", batch.name, skip.first, skip.next - 1)
                self._resume(partition, skip.next)
            elif await probe(*self._kafka, partition, at) is None:
                log.info("%s: offset %d can be read again", batch.name, batch.first)
                self._resume(partition, self._positions[partition])
            else:
                continue
            resumed = True
        return resumed

    def pass_over(self) -> list[UnreadableBatch]:
        """Resume every stopped partition behind its batch, whose records are lost to this reader; the batches."""
        batches = list(self.stopped.values())
        for partition, batch in list(self.stopped.items()):
            log.warning("%s: passed over offsets %d to %d", batch.name, batch.first, batch.next - 1)
            self._resume(partition, batch.next)
        return batches

    def drop(self, partition: TopicPartition) -> None:
        """Forget a partition that is no longer assigned."""
        self.stopped.pop(partition, None)

    async def _isolate(self) -> tuple[Fetched, bool]:
        """Stop every partition whose next batches cannot be read; the records before them."""
        fetched: Fetched = {}
        isolated = False
        for partition in sorted(self._consumer.assignment() & self._positions.keys() - self.stopped.keys()):
            batch = await probe(*self._kafka, partition, self._positions[partition])
            if batch is None:
                continue
            isolated = True
            before = await self._records_before(partition, batch.first)
            if before:
                fetched[partition] = before
            self._consumer.pause(partition)
            self.stopped[partition] = batch
            log.error("%s", stop_message(batch))
        return fetched, isolated

    async def _records_before(self, partition: TopicPartition, end: int) -> list[ConsumerRecord]:
        """The records before the offset `end`, fetched one by one so that the batch there is not touched."""
        records: list[ConsumerRecord] = []
        while await self._consumer.position(partition) < end:
            try:
                more = await self._consumer.getmany(partition, timeout_ms=DRAIN_MS, max_records=1)
            except Exception:  # only transaction markers stand between
                break
            if not more:
                break
            records += more[partition]
        self._consumer.seek(partition, records[-1].offset + 1 if records else self._positions[partition])
        return records

    def _resume(self, partition: TopicPartition, offset: int) -> None:
        del self.stopped[partition]
        self._positions[partition] = offset
        self._consumer.seek(partition, offset)
        self._consumer.resume(partition)
