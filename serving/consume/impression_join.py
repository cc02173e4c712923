"""The impression-click join beside the event path: its rows, where they are kept, and how they come back after kill -9.

The fold is `features.outcomes`; it runs in the event path's own batches, for an agent would pass a tenth of its events.
Every flush writes, in this order: to the topic `shown` what changed in the waiting lists, to the compacted topic
`outcomes` the row of each partition (counts and position), and then the event path commits. A restart reads the newest
row, and from `shown` the lists that were waiting at that row's position; what lies behind it comes again from the log.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from features import outcomes
from features.activity import LoggedEvent
from features.outcomes import SLACK_MS, BufferDelta, JoinBuffer, JoinWindow, PartitionOutcomes
from serving import metrics
from serving.messages import FETCH_BYTES
from stream import topics
from stream.client import aiokafka_config

HASTE_MS: Final = 100
STILL_S: Final = 10.0
"""So often a row is written although nothing was counted: how far a restart goes back in the log."""

_rows = msgspec.json.Decoder(PartitionOutcomes)
_deltas = msgspec.json.Decoder(BufferDelta)
_encode = msgspec.json.Encoder().encode


class ImpressionJoin:
    """Rows and waiting lists of the partitions that are ours."""

    def __init__(self, bootstrap: str, security: Mapping[str, str], window: JoinWindow) -> None:
        self._config = aiokafka_config(bootstrap, security)
        self._window = window
        self._rows: dict[TopicPartition, PartitionOutcomes] = {}
        self._waiting: dict[TopicPartition, JoinBuffer] = {}
        self._published: dict[TopicPartition, tuple[int, int, float]] = {}
        self._unsent: dict[TopicPartition, list[BufferDelta]] = {}

    def begin(self, place: TopicPartition, found: tuple[PartitionOutcomes, JoinBuffer] | None, start: int) -> int:
        """Take over a partition; where to begin reading: at `start`, or earlier where a row lacks what lies there."""
        row, waiting = found if found is not None else (PartitionOutcomes(position=start - 1), JoinBuffer(self._window))
        self._rows[place], self._waiting[place] = row, waiting
        self._published[place], self._unsent[place] = (self._counted(place), row.position, time.monotonic()), []
        return min(start, row.position + 1)

    def drop(self, place: TopicPartition) -> None:
        """Let go of a partition."""
        for kept in (self._rows, self._waiting, self._published, self._unsent):
            kept.pop(place, None)

    def apply(self, place: TopicPartition, log: Iterable[LoggedEvent], through: int) -> None:
        """Fold events in; everything through the offset `through` is then in."""
        row, waiting = self._rows[place], self._waiting[place]
        outcomes.apply(row, waiting, log)
        row.position = max(row.position, through)
        if waiting.forgotten:
            metrics.impressions_evicted.inc(waiting.forgotten)
            waiting.forgotten = 0

    async def publish(self, producer: AIOKafkaProducer) -> None:
        """Write what changed: waiting lists first, rows next. Raises KafkaError; the next call sends all of it."""
        for place, row in self._rows.items():
            unsent = self._unsent[place]
            unsent += self._waiting[place].changes(row.position)
            counted = self._counted(place)
            if not unsent and not self._due(place, counted):
                continue
            for delta in unsent:
                await producer.send_and_wait(topics.SHOWN, _encode(delta), partition=place.partition)
            await producer.send_and_wait(topics.OUTCOMES, _encode(row), key=_key(place))
            self._published[place] = (counted, row.position, time.monotonic())
            unsent.clear()
        metrics.impressions_pending.set(sum(len(one) for one in self._waiting.values()))

    async def restore(
        self, places: Sequence[TopicPartition]
    ) -> dict[TopicPartition, tuple[PartitionOutcomes, JoinBuffer]]:
        """The newest rows of partitions, with the lists that waited at their positions. Raises KafkaError."""
        consumer = AIOKafkaConsumer(
            **self._config, group_id=None, enable_auto_commit=False, max_partition_fetch_bytes=FETCH_BYTES
        )
        await consumer.start()
        try:
            rows = await self._read_rows(consumer, places)
            return {place: (row, await self._read_waiting(consumer, place, row)) for place, row in rows.items()}
        finally:
            await consumer.stop()

    async def _read_rows(
        self, consumer: AIOKafkaConsumer, places: Sequence[TopicPartition]
    ) -> dict[TopicPartition, PartitionOutcomes]:
        messages = await _read_partition(consumer, TopicPartition(topics.OUTCOMES, 0), 0)
        newest = {key: value for key, value in messages if value}
        return {place: _rows.decode(newest[_key(place)]) for place in places if _key(place) in newest}

    async def _read_waiting(
        self, consumer: AIOKafkaConsumer, place: TopicPartition, row: PartitionOutcomes
    ) -> JoinBuffer:
        waiting = JoinBuffer(self._window)
        since = row.clock - self._window.ms - 2 * SLACK_MS
        for _, value in await _read_partition(consumer, TopicPartition(topics.SHOWN, place.partition), max(0, since)):
            delta = _deltas.decode(value or b"")
            if delta.through <= row.position:  # a flush that was cut short left more; it comes again from the log
                waiting.follow(delta)
        waiting.expire(row.clock)
        waiting.forgotten = 0
        return waiting

    def _due(self, place: TopicPartition, counted: int) -> bool:
        """Whether a row without new waiting lists is to be written; one that never counted anything is not."""
        before, position, at = self._published[place]
        moved = self._rows[place].position > position and time.monotonic() - at >= STILL_S
        return counted > 0 and (counted != before or moved)

    def _counted(self, place: TopicPartition) -> int:
        """A number that grows with every list and click of a partition."""
        every = self._rows[place].counts.values()
        return sum(sum(one.impressions) + sum(one.clicks) for releases in every for one in releases.values())


async def _read_partition(
    consumer: AIOKafkaConsumer, place: TopicPartition, since_ms: int
) -> list[tuple[bytes | None, bytes | None]]:
    """Key and value of every message of one partition that was logged at `since_ms` or later."""
    consumer.assign([place])
    end = (await consumer.end_offsets([place]))[place]
    start = (await consumer.beginning_offsets([place]))[place]
    if since_ms > 0:
        timed = (await consumer.offsets_for_times({place: since_ms}))[place]
        start = timed.offset if timed is not None else end
    consumer.seek(place, start)
    found: list[tuple[bytes | None, bytes | None]] = []
    while await consumer.position(place) < end:
        for records in (await consumer.getmany(place, timeout_ms=HASTE_MS)).values():
            found += [(one.key, one.value) for one in records]
    return found


def _key(place: TopicPartition) -> bytes:
    return f"{place.topic}/{place.partition}".encode()
