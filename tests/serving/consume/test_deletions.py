"""Deletions among the events: they erase what stands before them, once, and leave what stands behind them."""

from features.store import OnlineStore
from serving.consume.events import EventProcessor
from serving.messages import UserDeletion, encode_deletion
from testing.consumer_options import OPTIONS
from testing.memory_kafka import record
from tests.serving.consume.test_events import (
    NOON,
    P0,
    P1,
    apply,
    letters,
    own_partitions,
    processor,
    recent,
    updates,
    view,
)

__all__ = ["processor"]


def deletion(user: str, number: int) -> bytes:
    """The record of the message at the offset `number` of the topic `forget`."""
    (_, _, value), _ = encode_deletion(UserDeletion(user, NOON, ("forget/0", number)))
    assert value is not None
    return value


def test_a_deletion_empties_a_user_s_rows_in_every_domain(processor: EventProcessor, store: OnlineStore) -> None:
    apply(
        processor,
        record(0, 0, view("ann", "x")),
        record(0, 1, view("ann", "n", domain="news")),
        record(0, 2, view("bob", "x")),
    )
    apply(processor, record(0, 3, deletion("ann", 0), key="ann"))
    assert (recent(store, "ann"), recent(store, "ann", "news"), recent(store, "bob")) == ([], [], ["x"])
    assert letters(processor) == []
    assert sorted(updates(processor)[-1].users or ()) == [("news", "ann"), ("shop", "ann")]

    apply(processor, record(0, 4, view("ann", "new", at=NOON + 1)))
    assert recent(store, "ann") == ["new"]


def test_a_deletion_takes_its_place_among_the_events_of_a_batch(processor: EventProcessor, store: OnlineStore) -> None:
    batch = [
        record(0, 0, view("ann", "before")),
        record(0, 1, deletion("ann", 0), key="ann"),
        record(0, 2, view("ann", "after")),
    ]
    apply(processor, *batch)
    assert recent(store, "ann") == ["after"]
    restarted = own_partitions(EventProcessor(store, OPTIONS), P0, P1)  # killed before the commit
    apply(restarted, *batch)
    assert recent(store, "ann") == ["after"]
    restarted.store_thread.shutdown()


def test_a_deletion_sent_twice_leaves_the_events_between(processor: EventProcessor, store: OnlineStore) -> None:
    apply(processor, record(0, 0, deletion("ann", 7), key="ann"), record(0, 1, view("ann", "between")))
    apply(processor, record(0, 2, deletion("ann", 7), key="ann"))
    assert recent(store, "ann") == ["between"]
    apply(processor, record(0, 3, deletion("ann", 8), key="ann"))
    assert recent(store, "ann") == []


def test_a_deletion_under_another_key_is_a_dead_letter(processor: EventProcessor, store: OnlineStore) -> None:
    apply(processor, record(0, 0, view("ann", "x")), record(0, 1, deletion("ann", 0), key="bob"))
    assert [(letter.offset, letter.reason) for letter in letters(processor)] == [(1, "unknown-type")]
    assert recent(store, "ann") == ["x"]
