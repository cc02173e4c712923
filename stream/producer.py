"""Records into Kafka with aiokafka: acknowledged by every in-sync replica, in order, never twice by a retry."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream import topics
from stream.client import aiokafka_config
from stream.errors import BrokerError
from stream.events import Item, Record, User, encode, key_of

ACKNOWLEDGED_WITHIN_MS: Final = 30_000


class Position(msgspec.Struct, frozen=True):
    """Where a record stands in its topic."""

    partition: int
    offset: int

    def token(self) -> str:
        """`partition:offset`, what a look-up takes as `after`."""
        return f"{self.partition}:{self.offset}"


def topic_of(record: Record) -> str:
    """The topic that carries a kind of record."""
    if isinstance(record, Item):
        return topics.ITEMS
    return topics.USERS if isinstance(record, User) else topics.EVENTS


class Producer:
    """An idempotent producer with acks=all; `start` before use, `stop` sends what is still waiting."""

    def __init__(
        self,
        bootstrap: str,
        security: Mapping[str, str] | None = None,
        *,
        linger_ms: int = 0,
        batch_bytes: int = 262_144,
    ) -> None:
        self._config = aiokafka_config(bootstrap, security)
        self._linger_ms = linger_ms
        self._batch_bytes = batch_bytes
        self._client: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: the cluster does not answer.
        """
        client = AIOKafkaProducer(
            **self._config,
            acks="all",
            enable_idempotence=True,
            linger_ms=self._linger_ms,
            max_batch_size=self._batch_bytes,
            max_request_size=8 * 1024 * 1024,
            request_timeout_ms=ACKNOWLEDGED_WITHIN_MS,
        )
        try:
            await client.start()
        except KafkaError as error:
            await client.stop()
            raise BrokerError(f"no Kafka at {self._config['bootstrap_servers']}: {error}") from error
        self._client = client

    async def stop(self) -> None:
        """Send what waits, then disconnect."""
        client, self._client = self._client, None
        if client is not None:
            await client.stop()

    async def send(self, record: Record) -> Position:
        """Send one record; returns after the acknowledgement.

        Raises:
            BrokerError: not acknowledged in time. The record may or may not be in the log: send it again, with the
                same event id.
        """
        return (await self.send_raw([(topic_of(record), key_of(record), encode(record))]))[0]

    async def send_many(self, records: Sequence[Record]) -> list[Position]:
        """Send records in their order; returns after every acknowledgement. Raises like `send`."""
        return await self.send_raw([(topic_of(record), key_of(record), encode(record)) for record in records])

    async def send_raw(self, messages: Sequence[tuple[str, bytes | None, bytes | None]]) -> list[Position]:
        """Send (topic, key, value) messages; a value of None is a tombstone. Raises like `send`."""
        if self._client is None:
            raise BrokerError("the producer is not started")
        try:
            waiting = [await self._client.send(topic, value, key) for topic, key, value in messages]
            done = await asyncio.gather(*waiting)
        except KafkaError as error:
            raise BrokerError(f"the broker did not acknowledge: {type(error).__name__}: {error}; send again") from error
        return [Position(one.partition, one.offset) for one in done]
