"""Real brokers for the system tests, each in a folder and on a port of its own."""

import itertools
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stream.admin import create_topics
from stream.broker import Broker
from stream.topics import Topic, topics

FreshTopic = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder carries the marker `system`."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.system)


def free_port() -> int:
    """A port on loopback that nothing listens on at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


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

    def make(partitions: int = 1, **kept: object) -> str:
        name = f"{request.node.name[:80]}-{free_port()}-{next(numbers)}".replace("[", "-").replace("]", "")
        create_topics(broker.bootstrap, None, [Topic(name, partitions, **kept)])
        return name

    return make
