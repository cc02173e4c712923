"""`coldstream doctor` and `status` with processes and servers on other hosts."""

import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from serving.commands.status import system_status
from serving.commands.system_checks import answers, check_cluster, check_ports, check_store
from serving.process.scrape import scrape
from serving.settings import Settings, validate
from stream.addresses import Address
from testing.ports import free_port


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_something_listens_or_not(listener: int) -> None:
    assert answers(Address("127.0.0.1", listener))
    assert answers(Address("localhost", listener))
    assert not answers(Address("127.0.0.1", free_port()))
    assert not answers(Address("no-such-host.invalid", 1))


def test_ports_of_this_host_are_free_or_in_use_and_other_hosts_answer(listener: int) -> None:
    away = free_port()
    ports = {
        "api_metrics_port": free_port(),
        "consumer_metrics_port": listener,
        "archive_metrics_port": away,
        "trainer_metrics_port": free_port(),
    }
    hosts = {"consumer_host": "localhost", "archive_host": "localhost"}
    findings = {
        f.what: (f.state, f.detail) for f in check_ports(validate({"kafka": "a:1", "port": listener, **ports, **hosts}))
    }
    assert findings == {
        f"port {listener}": ("warn", "in use"),
        f"api_metrics_port {ports['api_metrics_port']}": ("ok", "free"),
        f"consumer at localhost:{listener}": ("ok", "answers"),
        f"archive at localhost:{away}": ("warn", "does not answer"),
        f"trainer_metrics_port {ports['trainer_metrics_port']}": ("ok", "free"),
    }


def test_a_host_that_is_not_of_this_machine_is_said() -> None:
    findings = list(check_ports(validate({"kafka": "a:1", "host": "192.0.2.1"})))
    assert {finding.state for finding in findings} == {"warn"}
    assert "192.0.2.1 is not an address of this machine" in findings[0].detail


def test_a_cluster_of_which_no_server_answers() -> None:
    servers = f"127.0.0.1:{free_port()},[::1]:{free_port()}"
    (finding,) = check_cluster(validate({"kafka": servers}))
    assert (finding.state, finding.detail) == ("fail", f"nothing listens on {servers}")
    assert finding.cure == "start the cluster, or correct kafka"


def test_a_store_that_does_not_answer_is_named_without_its_password() -> None:
    store = f"redis://:hunter2@127.0.0.1:{free_port()}"
    (finding,) = check_store(validate({"store": store}))
    assert finding.state == "fail"
    assert "hunter2" not in finding.detail + finding.cure
    assert finding.cure.startswith("start redis://:********@127.0.0.1:")


def test_a_process_is_scraped_under_the_host_of_its_setting() -> None:
    registry, port = CollectorRegistry(), free_port()
    Gauge("answer", "", registry=registry).set(42)
    server, thread = start_http_server(port, "127.0.0.1", registry)
    try:
        settings = Settings(host="192.0.2.1", consumer_host="localhost", consumer_metrics_port=port)
        assert (scrape(settings, "consumer") or {})["answer"] == [({}, 42.0)]
    finally:
        server.shutdown()
        thread.join()


def test_nothing_answers() -> None:
    ports = {"port": free_port(), "kafka_port": free_port(), "consumer_metrics_port": free_port()}
    ports |= {"api_metrics_port": free_port(), "archive_metrics_port": free_port(), "trainer_metrics_port": free_port()}
    status = system_status(validate(ports))
    assert [status[name] for name in ("broker", "api", "consumer", "archive", "trainer")] == ["not answering"] * 5
    assert status["event to feature p99 s, 5 min"] is None
