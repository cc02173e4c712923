"""Static members of the consumer groups: restarts without a rebalance, and one process under each name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from serving.process.state_folder import prepare_state_folder
from serving.settings import EXIT_MISCONFIGURED
from stream import topics
from testing.second_consumer import owned_partitions, second_consumer
from testing.system import READY_WITHIN_S, System
from testing.waiting import wait_until

READY = "the consumer is ready: "
ASSIGNED = "assigned partitions: "


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system whose consumers may take minutes to start again, on whatever machine."""
    with System(tmp_path_factory.mktemp("pair") / "state", session_timeout_ms=600_000) as running:
        running.wait_ready()
        yield running


def lines(system: System, log: str, words: str) -> list[str]:
    return [line for line in (system.state / log).read_text("utf-8").splitlines() if words in line]


def assigned(system: System, log: str) -> list[set[str]]:
    """The partitions of each assignment."""
    return [set(line.split(ASSIGNED)[1].split(", ")) for line in lines(system, log, ASSIGNED)]


def test_a_killed_consumer_has_its_partitions_back_without_a_rebalance(pair: System) -> None:
    first = pair.metrics_url("consumer")
    with second_consumer(pair) as (second, _):
        wait_until(lambda: owned_partitions(second) == 2 == owned_partitions(first), READY_WITHIN_S, "two each")
        others, own = assigned(pair, "second.log"), assigned(pair, "consumer.log")
        pair.kill("consumer")
        pair.start("consumer")
        wait_until(lambda: owned_partitions(first) == 2, READY_WITHIN_S, "the first one has its partitions")
        assert assigned(pair, "consumer.log") == [*own, own[-1]]
        assert assigned(pair, "second.log") == others
        assert len({line.split(READY)[1] for line in lines(pair, "consumer.log", READY)}) == 1
    wait_until(lambda: owned_partitions(first) == 4, READY_WITHIN_S, "one that stops cleanly leaves the group")


def test_a_consumer_whose_name_another_one_takes_ends_and_says_so(pair: System, tmp_path: Path) -> None:
    name = lines(pair, "consumer.log", READY)[-1].split(READY)[1]
    state = tmp_path / "other"  # as on another machine: no lock tells
    prepare_state_folder(state)
    with second_consumer(pair, COLDSTREAM_STATE=str(state), COLDSTREAM_CONSUMER_ID=name) as (second, process):
        wait_until(lambda: pair.processes["consumer"].poll() is not None, READY_WITHIN_S, "the first one ends")
        assert pair.processes["consumer"].wait() == EXIT_MISCONFIGURED
        assert lines(pair, "consumer.log", f"another consumer joined under the name {name}")
        wait_until(lambda: owned_partitions(second) == 4, READY_WITHIN_S, "the other one has the partitions")
        assert process.poll() is None
    pair.start("consumer")
    pair.wait_ready()


def test_partitions_added_after_a_restart_of_the_leader_are_read(pair: System) -> None:
    url = pair.metrics_url("consumer")
    wait_until(lambda: owned_partitions(url) == 4, READY_WITHIN_S, "the consumer has all partitions")
    pair.kill("consumer")
    pair.start("consumer")
    wait_until(lambda: owned_partitions(url) == 4, READY_WITHIN_S, "the consumer has all partitions")
    admin = KafkaAdminClient(bootstrap_servers=pair.broker.bootstrap)
    admin.create_partitions({topics.EVENTS: 6})
    admin.close()
    wait_until(lambda: owned_partitions(url) == 6, 120, "the added partitions are assigned")
