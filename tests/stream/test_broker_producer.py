"""What the producer does without a cluster, and where it puts a key."""

import asyncio
import socket

import pytest
from kafka.partitioner.default import murmur2

from stream.errors import BrokerError, ColdstreamError, StreamError
from stream.events import Interaction, Item, Search, User
from stream.producer import Position, Producer, topic_of
from stream.record_batches import Partitioner

AT = 1_700_000_000_000


def test_a_token_is_partition_and_offset() -> None:
    assert Position(3, 1234).token() == "3:1234"


def test_each_kind_of_record_has_its_topic() -> None:
    assert topic_of(Interaction(event_id="e", user_id="u", item_id="i", kind="view", at=AT)) == "events"
    assert topic_of(Search(event_id="e", user_id="u", query="tea", at=AT)) == "events"
    assert topic_of(Item(item_id="i", at=AT)) == "items"
    assert topic_of(User(user_id="u", at=AT)) == "users"


def test_keys_go_where_another_client_puts_them() -> None:
    keys = [f"user-{number}".encode() for number in range(500)] + ["ключ".encode(), b"", b"a"]
    partition_of = Partitioner(most=600).partition_of
    for partitions in (1, 4, 7):
        expected = [(murmur2(key) & 0x7FFFFFFF) % partitions for key in keys]
        assert [partition_of(key, partitions) for key in keys] == expected
        assert [partition_of(key, partitions) for key in keys] == expected  # and again, from memory


def test_a_partitioner_that_forgot_its_keys_says_the_same() -> None:
    keys = [f"user-{number}".encode() for number in range(500)]
    partitioner = Partitioner(most=7)
    assert [partitioner.partition_of(key, 4) for key in keys] == [Partitioner().partition_of(key, 4) for key in keys]


def test_no_cluster_is_a_clear_error() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        async def start() -> None:
            await Producer(address, acknowledged_within_s=2).start()

        with pytest.raises(BrokerError, match=rf"no Kafka at {address} .*is the broker running") as refused:
            asyncio.run(start())
    assert isinstance(refused.value, ColdstreamError)


def test_a_server_that_is_not_kafka_is_given_up_in_time() -> None:
    async def start() -> None:
        server = await asyncio.start_server(lambda reader, _: reader.read(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(BrokerError, match="no Kafka at"):
                await Producer(f"127.0.0.1:{port}", acknowledged_within_s=1).start()

    asyncio.run(asyncio.wait_for(start(), 10))


def test_a_producer_that_is_not_started_says_so() -> None:
    record = Search(event_id="e", user_id="u", query="tea", at=AT)
    with pytest.raises(BrokerError, match="not started"):
        asyncio.run(Producer("127.0.0.1:9").send(record))


def test_a_message_too_large_for_the_log_is_refused_before_it_is_sent() -> None:
    with pytest.raises(StreamError, match="a message of 5000000 bytes for topic events is too large"):
        asyncio.run(Producer("127.0.0.1:9").send_raw([("events", b"u", b"x" * 5_000_000)]))
