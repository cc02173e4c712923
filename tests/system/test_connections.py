"""Connections of clients that send slowly, nothing, or too much of everything: others are answered meanwhile."""

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import httpx
import pytest

from stream.child_process import start_child
from testing.environment import system_environment
from testing.ports import free_port
from testing.waiting import answers, metric_sum, wait_until

HEAD = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\n"


class Api:
    """An API process alone, with small limits: it needs no broker to accept connections."""

    def __init__(self, port: int, operations: int) -> None:
        self.port, self.url, self.operations = port, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{operations}"

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        connection.sendall(sent)
        return connection


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("connections")
    limits = {"max_connections": 200, "idle_timeout_ms": 2_000, "body_timeout_ms": 1_000, "max_streams_per_user": 3}
    settings = {"state": folder / "state", "kafka": f"127.0.0.1:{free_port()}", **limits}
    environment = system_environment(**settings)  # type: ignore[arg-type]
    with (folder / "api.log").open("wb") as log:
        process = start_child([sys.executable, "-m", "serving.http.app"], env=environment, stdout=log, stderr=log)
        api = Api(int(environment["COLDSTREAM_PORT"]), int(environment["COLDSTREAM_API_METRICS_PORT"]))
        try:
            wait_until(lambda: answers(f"{api.url}/healthz"), 60, "the API answers")
            yield api
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def connections(api: Api, number: int, sent: bytes = b"") -> Iterator[list[socket.socket]]:
    opened = [api.connect(sent) for _ in range(number)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()


def ended_within(connection: socket.socket, seconds: float) -> bool:
    """Whether the server ends the connection in time."""
    deadline = time.monotonic() + seconds
    connection.settimeout(seconds)
    try:
        while connection.recv(65_536):
            connection.settimeout(max(0.01, deadline - time.monotonic()))
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"X-Header: a", b"POST"], ids=["nothing", "head", "header", "word"])
def test_who_sends_no_whole_head_is_ended(api: Api, sent: bytes) -> None:
    with closing(api.connect(sent)) as connection:
        assert not ended_within(connection, 0.5)
        assert ended_within(connection, 60)


def test_who_sends_a_byte_now_and_then_is_ended(api: Api) -> None:
    for begin, drip in ((HEAD, b"X"), (HEAD + b"Content-Length: 1000\r\n\r\n", b" ")):
        with closing(api.connect(begin)) as connection:
            deadline, is_open = time.monotonic() + 60, True
            while is_open and time.monotonic() < deadline:
                try:
                    connection.sendall(drip)
                except ConnectionError:
                    is_open = False
                is_open = is_open and not ended_within(connection, 0.2)
            assert not is_open


def test_idle_connections_keep_nobody_out(api: Api) -> None:
    with connections(api, 150):
        for _ in range(5):
            assert httpx.get(f"{api.url}/healthz", timeout=20).status_code == 200
        assert metric_sum(f"{api.operations}/metrics", "coldstream_open_connections") >= 150


def test_a_client_with_all_connections_makes_room(api: Api) -> None:
    with connections(api, 400):
        assert httpx.get(f"{api.operations}/healthz", timeout=20).status_code == 200
        assert httpx.get(f"{api.url}/healthz", timeout=5).status_code == 200
        name = 'coldstream_connections_ended_total{reason="full"}'
        assert metric_sum(f"{api.operations}/metrics", name) > 0


def test_health_and_metrics_have_a_port_of_their_own(api: Api) -> None:
    assert httpx.get(f"{api.operations}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{api.operations}/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
    assert "broker" in ready.json()["missing"]
    assert ready.json() == httpx.get(f"{api.url}/readyz").json()
    assert "coldstream_open_streams" in httpx.get(f"{api.operations}/metrics").text
    assert httpx.head(f"{api.operations}/metrics").content == b""
    other = httpx.get(f"{api.operations}/v1/popular")
    assert (other.status_code, other.headers["content-type"]) == (404, "application/problem+json")


def test_streams_beyond_the_limit_of_a_user_are_refused(api: Api) -> None:
    stream = b"GET /v1/users/u/recommendations/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
    wait_until(lambda: b"200" in first_line(api, stream), 60, "the store is open")
    wait_until(lambda: metric_sum(f"{api.operations}/metrics", "coldstream_open_streams") == 0, 60, "all have ended")
    with connections(api, 3, stream) as opened:
        assert all(connection.recv(12) == b"HTTP/1.1 200" for connection in opened)
        assert b"429" in first_line(api, stream)
        assert b"200" in first_line(api, stream.replace(b"/u/", b"/v/"))
    wait_until(lambda: b"200" in first_line(api, stream), 60, "closed streams no longer count")


def first_line(api: Api, request: bytes) -> bytes:
    with closing(api.connect(request)) as connection:
        return connection.recv(12)
