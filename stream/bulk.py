"""A producer for millions of messages: whole record batches, acknowledged while the next ones are made."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream.client import aiokafka_config
from stream.errors import BrokerError
from stream.headers import Header
from stream.record_batches import Partitioner, RecordBatches

BATCH_BYTES: Final = 1024 * 1024
REQUEST_BYTES: Final = 8 * 1024 * 1024
ACKNOWLEDGED_WITHIN_MS: Final = 60_000
REMEMBERED_KEYS: Final = 1_000_000


class BulkProducer:
    """Idempotent, acks=all. `start` before use; `stop` sends what is still waiting."""

    def __init__(self, bootstrap: str, security: Mapping[str, str] | None = None) -> None:
        self._bootstrap = bootstrap
        self._config = aiokafka_config(bootstrap, security)
        self._client: Any = None
        self._partitions: dict[str, int] = {}
        self._partitioner = Partitioner(REMEMBERED_KEYS)

    async def start(self) -> None:
        """Connect.

        Raises:
            BrokerError: the cluster does not answer.
        """
        client = AIOKafkaProducer(
            **self._config,
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            max_request_size=REQUEST_BYTES,
            request_timeout_ms=ACKNOWLEDGED_WITHIN_MS,
        )
        try:
            await client.start()
        except KafkaError as error:
            await client.stop()
            raise BrokerError(
                f"no Kafka at {self._bootstrap} ({type(error).__name__}: {error}); is the system running?"
            ) from error
        self._client = client

    async def stop(self) -> None:
        """Send what waits, then disconnect."""
        client, self._client = self._client, None
        if client is not None:
            await client.stop()

    async def send(
        self, topic: str, messages: Sequence[tuple[bytes, bytes]], headers: Sequence[Header] = ()
    ) -> Awaitable[None]:
        """Hand over (key, value) messages, in their order within each key; await the result for the acknowledgement.

        `headers` go with every message.

        Raises:
            BrokerError: the topic does not exist, or the broker does not accept the messages in time.
        """
        partitions = await self._partitions_of(topic)
        batches, partition_of = RecordBatches(self._client, headers), self._partitioner.partition_of
        for key, value in messages:
            batches.add(topic, partition_of(key, partitions), key, value)
        try:
            queued = await batches.hand_over()
        except KafkaError as error:
            raise _refused(error) from error
        return _acknowledged([future for futures in queued.values() for future in futures])

    async def _partitions_of(self, topic: str) -> int:
        if topic not in self._partitions:
            try:
                partitions = await self._client.partitions_for(topic)
            except KafkaError as error:
                raise _refused(error) from error
            if not partitions:
                raise BrokerError(f"topic {topic} does not exist at {self._bootstrap}; `coldstream up` creates it")
            self._partitions[topic] = len(partitions)
        return self._partitions[topic]


async def _acknowledged(futures: list[Awaitable[Any]]) -> None:
    try:
        await asyncio.gather(*futures)
    except KafkaError as error:
        raise _refused(error) from error


def _refused(error: KafkaError) -> BrokerError:
    return BrokerError(
        f"the broker did not acknowledge: {type(error).__name__}: {error}; run the command again, it resumes"
    )
