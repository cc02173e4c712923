"""Records into Kafka with aiokafka: acknowledged by every in-sync replica, in order, never twice by a retry.

One request at a time is under way to a broker, and an unacknowledged batch is sent again with the same sequence numbers
until it is in: so neither a retry nor a broker that comes back can reorder a user's events or count one twice.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream import topics
from stream.client import aiokafka_config
from stream.errors import BrokerError, StreamError
from stream.events import Item, Record, User, encode, key_of
from stream.headers import Header
from stream.record_batches import Message, Partitioner, send_batches

MAX_MESSAGE_BYTES: Final = 1_000_000
"""Key and value of one message: stock brokers take 1 MiB with everything around it."""
MAX_REQUEST_BYTES: Final = 8 * 1024 * 1024
BATCH_BYTES: Final = 256 * 1024
STOP_WITHIN_S: Final = 10.0

PlacedMessage = tuple[int, bytes | None, bytes | None, Sequence[Header]]
"""Partition, key, value and headers."""

log = logging.getLogger(__name__)


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
    """An idempotent producer with acks=all; `start` before use, `stop` sends what is still waiting.

    `acknowledged_within_s` bounds every send. `linger_ms` of 0 sends at once: while one request is under way the next
    batch gathers anyway, so waiting buys nothing.
    """

    def __init__(
        self,
        bootstrap: str,
        security: Mapping[str, str] | None = None,
        *,
        linger_ms: int = 0,
        batch_bytes: int = BATCH_BYTES,
        acknowledged_within_s: float = 15.0,
    ) -> None:
        self._config = aiokafka_config(bootstrap, security)
        self._linger_ms = linger_ms
        self._batch_bytes = batch_bytes
        self._within_s = acknowledged_within_s
        self._partitioner = Partitioner()
        self._client: AIOKafkaProducer | None = None
        self._started = False
        self._renewing = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: the cluster does not answer in time.
        """
        self._client = await self._connected()
        self._started = True

    async def stop(self) -> None:
        """Send what waits, for at most ten seconds, then disconnect."""
        client, self._client, self._started = self._client, None, False
        if client is not None:
            await _close(client, STOP_WITHIN_S)
        await asyncio.gather(*self._closing)

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has, as this client last heard; 0 where it does not know."""
        try:
            return len(await self._client.partitions_for(topic)) if self._client is not None else 0
        except KafkaError:
            return 0

    async def send(self, record: Record) -> Position:
        """Send one record; returns after the acknowledgement.

        Raises:
            BrokerError: not acknowledged in time. The record may or may not be in the log: send it again, with the
                same event id.
            StreamError: the message is too large for the log.
        """
        return (await self.send_raw([(topic_of(record), key_of(record), encode(record))]))[0]

    async def send_many(self, records: Sequence[Record]) -> list[Position]:
        """Send records in their order; returns after every acknowledgement. Raises like `send`."""
        return await self.send_raw([(topic_of(record), key_of(record), encode(record)) for record in records])

    async def send_to(self, topic: str, messages: Sequence[PlacedMessage]) -> list[Position]:
        """Send messages to the partitions that they name, in their order; returns after every acknowledgement.

        Raises:
            BrokerError: not acknowledged in time; some may be in the log. Send all again, in the same order.
        """
        async with self._acknowledged() as client:
            partitions_of_messages = {partition for partition, _, _, _ in messages}
            if not partitions_of_messages <= await client.partitions_for(topic):  # added a moment ago
                await client.client.force_metadata_update()
            if unknown := partitions_of_messages - await client.partitions_for(topic):
                raise BrokerError(f"the broker does not know partition {min(unknown)} of {topic} yet; send again")
            sent = [
                await client.send(topic, value, key, partition=partition, headers=headers)
                for partition, key, value, headers in messages
            ]
            acknowledged = await asyncio.gather(*sent)
        return [Position(metadata.partition, metadata.offset) for metadata in acknowledged]

    async def send_raw(self, messages: Sequence[Message]) -> list[Position]:
        """Send (topic, key, value) messages; a value of None is a tombstone. Raises like `send`."""
        for topic, key, value in messages:
            if len(key or b"") + len(value or b"") > MAX_MESSAGE_BYTES:
                raise StreamError(
                    f"a message of {len(value or b'')} bytes for topic {topic} is too large; "
                    f"at most {MAX_MESSAGE_BYTES} bytes fit"
                )
        async with self._acknowledged() as client:
            if len(messages) == 1:  # shares a batch with the single messages of other tasks
                topic, key, value = messages[0]
                metadata = await (await client.send(topic, value, key))
                places = [(metadata.partition, metadata.offset)]
            else:
                places = await send_batches(client, messages, self._partitioner)
        if any(offset < 0 for _, offset in places):
            raise BrokerError("the broker has the messages, but no longer knows where; send again, with the same ids")
        return [Position(partition, offset) for partition, offset in places]

    @asynccontextmanager
    async def _acknowledged(self) -> AsyncIterator[AIOKafkaProducer]:
        """The client that works; what goes wrong with it in time or in Kafka becomes a `BrokerError`."""
        client = await self._working()
        try:
            async with asyncio.timeout(self._within_s):
                yield client
        except TimeoutError:
            raise BrokerError(
                f"the broker did not acknowledge within {self._within_s:g} s; "
                "check that it runs, and send again, with the same event ids"
            ) from None
        except KafkaError as error:
            if not error.retriable:
                self._give_up(client)
            raise BrokerError(
                f"the broker did not acknowledge: {type(error).__name__}: {error}; send again, with the same event ids"
            ) from error

    async def _working(self) -> AIOKafkaProducer:
        if not self._started:
            raise BrokerError("the producer is not started; call start() first")
        async with self._renewing:
            if self._client is None:
                self._client = await self._connected()
            return self._client

    def _give_up(self, client: AIOKafkaProducer) -> None:
        # A batch that was refused for good has used up its sequence numbers: the broker would call every later one of
        # this client out of order. So the next send connects anew, and this one finishes what others wait for.
        if client is self._client:
            log.warning("the broker refused a batch for good; the next one goes over a new connection")
            self._client = None
            closing = asyncio.create_task(_close(client, STOP_WITHIN_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _connected(self) -> AIOKafkaProducer:
        client = AIOKafkaProducer(
            **self._config,
            acks="all",
            enable_idempotence=True,
            linger_ms=self._linger_ms,
            max_batch_size=self._batch_bytes,
            max_request_size=MAX_REQUEST_BYTES,
            request_timeout_ms=int(self._within_s * 1000),
        )
        try:
            async with asyncio.timeout(self._within_s):
                await client.start()
        except (KafkaError, TimeoutError, OSError) as error:
            await _close(client, 1)
            raise BrokerError(
                f"no Kafka at {self._config['bootstrap_servers']} ({type(error).__name__}: {error}); "
                "is the broker running, is the address right, and does kafka_security fit it?"
            ) from error
        return client


async def _close(client: AIOKafkaProducer, within_s: float) -> None:
    try:
        async with asyncio.timeout(within_s):
            await client.stop()
    except TimeoutError:
        # aiokafka tries idempotent batches again for ever, and stop() waits for them: end its sender by hand.
        log.warning("closing the Kafka producer with messages that the broker has not acknowledged")
        sender = client._sender.sender_task
        if sender is not None:
            sender.cancel()
        await client.client.close()
