"""Kafka as others use it: other codecs, transactions, damaged batches. Every test shares one running system."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4
from zlib import crc32

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaAdminClient, KafkaProducer

from features.activity import FoldSettings
from features.archive import partitions, read_events
from features.dataset import interactions
from features.event_log import last_positions, read_log
from features.popularity import merge
from features.rebuild import log_by_partition, rebuild
from features.store import open_store
from stream import dead_letters, topics
from stream.batch_probe import probe_now
from stream.events import Interaction, encode
from stream.record_batches import Partitioner
from testing.delivery import archived_events
from testing.second_consumer import owned_partitions, second_consumer
from testing.supervised import COLDSTREAM
from testing.system import DOMAINS, READY_WITHIN_S, System
from testing.waiting import answers, metric_sum, wait_until

PARTITIONS = 4
WITHIN_S = 90


def view(user: str, item: str = "k1", pad: int = 0) -> Interaction:
    now = int(time.time() * 1000)
    return Interaction(uuid4().hex, user, item, "view", now, context={"pad": "x" * pad} if pad else {})


def views(system: System, user: str) -> int:
    answer = httpx.get(f"{system.url}/v1/users/{user}/features", timeout=10)
    return int(answer.json()["summary"]["totals"].get("view", 0)) if answer.status_code == 200 else 0


def archived_users(system: System) -> set[str]:
    folder = system.state / "archive"
    return {
        entry.event.user_id
        for number in partitions(folder, "events")
        for entry in read_events(folder, "events", number)
    }


def caught_up(system: System) -> bool:
    return (
        system.caught_up()
        and system.lag() == 0
        and metric_sum(system.metrics_url("archive"), "coldstream_archive_lag") == 0
    )


def home(user: str) -> int:
    return Partitioner().partition_of(user.encode(), PARTITIONS)


def user_of(partition: int) -> str:
    return next(name for name in iter(lambda: f"p{uuid4().hex[:8]}", "") if home(name) == partition)


async def send(system: System, events: list[Interaction], **options: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=system.broker.bootstrap, linger_ms=50, **options)
    await producer.start()
    try:
        for event in events:
            await producer.send(topics.EVENTS, encode(event), event.user_id.encode())
    finally:
        await producer.stop()


def test_batches_of_every_codec_are_applied_and_archived(system: System) -> None:
    mark = uuid4().hex[:6]
    users = [f"{mark}-{codec}-{n}" for codec in ("gzip", "snappy", "lz4", "zstd") for n in range(8)]
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        events = [view(user, pad=400) for user in users if codec in user]
        asyncio.run(send(system, events, compression_type=codec))
    wait_until(lambda: all(views(system, user) == 1 for user in users), WITHIN_S, "events of every codec are applied")
    wait_until(lambda: set(users) <= archived_users(system), WITHIN_S, "events of every codec are archived")
    assert answers(f"{system.url}/readyz")


def test_aborted_transactions_do_not_count_and_markers_are_no_lag(system: System) -> None:
    mark = uuid4().hex[:6]

    async def transactions() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=system.broker.bootstrap, transactional_id=f"tx-{mark}")
        await producer.start()
        for number, commit in enumerate((True, False, True)):
            await producer.begin_transaction()
            for n in range(8):
                event = view(f"{mark}-{commit}-{n}", item=f"t{number}")
                await producer.send(topics.EVENTS, encode(event), event.user_id.encode())
            await (producer.commit_transaction() if commit else producer.abort_transaction())
        await producer.stop()

    asyncio.run(transactions())
    committed = [f"{mark}-True-{n}" for n in range(8)]
    wait_until(lambda: all(views(system, user) == 2 for user in committed), WITHIN_S, "committed events are applied")
    wait_until(lambda: caught_up(system), WITHIN_S, "the lag of consumer and archive is 0")
    aborted = [f"{mark}-False-{n}" for n in range(8)]
    assert [views(system, user) for user in aborted] == [0] * 8
    assert archived_users(system).isdisjoint(aborted)
    in_the_log = {
        entry.event.user_id for n in range(PARTITIONS) for entry in read_log(system.broker.bootstrap, None, n, 0)
    }
    assert set(committed) <= in_the_log
    assert in_the_log.isdisjoint(aborted)


@contextmanager
def paused(system: System, *parts: str) -> Iterator[None]:
    for part in parts:
        system.processes[part].send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for part in parts:
            system.processes[part].send_signal(signal.SIGCONT)


def damage(log: Path, text: bytes) -> None:
    """Change one byte of a message on the broker's disk, as a failing disk does."""
    for segment in sorted(log.glob("*.log")):
        at = segment.read_bytes().find(text)
        if at >= 0:
            with segment.open("r+b") as file:
                file.seek(at)
                file.write(b"#")
            return
    raise AssertionError(f"{text!r} is not in {log}")


def events_log(system: System, partition: int) -> Path:
    return next((system.state / "kafka").rglob(f"{topics.EVENTS}-{partition}"))


def not_ready_because(system: System) -> dict[str, str]:
    return dict(httpx.get(f"{system.url}/readyz", timeout=10).json()["missing"])


def test_a_damaged_batch_stops_its_partition_only_until_it_is_skipped(system: System) -> None:
    user, other = user_of(2), user_of(1)
    mark = f"damaged-{uuid4().hex}"
    producer = KafkaProducer(bootstrap_servers=system.broker.bootstrap, acks="all")

    def put(event: Interaction) -> int:
        sent = producer.send(topics.EVENTS, encode(event), event.user_id.encode()).get(10)
        return int(sent.offset)

    with paused(system, "consumer", "archiver"):
        put(view(user, "before"))
        bad = put(view(user, mark))
        put(view(user, "after"))
        damage(events_log(system, 2), mark.encode())
    put(view(other))

    wait_until(lambda: views(system, other) == 1, WITHIN_S, "the other partition goes on")
    wait_until(lambda: "consumer" in not_ready_because(system), WITHIN_S, "the API is not ready")
    assert f"events/2 stopped at offset {bad}" in not_ready_because(system)["consumer"]
    assert "coldstream dead-letters skip events/2" in not_ready_because(system)["consumer"]
    assert views(system, user) == 1
    stopped = 'coldstream_partition_stopped{partition="events/2"} 1.0'
    for part in ("consumer", "archive"):
        url = system.metrics_url(part)
        wait_until(lambda url=url: stopped in httpx.get(url).text, WITHIN_S, f"the {part} says so")  # type: ignore[misc]
    wait_until(lambda: (system.lag() or 0) >= 2, WITHIN_S, "the lag is that of the broker's end")

    code, output = skip(system, "events/2")
    assert (code, f"events/2: offsets {bad} to {bad} are skipped" in output) == (0, True), output
    code, output = skip(system, "events/2")
    assert (code, "Traceback" in output, output.startswith("error: ")) == (1, False, True), output
    wait_until(lambda: views(system, user) == 2, WITHIN_S, "the partition goes on behind the batch")
    wait_until(lambda: answers(f"{system.url}/readyz") and caught_up(system), WITHIN_S, "all is well again")
    (letter,) = dead_letters.read(system.broker.bootstrap, reason=dead_letters.UNREADABLE)
    assert mark[1:].encode() in letter.letter.value
    items = [entry.event.item_id for entry in read_log(system.broker.bootstrap, None, 2, bad - 1)]  # type: ignore[union-attr]
    assert items[:2] == ["before", "after"]
    assert probe_now(system.broker.bootstrap, None, topics.EVENTS, 1, 0)[0] is None


def skip(system: System, partition: str) -> tuple[int, str]:
    """Code and output of `coldstream dead-letters skip`."""
    command = [COLDSTREAM, "dead-letters", "skip", partition]
    done = subprocess.run(command, env=system.environment, capture_output=True, text=True, timeout=200, check=False)
    return done.returncode, done.stdout + done.stderr


def grow(system: System, partitions: int) -> None:
    admin = KafkaAdminClient(bootstrap_servers=system.broker.bootstrap)
    admin.create_partitions({topics.EVENTS: partitions})
    admin.close()


def test_two_consumers_and_producers_with_other_partitioners(own_system: System) -> None:
    system = own_system
    mark = uuid4().hex[:6]
    users = [f"{mark}-{n}" for n in range(20)]
    producer = KafkaProducer(bootstrap_servers=system.broker.bootstrap, acks="all", metadata_max_age_ms=500)
    tokens: dict[str, str] = {}

    def write(client: httpx.Client, partitions: int) -> None:
        """Each user twice: over HTTP, and as a producer with librdkafka's default partitioner (CRC32) does."""
        for user in users:
            event = view(user, "foreign")
            number = crc32(user.encode()) % partitions
            sent = producer.send(topics.EVENTS, encode(event), user.encode(), partition=number).get(20)
            tokens[user] = f"{number}:{sent.offset}"
        client.post(
            "/v1/events", content=b"[" + b",".join(encode(view(user)) for user in users) + b"]"
        ).raise_for_status()

    with second_consumer(system) as (url, _), httpx.Client(base_url=system.url, timeout=30) as client:
        wait_until(lambda: owned_partitions(url) == 2, READY_WITHIN_S, "each consumer owns two partitions")
        for _ in range(5):
            write(client, 4)
        for user in users:
            client.get(f"/v1/users/{user}/recommendations", params={"n": 1, "after": tokens[user]}).raise_for_status()
            assert views(system, user) >= 5, "the token names a foreign event, all before it are in"
        grow(system, 6)
        wait_until(lambda: len(producer.partitions_for(topics.EVENTS)) == 6, 60, "the foreign producer sees them")
        for _ in range(6):  # while the group finds out
            write(client, 6)
            time.sleep(1)
        wait_until(lambda: owned_partitions(url) == 3, 60, "the added partitions are assigned")
        write(client, 6)
        expected = dict.fromkeys(users, 24)
        wait_until(lambda: {user: views(system, user) for user in users} == expected, 60, "each event counts once")
        wait_until(
            lambda: (
                archived_events(system.state / "archive")
                == sum(last + 1 for last in last_positions(system.broker.bootstrap, None).values())
            ),
            60,
            "all is archived",
        )
    trained = interactions(system.state / "archive", "shop")
    assert trained["user_id"].value_counts().to_dict() == expected
    wait_until(lambda: caught_up(system), WITHIN_S, "nothing waits")
    time.sleep(1)
    assert system.stop("consumer") == 0
    live = system.open_store()
    rebuilt = open_store(system.state / "rebuilt", "sqlite", DOMAINS)
    rebuild(log_by_partition(system.state / "archive", system.broker.bootstrap, None, DOMAINS), rebuilt, FoldSettings())
    for store in (live, rebuilt):
        rows = store.read_activities([("shop", user) for user in users])
        assert {user: rows["shop", user].summary.totals for user in users} == {user: {"view": 24} for user in users}
        names = [f"events/{n}" for n in range(6)]
        counts = merge(store.read_popularity(names).values()).domains["shop"].segments[""]
        assert counts == pytest.approx({"foreign": counts["foreign"], "k1": counts["foreign"]}, rel=1e-3)
        store.close()
