"""What goes wrong in production, done to real processes: killed, locked, starved, fed with garbage."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from kafka import KafkaProducer

from features.event_log import last_positions
from models.releases.manifest import ITEM_KNN
from serving.consume.archive_lag import wait_for_archive
from serving.settings import read
from stream import dead_letters
from stream.broker import Broker
from stream.errors import StreamError
from stream.events import Interaction, encode
from testing.delivery import archived_events, delivery_report, wait_archived
from testing.environment import system_environment
from testing.event_writer import write_for
from testing.random_kills import kill_at_random
from testing.random_release import write_random_release
from testing.redis_server import redis_server
from testing.relay import relay_to
from testing.system import READY_WITHIN_S, System
from testing.waiting import metric_sum, wait_until
from tests.system.conftest import system_in

CLEAN = {
    "lost": 0,
    "counted_twice": 0,
    "rows_unlike_rebuild": 0,
    "popularity_unlike_rebuild": [],
    "archive_unlike_log": False,
}


CONSUMER_ENDS_S = 30
"""Under a busy machine; it takes two seconds without a broker, five with one that says nothing."""


class Counted(System):
    """A system that several tests harm in turn: it remembers all that it acknowledged, and every count is over that."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.written: list[Interaction] = []
        self.sound = True

    def write(self, seconds: float) -> list[Interaction]:
        """What was acknowledged in a while of writing."""
        events = write_for(self.port, seconds)
        self.written += events
        return events


@pytest.fixture(scope="module")
def in_turn() -> Iterator[tuple[ExitStack, list[Counted]]]:
    """The systems that `counted` started; what was acknowledged is counted once more when the last one has stopped."""
    with ExitStack() as running:
        started: list[Counted] = []
        yield running, started
        if started and started[-1].sound:
            assert stopped(started[-1], started[-1].written) == CLEAN


@pytest.fixture
def counted(in_turn: tuple[ExitStack, list[Counted]], tmp_path_factory: pytest.TempPathFactory) -> Counted:
    """A system that is ready and whose last count was clean: after a test that failed, the next one gets a new one."""
    running, started = in_turn
    if not started or not started[-1].sound:
        started.append(running.enter_context(Counted(tmp_path_factory.mktemp("counted") / "state")))
    system = started[-1]
    system.wait_ready()
    system.sound = False
    return system


@pytest.fixture(scope="module")
def uncounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system for tests that need no count: one spoils its log, another its releases."""
    with system_in(tmp_path_factory.mktemp("uncounted")) as running:
        yield running


def judged(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: figures[name] for name in CLEAN}


def settle(system: System, within_s: float = 300) -> None:
    wait_until(system.caught_up, within_s, "the consumer has caught up")


def outcome(system: Counted, within_s: float = 300) -> dict[str, Any]:
    """What became of everything that was ever acknowledged, once it is applied, popular and archived."""
    settle(system, within_s)
    ends, live = last_positions(system.broker.bootstrap, None), system.open_store()

    def counts() -> dict[str, int]:
        return {name: row.position for name, row in live.read_popularity(list(ends)).items()}

    wait_until(
        lambda: counts() == {name: end for name, end in ends.items() if end >= 0}, within_s, "popularity is written"
    )
    live.close()
    wait_archived(system, within_s)
    figures = judged(delivery_report(system, system.written))
    system.sound = figures == CLEAN
    return figures


def stopped(system: System, written: list[Interaction], within_s: float = 300) -> dict[str, Any]:
    """What became of the events, once everything is applied and every part has stopped."""
    settle(system, within_s)
    wait_archived(system, within_s)
    for name in ("api", "consumer", "archiver"):
        assert system.stop(name) == 0
    return judged(delivery_report(system, written))


def produce(system: System, messages: list[tuple[bytes | None, bytes]]) -> None:
    producer = KafkaProducer(bootstrap_servers=system.broker.bootstrap, acks="all")
    for sent in [producer.send("events", value, key) for key, value in messages]:
        sent.get(30)
    producer.close()


def view(user: str, event_id: str, item: str = "i1") -> Interaction:
    return Interaction(event_id=event_id, user_id=user, item_id=item, kind="view", at=int(time.time() * 1000))


def test_twenty_kills_at_random_moments_lose_nothing_and_count_nothing_twice() -> None:
    figures = kill_at_random(times=20, seed=11)
    assert sum(figures["kills"].values()) == 20
    assert figures["acknowledged"] > 1_000
    assert judged(figures) == CLEAN, figures


def test_a_consumer_whose_broker_goes_away_while_it_starts_says_so(broker: Broker, tmp_path: Path) -> None:
    with relay_to(broker.port) as relay:
        relay.left = 2  # of the check and the client that wait for the cluster; the consumer's own find nobody
        variables = system_environment(tmp_path, kafka=relay.address)
        command = [sys.executable, "-m", "serving.consume.app"]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    lost = ("lost the connection to Kafka while starting", f"Unable to bootstrap from {relay.address}")
    assert any(message in done.stdout for message in lost)
    assert "Traceback" not in done.stdout + done.stderr


def test_garbage_is_set_aside_and_the_stream_goes_on(uncounted: System) -> None:
    system = uncounted
    good = view("ann", "g1")
    half = encode(good)[:40]
    produce(
        system,
        [
            (b"ann", half),
            (b"ann", b"\x00\xff" * 450_000),
            (b"ann", encode(good).decode().replace("i1", "caf\xe9").encode("latin-1")),
            (b"bob", encode(good)),
            (None, encode(good)),
            (b"ann", encode(msgspec.structs.replace(good, domain="garden"))),
            (b"ann", b'{"type": "user", "user_id": "ann", "at": 1700000000000}'),
            (b"ann", b""),
            (b"ann", encode(good)),
        ],
    )
    settle(system)
    row = httpx.get(f"{system.url}/v1/users/ann/features").json()
    assert row["summary"]["totals"] == {"view": 1}
    bootstrap = system.broker.bootstrap
    letters = dead_letters.read(bootstrap)
    assert sorted(letter.letter.reason for letter in letters) == sorted(
        ["not-json", "too-large", "not-utf8", "wrong-key", "wrong-key", "unknown-domain", "wrong-topic", "not-json"]
    )
    (first,) = [letter for letter in letters if letter.letter.value == half]
    assert (first.letter.topic, first.letter.key) == ("events", "ann")
    mended = encode(view("ann", "g2"))
    dead_letters.replay(bootstrap, [first.number], value=mended)
    wait_until(lambda: _totals(system, "ann") == {"view": 2}, 60, "the mended event is applied")
    assert [letter.number for letter in dead_letters.read(bootstrap) if letter.replayed] == [first.number]
    wrong = [letter for letter in letters if letter.letter.reason == "wrong-key"]
    dead_letters.replay(bootstrap, [letter.number for letter in wrong])
    with pytest.raises(StreamError, match="dead letter 999 does not exist; `coldstream dead-letters list` shows"):
        dead_letters.replay(bootstrap, [first.number, 999])
    settle(system)
    assert _totals(system, "ann") == {"view": 2}  # keyed rightly now, and known by its id
    assert len(dead_letters.read(bootstrap)) == len(letters)


def test_the_consumer_waits_for_a_locked_store(counted: Counted) -> None:
    system = counted

    def errors() -> float:
        return metric_sum(system.metrics_url("consumer"), 'coldstream_store_errors_total{operation="write"}')

    system.write(1)
    settle(system)
    before = errors()
    lock = sqlite3.connect(system.state / "feast" / "online.db", timeout=30)
    lock.execute("begin immediate")
    system.write(2)
    wait_until(lambda: (system.lag() or 0) > 0, 60, "the lag shows that the store is away")
    wait_until(
        lambda: errors() > before,
        60,
        "the consumer says that it cannot write",
    )
    system.write(1)
    lock.rollback()
    lock.close()
    assert outcome(system) == CLEAN


def test_the_consumer_waits_for_a_redis_that_is_away(tmp_path: Path) -> None:
    import shutil

    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server is installed")
    with redis_server(tmp_path) as (address, server), System(tmp_path / "state", address) as system:
        wait_until(lambda: system.lag() is not None, READY_WITHIN_S, "the consumer has its partitions")
        wait_until(lambda: httpx.get(f"{system.url}/healthz").status_code == 200, 60, "the API answers")
        before = write_for(system.port, 1)
        server.send_signal(signal.SIGSTOP)
        during = write_for(system.port, 1)
        time.sleep(9)
        server.send_signal(signal.SIGCONT)
        assert stopped(system, [*before, *during]) == CLEAN


def test_consumers_join_and_leave(counted: Counted) -> None:
    system = counted
    system.write(1)
    other = dict(system.environment)
    other["COLDSTREAM_CONSUMER_METRICS_PORT"] = str(int(other["COLDSTREAM_TRAINER_METRICS_PORT"]))
    log = (system.state / "second.log").open("wb")
    second = subprocess.Popen([sys.executable, "-m", "serving.consume.app"], env=other, stdout=log, stderr=log)
    try:
        shared = (system.state / "second.log").read_text
        wait_until(
            lambda: system.write(0.5) and "assigned partitions" in shared("utf-8"),
            READY_WITHIN_S,
            "the second one joins",
        )
        system.write(2)
        system.kill("consumer")
        system.write(1)
        system.start("consumer")
        system.write(2)
    finally:
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 0
        log.close()
    system.write(1)
    wait_until(lambda: system.lag() is not None, READY_WITHIN_S, "the first one is back")
    assert outcome(system) == CLEAN


def test_a_broker_that_is_restarted_is_found_again(counted: Counted) -> None:
    system = counted
    system.write(1)
    system.broker.stop()
    system.broker.start()
    system.write(2)
    assert outcome(system) == CLEAN


def test_parts_stop_when_asked_although_the_broker_is_gone(counted: Counted) -> None:
    system = counted
    system.write(1)
    system.kill("broker")
    for name in ("api", "archiver", "consumer"):
        began = time.monotonic()
        assert system.stop(name) in (0, 1)
        assert time.monotonic() - began < (CONSUMER_ENDS_S if name == "consumer" else 45), name
    system.start("broker")
    for name in ("api", "archiver", "consumer"):
        system.start(name)
    wait_until(lambda: system.lag() is not None, READY_WITHIN_S, "the consumer is back")
    assert outcome(system) == CLEAN


def test_a_consumer_ends_although_the_broker_says_nothing(counted: Counted) -> None:
    """It takes connections and never answers: what was consumed and not committed comes again, and counts once."""
    system = counted
    system.write(1)
    assert system.broker.pid is not None
    os.kill(system.broker.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert system.stop("consumer") == 0
        assert time.monotonic() - began < CONSUMER_ENDS_S
    finally:
        os.kill(system.broker.pid, signal.SIGCONT)
    system.start("consumer")
    wait_until(lambda: system.lag() is not None, READY_WITHIN_S, "the consumer is back")
    assert outcome(system) == CLEAN


def test_an_archive_without_space_keeps_what_it_took_and_goes_on(counted: Counted) -> None:
    system = counted
    pid = system.processes["archiver"].pid

    def errors() -> float:
        return metric_sum(system.metrics_url("archive"), "coldstream_archive_errors_total")

    before, archived = errors(), archived_events(system.state / "archive")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))
    written = system.write(2)
    wait_until(lambda: errors() > before, 60, "the archive says that it cannot write")
    assert archived_events(system.state / "archive") == archived
    settings, messages = read(None, system.environment), list[str]()
    assert wait_for_archive(settings, messages.append, within_s=1) >= len(written)
    assert messages[1].startswith("the archive is ")
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert wait_for_archive(settings, messages.append) == 0
    assert archived_events(system.state / "archive") >= archived + len(written)
    assert outcome(system) == CLEAN


def test_releases_are_swapped_and_refused_without_a_failed_request(uncounted: System) -> None:
    system = uncounted
    root = system.state / "releases"
    rng = np.random.default_rng(0)
    base = system.url
    first = write_random_release(root, 200, ITEM_KNN, rng)
    wait_until(lambda: _serving(base) == first, 60, "the first release serves")
    token = httpx.post(f"{base}/v1/events", content=encode(view("eve", "r1", "i7"))).json()["token"]
    statuses: list[int] = []
    seen: set[str] = set()
    with httpx.Client(base_url=base, timeout=10) as client:

        def look() -> None:
            answer = client.get("/v1/users/eve/recommendations", params={"after": token})
            statuses.append(answer.status_code)
            seen.add(answer.json()["release"])

        for number in range(5):
            release_id = write_random_release(root, 200 + number, ITEM_KNN, rng)
            wait_until(
                lambda release_id=release_id: (look(), _serving(base) == release_id)[1], 60, "the next release serves"
            )
        good = release_id
        damaged = write_random_release(root, 50, ITEM_KNN, rng)
        file = root / "shop" / damaged / "popularity.npy"
        raw = bytearray(file.read_bytes())
        raw[-1] ^= 1
        file.write_bytes(raw)
        wait_until(lambda: _serving(base) in {good, damaged}, 60, "something serves")
        (root / "shop" / "current.json").write_text(f'{{"release":"{good}"}}')
        wait_until(lambda: (look(), _serving(base) == good)[1], 60, "the good one serves again")
        (root / "shop" / "current.json").write_text(f'{{"release":"{damaged}"}}')
        wait_until(lambda: _refused(base) is not None, 60, "the damaged one is refused")
        for _ in range(20):
            look()
    assert set(statuses) == {200}
    assert len(seen) >= 5
    assert _serving(base) == good


def _serving(base: str) -> str | None:
    serving: str | None = httpx.get(f"{base}/v1/releases").json()["shop"]["serving"]
    return serving


def _refused(base: str) -> dict[str, Any] | None:
    refused = httpx.get(f"{base}/v1/releases").json()["shop"]["refused"]
    return next((release for release in refused if release["reason"] == "hash-mismatch"), None)


def _totals(system: System, user: str) -> dict[str, int]:
    row = httpx.get(f"{system.url}/v1/users/{user}/features").json()
    totals: dict[str, int] = row["summary"]["totals"]
    return totals
