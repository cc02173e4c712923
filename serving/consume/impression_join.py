"""The impression-click join of the event path: its rows, where they are stored, and how a restart restores them.

The fold is `features.outcomes`; it runs in the event path's batches, because a Faust agent has a tenth of the
throughput. Every flush writes, in this order: to the topic `shown` the changes of the pending impressions, to the
compacted topic `outcomes` the row of each partition (counts and position); then the event path commits. A restart reads
the newest row, and from `shown` the impressions pending at that row's position; later events are read from the log.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from features import outcomes
from features.activity import LoggedEvent
from features.outcomes import SLACK_MS, BufferDelta, JoinBuffer, JoinWindow, PartitionOutcomes
from serving import metrics
from serving.messages import FETCH_BYTES
from stream import topics
from stream.client import READ_COMMITTED, aiokafka_config
from stream.partition_guard import PartitionGuard

PIECE_BYTES: Final = 512 * 1024
"""Largest message to `shown`: stock brokers take 1 MiB."""
POLL_MS: Final = 100
MAX_RECORDS: Final = 10_000
MAX_ROW_AGE_S: Final = 10.0
"""A row is written at least this often, even if only its position moved: this bounds what a restart reads again."""

Message = TypeVar("Message")

log = logging.getLogger("coldstream.consumer")

_rows = msgspec.json.Decoder(PartitionOutcomes)
_deltas = msgspec.json.Decoder(BufferDelta)
_encode = msgspec.json.Encoder().encode


class ImpressionJoin:
    """Rows and pending impressions of the assigned partitions."""

    def __init__(self, bootstrap: str, security: Mapping[str, str], window: JoinWindow) -> None:
        self._kafka = (bootstrap, security)
        self._window = window
        self._rows: dict[TopicPartition, PartitionOutcomes] = {}
        self._buffers: dict[TopicPartition, JoinBuffer] = {}
        self._published: dict[TopicPartition, tuple[int, int, float]] = {}
        self._unsent: dict[TopicPartition, list[BufferDelta]] = {}
        self.shown_partitions = 0

    def begin(
        self, partition: TopicPartition, restored: tuple[PartitionOutcomes, JoinBuffer] | None, start: int
    ) -> int:
        """Take over a partition; returns the offset to read from: `start`, or earlier if the row ends before it."""
        if restored is None:
            restored = PartitionOutcomes(position=start - 1), JoinBuffer(self._window)
        row, buffer = restored
        self._rows[partition], self._buffers[partition] = row, buffer
        self._published[partition], self._unsent[partition] = (
            (self._counted(partition), row.position, time.monotonic()),
            [],
        )
        return min(start, row.position + 1)

    def drop(self, partition: TopicPartition) -> None:
        """Release a partition."""
        for by_partition in (self._rows, self._buffers, self._published, self._unsent):
            by_partition.pop(partition, None)

    def apply(self, partition: TopicPartition, log: Iterable[LoggedEvent], through: int) -> None:
        """Fold events into the row, which then contains everything through the offset `through`."""
        row, buffer = self._rows[partition], self._buffers[partition]
        outcomes.apply(row, buffer, log)
        row.position = max(row.position, through)
        if buffer.forgotten:
            metrics.impressions_evicted.inc(buffer.forgotten)
            buffer.forgotten = 0

    async def publish(self, producer: AIOKafkaProducer) -> None:
        """Write what changed: pending impressions, then rows. Raises KafkaError; the next call sends all again."""
        for partition, row in self._rows.items():
            unsent = self._unsent[partition]
            unsent += self._buffers[partition].changes(row.position, _key(partition).decode())
            counted = self._counted(partition)
            if not unsent and not self._due(partition, counted):
                continue
            place = self._shown_place(partition)
            for value in (piece for delta in unsent for piece in pieces(delta)):
                await producer.send_and_wait(topics.SHOWN, value, partition=place.partition)
            await producer.send_and_wait(topics.OUTCOMES, outcomes.encoded(row), key=_key(partition))
            self._published[partition] = (counted, row.position, time.monotonic())
            unsent.clear()
        metrics.impressions_pending.set(sum(len(buffer) for buffer in self._buffers.values()))

    async def restore(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, tuple[PartitionOutcomes, JoinBuffer]]:
        """The newest rows of partitions, with the impressions pending at their positions. Raises KafkaError."""
        consumer = AIOKafkaConsumer(
            **aiokafka_config(*self._kafka),
            **READ_COMMITTED,
            group_id=None,
            enable_auto_commit=False,
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        await consumer.start()
        try:
            rows = await self._read_rows(consumer, partitions)
            return {
                partition: (row, await self._read_buffer(consumer, partition, row)) for partition, row in rows.items()
            }
        finally:
            await consumer.stop()

    async def _read_rows(
        self, consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, PartitionOutcomes]:
        messages = await self._read_partition(consumer, TopicPartition(topics.OUTCOMES, 0), 0)
        rows = {key: row for key, value in messages if (row := _decoded(_rows, value)) is not None}
        return {partition: rows[_key(partition)] for partition in partitions if _key(partition) in rows}

    async def _read_buffer(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, row: PartitionOutcomes
    ) -> JoinBuffer:
        buffer = JoinBuffer(self._window)
        since = row.clock - self._window.ms - 2 * SLACK_MS
        for _, value in await self._read_partition(consumer, self._shown_place(partition), max(0, since)):
            delta = _decoded(_deltas, value)
            if delta is None or delta.partition not in {"", _key(partition).decode()}:
                continue
            if delta.through <= row.position:  # later changes are from an interrupted flush; the log has them
                buffer.follow(delta)
        buffer.expire(row.clock)
        buffer.forgotten = 0
        return buffer

    async def _read_partition(
        self, consumer: AIOKafkaConsumer, partition: TopicPartition, since_ms: int
    ) -> list[tuple[bytes | None, bytes | None]]:
        """Key and value of every message of one partition that was logged at `since_ms` or later.

        A batch that cannot be read is passed over: with an older row, more of the log is read again.
        """
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        start = (await consumer.beginning_offsets([partition]))[partition]
        if since_ms > 0:
            timed = (await consumer.offsets_for_times({partition: since_ms}))[partition]
            start = timed.offset if timed is not None else end
        consumer.seek(partition, start)
        positions = {partition: start}
        guard = PartitionGuard(consumer, *self._kafka, positions)
        messages: list[tuple[bytes | None, bytes | None]] = []
        while await consumer.position(partition) < end:
            for records in (await guard.fetch(POLL_MS, MAX_RECORDS)).values():
                messages += [(record.key, record.value) for record in records]
                positions[partition] = records[-1].offset + 1
            guard.pass_over()
        return messages

    def _shown_place(self, partition: TopicPartition) -> TopicPartition:
        """Where a partition's changes stand; `shown` may have fewer partitions than `events`."""
        return TopicPartition(topics.SHOWN, partition.partition % (self.shown_partitions or partition.partition + 1))

    def _due(self, partition: TopicPartition, counted: int) -> bool:
        """Whether to write a row without buffer changes; a row that never counted anything is not written."""
        published_count, position, published_at = self._published[partition]
        moved = self._rows[partition].position > position and time.monotonic() - published_at >= MAX_ROW_AGE_S
        return counted > 0 and (counted != published_count or moved)

    def _counted(self, partition: TopicPartition) -> int:
        """The number of impressions and clicks counted in a partition, over all domains and releases."""
        domains = self._rows[partition].counts.values()
        return sum(sum(counts.impressions) + sum(counts.clicks) for releases in domains for counts in releases.values())


def pieces(delta: BufferDelta) -> list[bytes]:
    """A delta as messages of at most `PIECE_BYTES`, unless a single impression is larger; in the order to apply."""
    value = _encode(delta)
    if len(value) <= PIECE_BYTES or len(delta.shown) + len(delta.taken) <= 1:
        return [value]
    if delta.shown and delta.taken:
        parts = [msgspec.structs.replace(delta, taken=[]), msgspec.structs.replace(delta, shown=[])]
    else:
        middle = (len(delta.shown) + len(delta.taken)) // 2
        parts = [
            msgspec.structs.replace(delta, shown=delta.shown[half], taken=delta.taken[half])
            for half in (slice(0, middle), slice(middle, None))
        ]
    return [piece for part in parts for piece in pieces(part)]


def _decoded(decoder: msgspec.json.Decoder[Message], value: bytes | None) -> Message | None:
    """A stored row or delta; None for a tombstone, and for what is not ours."""
    try:
        return decoder.decode(value) if value else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.warning("skipped a message: %s", error)
        return None


def _key(partition: TopicPartition) -> bytes:
    return f"{partition.topic}/{partition.partition}".encode()
