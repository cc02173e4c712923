"""A producer and a consumer that keep their messages in memory, and the order of what was called."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import ConsumerRecord

from stream.events import Event, encode


class MemoryProducer:
    """Appends (topic, partition, key, value) to `messages` and the topic to `calls`; `failing` topics refuse."""

    def __init__(self, calls: list[str] | None = None) -> None:
        self.messages: list[tuple[str, int | None, bytes | None, bytes]] = []
        self.calls = calls if calls is not None else []
        self.failing: set[str] = set()

    async def send_and_wait(
        self, topic: str, value: bytes, key: bytes | None = None, partition: int | None = None
    ) -> None:
        if topic in self.failing:
            raise KafkaConnectionError(f"{topic} refuses")
        self.calls.append(topic)
        self.messages.append((topic, partition, key, value))

    async def send(
        self, topic: str, value: bytes, key: bytes | None = None, partition: int | None = None
    ) -> asyncio.Future[None]:
        await self.send_and_wait(topic, value, key, partition)
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged

    async def partitions_for(self, _topic: str) -> set[int]:
        """Every topic has four partitions."""
        return {0, 1, 2, 3}

    def values(self, topic: str) -> list[bytes]:
        return [value for name, _, _, value in self.messages if name == topic]


class MemoryConsumer:
    """Returns `fetched` once; records seeks, commits and, in `calls`, that it committed."""

    def __init__(self, calls: list[str] | None = None) -> None:
        self.calls = calls if calls is not None else []
        self.fetched: dict[TopicPartition, list[ConsumerRecord]] = {}
        self.owned: set[TopicPartition] = set()
        self.offsets: dict[TopicPartition, int] = {}
        self.seeks: list[tuple[TopicPartition, int]] = []
        self.commits: list[dict[TopicPartition, int]] = []

    async def getmany(self, **_limits: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        fetched, self.fetched = self.fetched, {}
        return fetched

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.calls.append("commit")
        self.commits.append(dict(offsets))

    async def committed(self, partition: TopicPartition) -> int | None:
        return self.offsets.get(partition)

    async def position(self, _partition: TopicPartition) -> int:
        """Nothing but what was returned stands in this log."""
        return 0

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 100)

    def assignment(self) -> set[TopicPartition]:
        return self.owned

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.seeks.append((partition, offset))

    def highwater(self, _partition: TopicPartition) -> int | None:
        return None


def record(partition: int, offset: int, event: Event | bytes, key: str | None = None, at: int = 0) -> ConsumerRecord:
    """A message of the topic `events`, keyed by the event's user where no key is given."""
    value = event if isinstance(event, bytes) else encode(event)
    name = key if key is not None else getattr(event, "user_id", "")
    timestamp = at or getattr(event, "at", 0)
    fields: dict[str, Any] = {"checksum": None, "serialized_key_size": 0, "serialized_value_size": 0, "headers": ()}
    return ConsumerRecord("events", partition, offset, timestamp, 0, name.encode(), value, **fields)
