"""Real brokers for the system tests, each in a folder and on a port of its own."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from stream.admin import create_topics
from stream.broker import Broker
from stream.topics import Topic, topics
from testing.kafka_classes import use_kafka_classes
from testing.ports import free_port
from testing.system import System

FreshTopic = Callable[..., str]


TEST_TIMEOUT_S = 900
LONGEST = ("test_faults", "test_rollout", "test_cli", "test_lookups", "test_domains")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests here carry the marker `system` and have time on a busy machine; the longest files begin first."""
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.system)
        item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))
    ours.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))
    items[:] = [item for item in items if Path(__file__).parent not in item.path.parents] + ours


@pytest.fixture(scope="session", autouse=True)
def kafka_classes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every broker of the tests starts with half the processor time."""
    use_kafka_classes(tmp_path_factory.mktemp("classes"))


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
    """`fresh_topic(partitions=1)` creates an empty topic on the session's broker and returns its name."""
    numbers = itertools.count()

    def create(partitions: int = 1, **settings: Any) -> str:
        name = f"{request.node.name[:80]}-{token_hex(4)}-{next(numbers)}".replace("[", "-").replace("]", "")
        create_topics(broker.bootstrap, None, [Topic(name, partitions, **settings)])
        return name

    return create


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
        running.wait_ready()
        yield running
