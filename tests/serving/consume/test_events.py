"""The event path on a real SQLite store, with Kafka in memory: dead letters, updates, order of a flush, failures."""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError

from features.errors import StoreError
from features.outcomes import PartitionOutcomes
from features.popularity import EVERYONE, PartitionPopularity, PopularitySettings
from features.store import OnlineStore
from serving.consume import events
from serving.consume.events import EventProcessor, disconnect
from serving.consume.health import ConsumerHealth
from serving.messages import FeatureUpdate, decode_update
from stream import topics
from stream.dead_letters import DeadLetter
from stream.events import Impression, Interaction, Item
from stream.log_watch import LogState
from stream.partition_guard import PartitionGuard
from testing.consumer_options import OPTIONS
from testing.memory_kafka import MemoryConsumer, MemoryProducer, record

NOON = 1_760_000_000_000
P0, P1 = TopicPartition("events", 0), TopicPartition("events", 1)


@pytest.fixture
def processor(store: OnlineStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventProcessor]:
    """A processor that owns partitions 0 and 1, from their start."""
    processor = own_partitions(EventProcessor(store, OPTIONS), P0, P1)
    write = store.write_popularity

    def recorded(rows: Mapping[str, PartitionPopularity]) -> None:
        write(rows)
        processor.consumer.calls.append("popularity")

    monkeypatch.setattr(store, "write_popularity", recorded)
    yield processor
    processor.store_thread.shutdown()


def own_partitions(processor: EventProcessor, *places: TopicPartition) -> EventProcessor:
    calls: list[str] = []
    processor.producer, processor.consumer = MemoryProducer(calls), MemoryConsumer(calls)
    processor.guard = PartitionGuard(processor.consumer, OPTIONS.bootstrap, None, processor.next_offsets)

    async def restored(assigned: Any) -> dict[Any, Any]:
        return {}

    processor.impression_join.restore = restored  # type: ignore[method-assign]
    processor.consumer.owned = set(places)
    asyncio.run(processor.on_partitions_assigned(places))
    processor.consumer.seeks.clear()
    return processor


def view(user: str, item: str, at: int = NOON, domain: str = "shop") -> Interaction:
    return Interaction(event_id=f"{user}-{item}-{at}", user_id=user, item_id=item, kind="view", at=at, domain=domain)


def apply(processor: EventProcessor, *records: Any) -> None:
    """One step of the event path with these records."""
    fetched: dict[TopicPartition, list[Any]] = {}
    for message in records:
        fetched.setdefault(TopicPartition(message.topic, message.partition), []).append(message)
    processor.consumer.fetched = fetched
    asyncio.run(processor._step())


def letters(processor: EventProcessor) -> list[DeadLetter]:
    return [msgspec.json.decode(value, type=DeadLetter) for value in processor.producer.values(topics.DEAD_LETTERS)]


def updates(processor: EventProcessor) -> list[FeatureUpdate]:
    return [decode_update(value) for value in processor.producer.values(topics.FEATURE_UPDATES)]


def recent(store: OnlineStore, user: str, domain: str = "shop") -> list[str]:
    activity = store.read_activity(domain, user)
    return [] if activity is None else activity.recent.items


def test_a_bad_event_becomes_a_dead_letter_and_the_others_are_applied(
    processor: EventProcessor, store: OnlineStore
) -> None:
    item = Item(item_id="i", at=NOON)
    apply(
        processor,
        record(0, 0, view("ann", "x")),
        record(0, 1, b"{broken", key="ann", at=NOON),
        record(0, 2, view("ann", "y"), key="bob"),
        record(0, 3, view("ann", "y", domain="travel")),
        record(0, 4, view("ann", "y", at=NOON + 600_000), at=NOON),
        record(0, 5, msgspec.json.encode(item), key="shop/i", at=NOON),
        record(0, 6, view("ann", "z")),
    )

    assert [(letter.offset, letter.reason, letter.key) for letter in letters(processor)] == [
        (1, "not-json", "ann"),
        (2, "wrong-key", "bob"),
        (3, "unknown-domain", "ann"),
        (4, "bad-time", "ann"),
        (5, "wrong-topic", "shop/i"),
    ]
    assert (letters(processor)[0].topic, letters(processor)[0].partition) == ("events", 0)
    assert letters(processor)[0].value == b"{broken"
    assert "news, shop" in letters(processor)[2].detail
    assert recent(store, "ann") == ["x", "z"]
    assert processor.next_offsets[P0] == 7


def test_dead_letters_are_sent_before_the_features_are_announced(processor: EventProcessor) -> None:
    apply(processor, record(0, 0, view("ann", "x")), record(0, 1, b"{", key="ann", at=NOON))

    assert processor.producer.calls == [topics.DEAD_LETTERS, topics.FEATURE_UPDATES]


def test_a_batch_is_grouped_by_domain_and_user(processor: EventProcessor, store: OnlineStore) -> None:
    apply(
        processor,
        record(0, 0, view("ann", "x")),
        record(0, 1, view("bob", "y")),
        record(0, 2, view("ann", "z", at=NOON + 1)),
        record(0, 3, view("ann", "n", domain="news")),
    )

    assert (recent(store, "ann"), recent(store, "bob")) == (["x", "z"], ["y"])
    assert recent(store, "ann", "news") == ["n"]


def test_each_partition_s_update_names_its_own_users(processor: EventProcessor) -> None:
    apply(
        processor,
        record(0, 3, view("ann", "x")),
        record(0, 5, view("bob", "x", domain="news"), at=NOON + 9),
        record(1, 8, view("cid", "x")),
    )

    first, second = updates(processor)
    assert (first.partition, first.through, first.logged_at) == ("events/0", 5, NOON + 9)
    assert first.users == [("shop", "ann"), ("news", "bob")]
    assert (second.partition, second.through, second.users) == ("events/1", 8, [("shop", "cid")])
    partitions = [sent[1] for sent in processor.producer.messages if sent[0] == topics.FEATURE_UPDATES]
    assert partitions == [0, 1]


def test_an_update_with_too_many_users_names_none(processor: EventProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "UPDATE_USERS", 2)
    apply(processor, *(record(0, offset, view(f"u{offset}", "x")) for offset in range(2)))
    apply(processor, *(record(0, offset, view(f"u{offset}", "x")) for offset in range(2, 5)))

    named, unnamed = updates(processor)
    assert named.users == [("shop", "u0"), ("shop", "u1")]
    assert unnamed.users is None


def test_a_batch_that_is_read_again_changes_nothing(processor: EventProcessor, store: OnlineStore) -> None:
    batch = [record(0, 0, view("ann", "x")), record(0, 1, view("ann", "y", at=NOON + 1))]
    apply(processor, *batch)
    state = store.read_activity("shop", "ann")
    counts = msgspec.json.encode(processor.popularity_rows[P0])

    apply(processor, *batch)

    assert store.read_activity("shop", "ann") == state
    assert msgspec.json.encode(processor.popularity_rows[P0]) == counts
    assert processor.popularity_rows[P0].position == 1


def test_a_flush_writes_popularity_then_outcomes_and_commits_last(
    processor: EventProcessor, store: OnlineStore
) -> None:
    shown = Impression(event_id="s", user_id="ann", item_ids=["x"], at=NOON, release="r1", request_id="a")
    apply(processor, record(0, 0, shown), record(0, 1, view("ann", "x")), record(0, 2, b"{", key="a", at=NOON))
    processor.consumer.calls.clear()

    asyncio.run(processor._flush())

    assert processor.consumer.calls == ["popularity", topics.SHOWN, topics.OUTCOMES, "commit"]
    assert processor.consumer.commits == [{P0: 3, P1: 0}]
    stored = store.read_popularity(["events/0", "events/1", "top:events/0"])
    assert set(stored) == {"events/0", "top:events/0"}  # partition 1 has counted nothing
    assert stored["events/0"].position == 2
    assert list(stored["events/0"].domains["shop"].segments[EVERYONE]) == ["x"]
    (row,) = processor.producer.values(topics.OUTCOMES)
    assert msgspec.json.decode(row, type=PartitionOutcomes).position == 2


def test_a_step_flushes_only_after_the_interval(processor: EventProcessor) -> None:
    apply(processor, record(0, 0, view("ann", "x")))
    assert processor.consumer.commits == []

    processor.flushed_at -= 61
    apply(processor)

    assert processor.consumer.commits == [{P0: 1, P1: 0}]


def test_nothing_is_committed_when_popularity_is_not_written(
    processor: EventProcessor, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(processor, record(0, 0, view("ann", "x")))
    monkeypatch.setattr(store, "write_popularity", failing(99))

    asyncio.run(processor._flush(wait=False))

    assert processor.consumer.commits == []


def test_nothing_is_committed_when_outcomes_are_not_written(processor: EventProcessor) -> None:
    shown = Impression(event_id="s", user_id="ann", item_ids=["x"], at=NOON, release="r1")
    apply(processor, record(0, 0, shown))
    processor.producer.failing = {topics.OUTCOMES}

    asyncio.run(processor._flush())

    assert processor.consumer.commits == []


def test_a_refused_commit_is_no_error(processor: EventProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(offsets: Any) -> None:
        raise CommitFailedError("rebalanced")

    monkeypatch.setattr(processor.consumer, "commit", refuse)
    apply(processor, record(0, 0, view("ann", "x")))

    asyncio.run(processor._flush())

    assert processor.next_offsets[P0] == 1


def test_a_failed_batch_is_read_again_from_its_start(
    processor: EventProcessor, store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(processor, record(0, 4, view("ann", "x")))
    with monkeypatch.context() as patch:

        def fail(*_: Any) -> None:
            raise ValueError("a defect")

        patch.setattr(processor.activities, "fold", fail)
        with pytest.raises(ValueError, match="a defect"):
            apply(processor, record(0, 5, view("ann", "y")), record(1, 2, view("bob", "y")))

    assert processor.consumer.seeks == [(P0, 5), (P1, 0)]
    assert processor.next_offsets == {P0: 5, P1: 0}
    assert recent(store, "ann") == ["x"]


def test_records_of_a_partition_that_is_no_longer_owned_are_ignored(
    processor: EventProcessor, store: OnlineStore
) -> None:
    asyncio.run(processor.on_partitions_revoked([P1]))
    apply(processor, record(1, 0, view("ann", "x")))

    assert recent(store, "ann") == []
    assert P1 not in processor.next_offsets


def test_revoked_partitions_are_committed_first(processor: EventProcessor, store: OnlineStore) -> None:
    apply(processor, record(0, 0, view("ann", "x")), record(1, 6, view("bob", "x")))

    asyncio.run(processor.on_partitions_revoked([P1]))

    assert processor.consumer.commits == [{P0: 1, P1: 7}]
    assert store.read_popularity(["events/1"])["events/1"].position == 6
    assert set(processor.popularity_rows) == {P0}


@pytest.mark.parametrize(("committed", "start"), [(None, 0), (2, 2), (9, 5)])
def test_reading_starts_at_the_committed_offset_or_where_popularity_ends(
    store: OnlineStore, committed: int | None, start: int
) -> None:
    store.write_popularity({"events/0": PartitionPopularity(position=4)})
    processor = own_partitions(EventProcessor(store, OPTIONS))
    if committed is not None:
        processor.consumer.offsets[P0] = committed

    asyncio.run(processor.on_partitions_assigned([P0]))

    assert processor.consumer.seeks == [(P0, start)]
    assert processor.next_offsets == {P0: start}
    assert processor.popularity_rows[P0].position == 4
    processor.store_thread.shutdown()


def test_new_popularity_settings_count_again_from_the_start(processor: EventProcessor, store: OnlineStore) -> None:
    apply(processor, record(0, 0, view("ann", "x")))
    asyncio.run(processor._flush())
    options = msgspec.structs.replace(OPTIONS, popularity_settings={"shop": PopularitySettings(half_life_ms=60_000)})
    restarted = own_partitions(EventProcessor(store, options))
    restarted.consumer.offsets[P0] = 1

    asyncio.run(restarted.on_partitions_assigned([P0]))

    assert restarted.consumer.seeks == [(P0, 0)]
    assert restarted.popularity_rows[P0] == PartitionPopularity()
    restarted.store_thread.shutdown()


def failing(times: int, result: str = "rows") -> Any:
    """A store call that fails `times` times before it returns `result`."""
    left = [times]

    def call(*_: Any) -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise StoreError("the disk is full")
        return result

    return call


def test_a_store_call_is_repeated_while_the_store_is_away(
    processor: EventProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "RETRY_S", 0.0)
    before = events.metrics.store_errors.labels("write")._value.get()

    assert asyncio.run(processor.call_store(failing(3), "write")) == "rows"

    assert events.metrics.store_errors.labels("write")._value.get() - before == 3


def test_the_lag_is_measured_against_the_ends_that_the_broker_tells(processor: EventProcessor) -> None:
    processor.next_offsets[P0] = 30
    health = ConsumerHealth(processor)

    health.measure_lag(LogState("cluster", {"events": "id"}, {"events/0": 100, "events/1": 0}))

    assert events.metrics.consumer_lag.labels("events/0")._value.get() == 70


def test_every_assigned_partition_is_reported_with_its_position(processor: EventProcessor) -> None:
    processor.next_offsets[P0] = 30

    asyncio.run(ConsumerHealth(processor).report())

    assert [(update.partition, update.through, update.users) for update in updates(processor)] == [
        ("events/0", 29, []),
        ("events/1", -1, []),
    ]


class Client:
    """A Kafka client whose `stop` takes a while."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    async def stop(self) -> None:
        await asyncio.sleep(self.seconds)


def test_disconnect_reports_a_client_that_does_not_stop_in_time() -> None:
    assert asyncio.run(disconnect([Client(), Client()], 5.0))
    assert not asyncio.run(disconnect([Client(), Client(60.0)], 0.05))
