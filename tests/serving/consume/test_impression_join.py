"""The impression-click join: what a flush writes and in which order, and what a restart reads back."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from features.activity import LoggedEvent
from features.outcomes import BufferDelta, JoinBuffer, JoinWindow, PartitionOutcomes, PendingImpression
from serving import metrics
from serving.consume import impression_join
from serving.consume.impression_join import ImpressionJoin
from stream import topics
from stream.events import Event, Impression, Interaction
from testing.memory_kafka import MemoryProducer

NOON = 1_760_000_000_000
PLACE = TopicPartition("events", 3)


def impression(key: str, *items: str, at: int = NOON) -> Impression:
    return Impression(event_id=key, user_id="ann", item_ids=list(items), at=at, release="r1", request_id=key)


def click(item: str, at: int = NOON + 1_000) -> Interaction:
    return Interaction(event_id=f"c-{item}", user_id="ann", item_id=item, kind="click", at=at)


def logged(*events: Event, start: int = 0) -> list[LoggedEvent]:
    return [LoggedEvent(event, "events/3", offset) for offset, event in enumerate(events, start)]


def started(window: JoinWindow | None = None) -> ImpressionJoin:
    """A join that has taken over an empty partition."""
    join = ImpressionJoin("127.0.0.1:1", {}, window or JoinWindow())
    assert join.begin(PLACE, None, 0) == 0
    return join


def published_row(producer: MemoryProducer) -> PartitionOutcomes:
    return msgspec.json.decode(producer.values(topics.OUTCOMES)[-1], type=PartitionOutcomes)


def totals(row: PartitionOutcomes) -> tuple[int, int]:
    """Impressions and clicks of release r1."""
    counts = row.counts["shop"]["r1"]
    return sum(counts.impressions), sum(counts.clicks)


def test_reading_starts_at_the_event_path_s_offset_or_where_the_row_ends_if_that_is_earlier() -> None:
    join = ImpressionJoin("127.0.0.1:1", {}, JoinWindow())

    assert join.begin(PLACE, None, 10) == 10
    assert join.begin(PLACE, (PartitionOutcomes(position=4), JoinBuffer(JoinWindow())), 10) == 5
    assert join.begin(PLACE, (PartitionOutcomes(position=20), JoinBuffer(JoinWindow())), 10) == 10


def test_publish_writes_pending_impressions_first_then_the_row_under_the_partition_s_key() -> None:
    join, producer = started(), MemoryProducer()
    join.apply(PLACE, logged(impression("a", "x", "y"), impression("b", "z"), click("x")), 7)

    asyncio.run(join.publish(producer))

    assert [(topic, partition, key) for topic, partition, key, _ in producer.messages] == [
        (topics.SHOWN, 3, None),
        (topics.OUTCOMES, None, b"events/3"),
    ]
    delta = msgspec.json.decode(producer.values(topics.SHOWN)[0], type=BufferDelta)
    assert (delta.through, [shown.key for shown in delta.shown]) == (7, ["a", "b"])
    assert delta.taken == [("shop", "ann", "a")]
    row = published_row(producer)
    assert (row.position, row.clock, totals(row)) == (7, NOON, (2, 1))


def test_publish_writes_nothing_when_nothing_was_counted_since() -> None:
    join, producer = started(), MemoryProducer()
    asyncio.run(join.publish(producer))
    assert producer.messages == []

    join.apply(PLACE, logged(impression("a", "x")), 0)
    asyncio.run(join.publish(producer))
    assert len(producer.messages) == 2

    join.apply(PLACE, [], 5)
    asyncio.run(join.publish(producer))
    assert len(producer.messages) == 2


def test_a_row_that_only_moved_is_written_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impression_join, "MAX_ROW_AGE_S", 0.0)
    join, producer = started(), MemoryProducer()
    join.apply(PLACE, [], 2)
    asyncio.run(join.publish(producer))
    assert producer.messages == []  # a partition that never counted an impression has no row

    join.apply(PLACE, logged(impression("a", "x"), start=3), 3)
    asyncio.run(join.publish(producer))
    join.apply(PLACE, [], 9)
    asyncio.run(join.publish(producer))

    assert producer.calls == [topics.SHOWN, topics.OUTCOMES, topics.OUTCOMES]
    assert published_row(producer).position == 9


def test_what_kafka_refused_is_sent_again_by_the_next_publish() -> None:
    join, producer = started(), MemoryProducer()
    join.apply(PLACE, logged(impression("a", "x")), 0)
    producer.failing = {topics.SHOWN}
    with pytest.raises(KafkaError):
        asyncio.run(join.publish(producer))
    assert producer.messages == []

    producer.failing = set()
    asyncio.run(join.publish(producer))

    assert producer.calls == [topics.SHOWN, topics.OUTCOMES]
    delta = msgspec.json.decode(producer.values(topics.SHOWN)[0], type=BufferDelta)
    assert [shown.key for shown in delta.shown] == ["a"]


def test_events_that_are_read_again_are_not_counted_again() -> None:
    join, producer = started(), MemoryProducer()
    events = logged(impression("a", "x"), click("x"))
    join.apply(PLACE, events, 1)
    join.apply(PLACE, events, 1)

    asyncio.run(join.publish(producer))

    assert totals(published_row(producer)) == (1, 1)


def test_a_full_buffer_counts_what_it_evicts() -> None:
    before = metrics.impressions_evicted._value.get()
    join = started(JoinWindow(lists=2))

    join.apply(PLACE, logged(*(impression(key, "x") for key in "abcde")), 4)
    assert metrics.impressions_evicted._value.get() - before == 3

    join.apply(PLACE, [], 5)
    assert metrics.impressions_evicted._value.get() - before == 3


def test_a_dropped_partition_is_not_published() -> None:
    join, producer = started(), MemoryProducer()
    join.apply(PLACE, logged(impression("a", "x")), 0)

    join.drop(PLACE)
    join.drop(TopicPartition("events", 9))
    asyncio.run(join.publish(producer))

    assert producer.messages == []


class StoredTopics:
    """A consumer over messages in memory: (topic, partition) to the (key, value) pairs, two to a fetch."""

    messages: ClassVar[dict[TopicPartition, list[tuple[bytes | None, bytes | None]]]] = {}
    stopped = 0

    def __init__(self, **config: Any) -> None:
        self.at = 0

    async def start(self) -> Self:
        return self

    async def stop(self) -> None:
        type(self).stopped += 1

    def assign(self, places: Sequence[TopicPartition]) -> None:
        (self.place,) = places

    async def end_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: len(self.messages.get(place, [])) for place in places}

    async def beginning_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, Any]:
        return {place: SimpleNamespace(offset=0) for place in times}

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.at = offset

    async def position(self, place: TopicPartition) -> int:
        return self.at

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        pairs = list(enumerate(self.messages[self.place]))[self.at : self.at + 2]
        self.at += len(pairs)
        return {self.place: [SimpleNamespace(key=key, value=value, offset=n) for n, (key, value) in pairs]}


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> type[StoredTopics]:
    monkeypatch.setattr(StoredTopics, "messages", {})
    monkeypatch.setattr(StoredTopics, "stopped", 0)
    monkeypatch.setattr(impression_join, "AIOKafkaConsumer", StoredTopics)
    return StoredTopics


def store_published(stored: type[StoredTopics], producer: MemoryProducer) -> None:
    """Make what was published readable: `outcomes` has one partition."""
    for topic, partition, key, value in producer.messages:
        stored.messages.setdefault(TopicPartition(topic, partition or 0), []).append((key, value))


def test_a_restart_counts_a_click_on_an_impression_from_before_it(stored: type[StoredTopics]) -> None:
    join, producer = started(), MemoryProducer()
    join.apply(PLACE, logged(impression("a", "x"), impression("b", "y"), click("y")), 2)
    asyncio.run(join.publish(producer))
    store_published(stored, producer)

    after = ImpressionJoin("127.0.0.1:1", {}, JoinWindow())
    restored = asyncio.run(after.restore([PLACE, TopicPartition("events", 4)]))
    assert list(restored) == [PLACE]
    assert after.begin(PLACE, restored[PLACE], 2) == 2
    after.apply(PLACE, logged(click("y"), click("x"), click("y"), start=2), 4)
    producer = MemoryProducer()
    asyncio.run(after.publish(producer))

    assert totals(published_row(producer)) == (2, 2)
    assert stored.stopped == 1


def test_restore_reads_the_newest_row_and_skips_tombstones_and_changes_behind_it(stored: type[StoredTopics]) -> None:
    def delta(through: int, key: str) -> bytes:
        pending = PendingImpression(key, "ann", "shop", "r1", ["x"], NOON)
        return msgspec.json.encode(BufferDelta(through, [pending], []))

    rows = [PartitionOutcomes(position=2, clock=NOON), PartitionOutcomes(position=5, clock=NOON)]
    stored.messages[TopicPartition(topics.OUTCOMES, 0)] = [
        *[(b"events/3", msgspec.json.encode(row)) for row in rows],
        (b"events/4", None),
    ]
    stored.messages[TopicPartition(topics.SHOWN, 3)] = [
        (None, delta(through, key)) for through, key in ((2, "a"), (5, "b"), (6, "c"))
    ]

    restored = asyncio.run(
        ImpressionJoin("127.0.0.1:1", {}, JoinWindow()).restore([PLACE, TopicPartition("events", 4)])
    )

    ((row, buffer),) = restored.values()
    assert (row.position, len(buffer)) == (5, 2)


def test_restore_drops_impressions_whose_window_has_passed(stored: type[StoredTopics]) -> None:
    window = JoinWindow(ms=60_000)
    early, late = NOON - 60_000 - impression_join.SLACK_MS - 1, NOON - 60_000 - impression_join.SLACK_MS
    pending = [PendingImpression(str(at), "ann", "shop", "r1", ["x"], at) for at in (early, late)]
    row = PartitionOutcomes(position=5, clock=NOON)
    stored.messages[TopicPartition(topics.OUTCOMES, 0)] = [(b"events/3", msgspec.json.encode(row))]
    stored.messages[TopicPartition(topics.SHOWN, 3)] = [(None, msgspec.json.encode(BufferDelta(5, pending, [])))]

    restored = asyncio.run(ImpressionJoin("127.0.0.1:1", {}, window).restore([PLACE]))

    assert len(restored[PLACE][1]) == 1
