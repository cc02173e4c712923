"""The catalogue path on a real SQLite store, with Kafka in memory: merging, order, redelivery, dead letters."""

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import ConsumerRecord

from features.catalogue import CatalogueEntry, UserProfile
from features.catalogue_topics import decode_message
from features.store import OnlineStore
from serving.consume.catalogue import CatalogueProcessor
from serving.consume.events import EventProcessor
from serving.http.catalogue_feed import CatalogueFeed
from serving.messages import UserDeletion, encode_deletion
from stream import topics
from stream.dead_letters import DeadLetter
from stream.errors import EventError
from stream.events import Item, User, encode, key_of
from stream.partition_guard import PartitionGuard
from testing.consumer_options import OPTIONS
from testing.lookups import domain_state
from testing.memory_kafka import MemoryConsumer, MemoryProducer

NOON = 1_760_000_000_000
ITEMS, USERS = TopicPartition(topics.ITEMS, 0), TopicPartition(topics.USERS, 0)


@pytest.fixture
def processor(store: OnlineStore) -> Iterator[CatalogueProcessor]:
    """A processor that owns both partitions, from their start."""
    events = EventProcessor(store, OPTIONS)
    yield restarted(CatalogueProcessor(store, events))
    events.store_thread.shutdown()


def restarted(processor: CatalogueProcessor) -> CatalogueProcessor:
    calls: list[str] = []
    processor.producer, processor.consumer = MemoryProducer(calls), MemoryConsumer(calls)
    processor.consumer.owned = {ITEMS, USERS}
    processor.guard = PartitionGuard(processor.consumer, OPTIONS.bootstrap, OPTIONS.security, processor.next_offsets)
    asyncio.run(processor.on_partitions_assigned([ITEMS, USERS]))
    return processor


def message(offset: int, update: Item | User | bytes | None, topic: str = topics.ITEMS) -> ConsumerRecord:
    sent = isinstance(update, Item | User)
    key, value = (key_of(update), encode(update)) if sent else (b"shop/tea", update)  # type: ignore[arg-type]
    fields: dict[str, Any] = {"checksum": None, "serialized_key_size": 0, "serialized_value_size": 0, "headers": ()}
    name = topics.USERS if isinstance(update, User) else topic
    return ConsumerRecord(name, 0, offset, NOON, 0, key, value, **fields)  # type: ignore[arg-type]


def apply(processor: CatalogueProcessor, *records: ConsumerRecord) -> None:
    fetched: dict[TopicPartition, list[ConsumerRecord]] = {}
    for record in records:
        fetched.setdefault(TopicPartition(record.topic, record.partition), []).append(record)
    processor.consumer.fetched = fetched
    asyncio.run(processor._step())


def records(processor: CatalogueProcessor, topic: str) -> list[object]:
    return [decode_message(key, value) for name, _, key, value in processor.producer.messages if name == topic]


def letters(processor: CatalogueProcessor) -> list[DeadLetter]:
    return [msgspec.json.decode(value, type=DeadLetter) for value in processor.producer.values(topics.DEAD_LETTERS)]


def test_updates_are_merged_written_and_sent_on_then_committed(
    processor: CatalogueProcessor, store: OnlineStore
) -> None:
    apply(processor, message(0, Item("tea", NOON, title="Tea", category="drinks")), message(0, User("ann", NOON)))
    apply(processor, message(1, Item("tea", NOON + 1, available=False)))
    tea = CatalogueEntry("tea", NOON + 1, title="Tea", category="drinks", available=False)
    assert store.read_item("shop", "tea") == tea
    assert store.read_profile("shop", "ann") == UserProfile("ann", NOON)
    assert store.read_positions(["items/0", "users/0"]) == {"items/0": 1, "users/0": 0}
    assert records(processor, topics.CATALOGUE)[-2] == tea
    assert processor.consumer.commits == [{ITEMS: 1, USERS: 1}, {ITEMS: 2}]
    assert processor.consumer.calls[-3:] == [topics.CATALOGUE, topics.CATALOGUE, "commit"]


def test_a_batch_is_redelivered_after_a_failure_and_changes_nothing(
    processor: CatalogueProcessor, store: OnlineStore
) -> None:
    batch = [message(0, Item("tea", NOON, title="Tea")), message(1, Item("tea", NOON, title="Green tea"))]
    processor.producer.failing = {topics.CATALOGUE}  # killed between the store and the topic
    with pytest.raises(KafkaConnectionError):
        apply(processor, *batch)
    assert processor.consumer.seeks[-1] == (ITEMS, 0)
    assert processor.consumer.commits == []
    before = store.read_item_rows([("shop", "tea")])
    restarted(processor)
    apply(processor, *batch)
    assert store.read_item_rows([("shop", "tea")]) == before
    assert records(processor, topics.CATALOGUE)[0] == CatalogueEntry("tea", NOON, title="Green tea")
    assert processor.consumer.commits == [{ITEMS: 2}]


def test_an_emptied_store_is_filled_from_the_log_again(processor: CatalogueProcessor, store: OnlineStore) -> None:
    apply(processor, *[message(n, Item(f"i{n}", NOON)) for n in range(5)])
    processor.consumer.offsets = {ITEMS: 5, USERS: 7}
    asyncio.run(processor.on_partitions_assigned([ITEMS, USERS]))
    assert processor.consumer.seeks[-2:] == [(ITEMS, 5), (USERS, 0)]


def test_what_cannot_be_applied_becomes_a_dead_letter_and_progress_goes_on(processor: CatalogueProcessor) -> None:
    bad = [
        b"{broken",
        None,
        encode(User("ann", NOON)),
        encode(Item("tea", NOON, "garden")),
        encode(Item("tea", NOON * 2)),
    ]
    apply(processor, *[message(n, update) for n, update in enumerate(bad)])
    reasons = [letter.reason for letter in letters(processor)]
    assert reasons == ["not-json", "not-json", "wrong-topic", "unknown-domain", "bad-time"]
    assert {letter.topic for letter in letters(processor)} == {topics.ITEMS}
    assert processor.consumer.commits == [{ITEMS: 5}]
    progress: list[tuple[str, int]] = []
    feed = CatalogueFeed({}, lambda partition, offset: progress.append((partition, offset)))
    for topic, _, key, value in processor.producer.messages:
        if topic == topics.CATALOGUE:
            feed.on_item(key, value)
    assert progress == [("items/0", 4)]


def test_an_api_process_follows_the_merged_records(processor: CatalogueProcessor) -> None:
    state = domain_state()
    feed = CatalogueFeed({"shop": state}, lambda _partition, _offset: None)
    apply(processor, message(0, Item("tea", NOON, title="Tea", available=False)), message(1, Item("cup", NOON)))
    apply(processor, message(2, Item("tea", NOON + 1, category="drinks")))
    apply(
        processor, message(0, User("ann", NOON, segment="old")), message(1, User("ann", NOON + 1, attributes={"a": 1}))
    )
    for topic, _, key, value in processor.producer.messages:
        {topics.CATALOGUE: feed.on_item, topics.PROFILES: feed.on_user}[topic](key, value)
    with pytest.raises(EventError):
        feed.on_item(b"shop/x", b'{"type":"item","item_id":"x","at":' + b"9" * 5_000 + b"}")
    tea = state.domain.items["tea"]
    assert (tea.title, tea.category, tea.available) == ("Tea", "drinks", False)
    assert state.domain.segments == {"ann": "old"}
    sent = len(processor.producer.messages)
    apply(processor, deletion("ann", 2, 0))
    for topic, _, key, value in processor.producer.messages[sent:]:
        if topic == topics.PROFILES:
            feed.on_user(key, value)
    assert state.domain.segments == {}


def deletion(user: str, offset: int, number: int) -> ConsumerRecord:
    """The record at `offset` of the message at the offset `number` of the topic `forget`."""
    _, (_, key, value) = encode_deletion(UserDeletion(user, NOON, ("forget/0", number)))
    return dataclasses.replace(message(offset, value, topics.USERS), key=key)


def test_a_deletion_takes_its_place_among_the_updates_of_a_profile(
    processor: CatalogueProcessor, store: OnlineStore
) -> None:
    before, after = User("ann", NOON, segment="old", attributes={"a": 1}), User("ann", NOON + 1, attributes={"b": 2})
    batch = [message(0, before), message(1, User("bob", NOON, segment="s")), deletion("ann", 2, 0), message(3, after)]
    expected = {("shop", "ann"): UserProfile("ann", NOON + 1, attributes={"b": 2})}
    for _ in range(2):  # once more, as after a kill before the commit
        apply(restarted(processor), *batch)
        assert store.read_profiles(expected) == expected
        assert store.read_profile("shop", "bob") is not None
    assert letters(processor) == []


def test_a_deletion_of_a_profile_that_was_sent_twice_leaves_the_updates_between(
    processor: CatalogueProcessor, store: OnlineStore
) -> None:
    apply(processor, message(0, User("ann", NOON, segment="old")), deletion("ann", 1, 0))
    assert store.read_profile("shop", "ann") is None
    apply(processor, message(2, User("ann", NOON, segment="new")))
    apply(processor, deletion("ann", 3, 0))
    profile = store.read_profile("shop", "ann")
    assert profile is not None
    assert profile.segment == "new"
