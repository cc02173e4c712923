"""Looks into the log batch by batch, to find the one that a client cannot read, and to keep its bytes.

Kafka's clients only say that a fetch failed. After a damaged checksum, an unknown codec or bytes that do not
decompress, a probe says which batch of which partition it is, where the next one begins, and why it cannot be read.
"""

import asyncio
import struct
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from stream.client import aiokafka_config
from stream.errors import BrokerError

PROBE_BYTES: Final = 16 * 1024 * 1024
WAIT_MS: Final = 500
HEADER: Final = struct.Struct(">qiibIhi")
"""Base offset, length after this field, leader epoch, magic, checksum, attributes, last offset delta."""
LENGTH_FROM: Final = 12
"""A batch's length counts from this byte on."""


class UnreadableBatch(msgspec.Struct, frozen=True):
    """A record batch that cannot be read: offsets `first` (inclusive) to `next` (exclusive), and its bytes."""

    topic: str
    partition: int
    first: int
    next: int
    reason: str
    raw: bytes

    @property
    def name(self) -> str:
        """The partition as `events/3`."""
        return f"{self.topic}/{self.partition}"


async def probe(
    bootstrap: str, security: Mapping[str, str] | None, place: TopicPartition, offset: int
) -> UnreadableBatch | None:
    """The first batch at or behind `offset` that cannot be read, of those that one fetch returns; None without one.

    Raises:
        KafkaError: the broker does not answer, or refuses the fetch.
    """
    return (await _search(bootstrap, security, place, offset))[0]


def probe_now(
    bootstrap: str, security: Mapping[str, str] | None, topic: str, partition: int, offset: int
) -> tuple[UnreadableBatch | None, int]:
    """`probe` for code that is not asynchronous; also the offset behind what the fetch returned. Raises BrokerError."""
    with ThreadPoolExecutor(1) as executor:  # a thread of its own: the caller's may run an event loop
        searching = executor.submit(asyncio.run, _search(bootstrap, security, TopicPartition(topic, partition), offset))
        try:
            return searching.result()
        except KafkaError as error:
            raise BrokerError(f"{topic}/{partition} cannot be probed at {bootstrap}: {error}") from error


async def _search(
    bootstrap: str, security: Mapping[str, str] | None, place: TopicPartition, offset: int
) -> tuple[UnreadableBatch | None, int]:
    consumer = AIOKafkaConsumer(**aiokafka_config(bootstrap, security), group_id=None, enable_auto_commit=False)
    await consumer.start()
    try:
        fetched = await _fetch(consumer, place, offset)
    finally:
        await consumer.stop()
    behind = max((following for _, following, _ in _split(fetched)), default=offset)
    return find_unreadable(place, offset, fetched), max(offset, behind)


def find_unreadable(place: TopicPartition, offset: int, fetched: bytes) -> UnreadableBatch | None:
    """The first batch in `fetched` (a partition's part of a fetch response) that cannot be read."""
    batches = list(_split(fetched))
    for number, (first, following, raw) in enumerate(batches):
        reason = _problem(raw)
        if reason is not None:
            behind = batches[number + 1][0] if number + 1 < len(batches) else following
            return UnreadableBatch(
                place.topic, place.partition, max(first, offset), max(behind, offset + 1), reason, raw
            )
    return None


def _split(fetched: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Base offset, next offset and bytes of each whole batch."""
    at = 0
    while at + HEADER.size <= len(fetched):
        first, length, _, _, _, _, last_delta = HEADER.unpack_from(fetched, at)
        end = at + LENGTH_FROM + length
        if length <= 0 or end > len(fetched):
            return
        yield first, first + max(0, last_delta) + 1, fetched[at:end]
        at = end


def _problem(raw: bytes) -> str | None:
    try:
        records = MemoryRecords(raw)
        while records.has_next():
            batch = records.next_batch()
            if not batch.validate_crc():
                return "its checksum (CRC) does not match its bytes"
            if not getattr(batch, "is_control_batch", False):
                for _ in batch:
                    pass
    except Exception as error:  # codecs raise classes of their own
        return f"{type(error).__name__}: {error}"
    return None


async def _fetch(consumer: AIOKafkaConsumer, place: TopicPartition, offset: int) -> bytes:
    client: Any = consumer._client  # the public consumer has no way to the bytes of a batch
    await client.force_metadata_update()
    client.add_topic(place.topic)
    await client._maybe_wait_metadata()
    leader = client.cluster.leader_for_partition(place)
    if leader is None or leader < 0:
        raise KafkaError(f"{place.topic}/{place.partition} has no leader now")
    fetches = [(place.topic, [(place.partition, offset, PROBE_BYTES)])]
    answer = await client.send(leader, FetchRequest(WAIT_MS, 1, PROBE_BYTES, 0, fetches))
    (_, ((_, error_code, *fields),)) = answer.topics[0]
    if error_code:
        raise for_code(error_code)(f"{place.topic}/{place.partition} at offset {offset}")
    return bytes(fields[-1] or b"")


def stop_message(batch: UnreadableBatch) -> str:
    """Why a partition waits at a batch, and the cure."""
    return (
        f"{batch.name} stopped at offset {batch.first}: the batch there cannot be read ({batch.reason}); "
        f"other partitions go on. If it cannot be restored, `coldstream dead-letters skip {batch.name}` "
        "keeps its bytes and passes over it"
    )
