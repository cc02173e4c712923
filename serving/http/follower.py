"""Topics that every API process hears in full: read without a group, from the beginning or from the end."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import ConsumerRecord

from serving.messages import FETCH_BYTES
from stream.admin import describe
from stream.client import aiokafka_config
from stream.errors import BrokerError

RETRY_S: Final = 0.5
BATCH: Final = 1_000

Take = Callable[[bytes | None, bytes | None], None]
"""Called with the key and the value of each message."""

log = logging.getLogger("coldstream.api")


class Follower:
    """Hands every message of some topics on, in order, and goes on where it was when the broker has been away.

    `takes` maps a topic to what takes its messages; `after` is called with each partition (`items/0`) and the last
    offset that was taken from it.
    """

    def __init__(
        self,
        bootstrap: str,
        security: dict[str, str],
        takes: Mapping[str, Take],
        *,
        from_start: bool,
        after: Callable[[str, int], None] | None = None,
    ) -> None:
        self._where = (bootstrap, security)
        self._config = aiokafka_config(bootstrap, security)
        self._takes = takes
        self._from_start = from_start
        self._after = after
        self._next: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self.caught_up = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            consumer = AIOKafkaConsumer(
                **self._config,
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
                await self._follow(consumer)
            except (KafkaError, BrokerError) as error:
                log.warning("%s: %s: %s; trying again", ", ".join(self._takes), type(error).__name__, error)
            finally:
                self._consumer = None
                await consumer.stop()
            await asyncio.sleep(RETRY_S)

    async def answers(self, within_s: float) -> bool:
        """Whether the broker answers a question now. Also true for a broker that lost its log."""
        consumer = self._consumer
        if consumer is None:
            return False
        try:
            await asyncio.wait_for(consumer.end_offsets(list(self._next)), within_s)
        except (KafkaError, TimeoutError):
            return False
        return True

    async def _assign(self, consumer: AIOKafkaConsumer) -> None:
        while not set(self._takes) <= set(found := await asyncio.to_thread(describe, *self._where)):
            await asyncio.sleep(RETRY_S)
        places = [TopicPartition(topic, one) for topic in self._takes for one in range(found[topic].partitions)]
        consumer.assign(places)
        first = await consumer.beginning_offsets(places)
        self._ends = await consumer.end_offsets(places)
        for place in places:
            known = self._next.get(place, first[place] if self._from_start else self._ends[place])
            self._next[place] = min(max(known, first[place]), self._ends[place])
            consumer.seek(place, self._next[place])

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            if not self.caught_up.is_set():
                await self._compare(consumer)
            fetched = await consumer.getmany(
                timeout_ms=100 if not self.caught_up.is_set() else 1_000, max_records=BATCH
            )
            for place, records in fetched.items():
                self._hand_on(place, records)
            await asyncio.sleep(0)  # a long topic must not keep requests waiting

    async def _compare(self, consumer: AIOKafkaConsumer) -> None:
        """Compare positions, not messages: a compacted topic may end in offsets that no longer exist."""
        for place in self._next:
            self._next[place] = await consumer.position(place)
        if all(position >= self._ends[place] for place, position in self._next.items()):
            self.caught_up.set()

    def _hand_on(self, place: TopicPartition, records: list[ConsumerRecord]) -> None:
        take = self._takes[place.topic]
        for one in records:
            take(one.key, one.value)
        self._next[place] = records[-1].offset + 1
        if self._after is not None:
            self._after(f"{place.topic}/{place.partition}", records[-1].offset)
