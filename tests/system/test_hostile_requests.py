"""Hostile requests over the wire, to a system that works: no server error, and look-ups go on meanwhile."""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from testing import load
from testing.hostile_requests import hostile_requests
from testing.system import System


def test_no_request_is_a_server_error(system: System) -> None:
    async def status_of(message: bytes) -> int:
        async with load.Connection(system.port) as connection:
            try:
                return (await connection.request(message))[0]
            except (asyncio.IncompleteReadError, ConnectionError, ValueError):
                return 400  # the server refuses what is not HTTP without a body, or by closing

    async def scenario() -> dict[bytes, int]:
        messages = [request.message() for request in hostile_requests()]
        return {message[:200]: await asyncio.wait_for(status_of(message), 10) for message in messages}

    answers = asyncio.run(scenario())
    assert len(answers) > 300
    assert {message: status for message, status in answers.items() if status >= 500} == {}
    assert httpx.get(f"{system.url}/v1/users/somebody/recommendations").status_code == 200
    log = (system.state / "api.log").read_text("utf-8")
    assert "unexpected error" not in log


@pytest.mark.parametrize(
    "head", [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", b"Content-Length: 9\r\n\r\n"]
)
@pytest.mark.parametrize("path", [b"/v1/events", b"/v1/users/u/recommendations"])
def test_a_body_that_ends_too_soon_is_no_server_error(system: System, path: bytes, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", system.port), timeout=60) as connection:
        connection.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + head)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.makefile("rb").read()
    assert answer == b"" or (answer.startswith(b"HTTP/1.1 400 ") and b'"incomplete"' in answer)


@pytest.mark.parametrize(
    "token", ["events/99:0", "99:0", "0:99999999", "items/0:99999999", "releases/0:0", "nowhere/0:0"]
)
def test_a_token_that_no_write_returned_is_refused_at_once(system: System, token: str) -> None:
    url = f"{system.url}/v1/users/somebody/recommendations"
    httpx.get(url, params={"after": "events/99:0"})  # opens the connection to the broker
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        answer = httpx.get(url, params={"after": token})
        seconds.append(time.monotonic() - started)
        assert (answer.status_code, answer.json()["type"]) == (400, "bad-token")
    assert min(seconds) < 0.9  # before `after_timeout_ms`


def _rules_with_many(mode: str, values: int, rules: int) -> bytes:
    """A look-up whose rules name many values."""
    tests: dict[str, Callable[[int], dict[str, Any]]] = {
        "in": lambda rule: {"title": {"in": [f"no{rule}-{number}" for number in range(values)]}},
        "in and between": lambda rule: {"title": {"in": [f"no{rule}-{n}" for n in range(values)], "absent": False}},
        "fields": lambda _: {f"a{number}": {"absent": True} for number in range(values)},
        "ranges": lambda rule: {f"a{number}": {"above": number, "below": 10**9 + rule} for number in range(values)},
    }
    listed = [{"id": f"r{n}", "action": "boost", "factor": 2, "where": tests[mode](n)} for n in range(rules)]
    return json.dumps({"n": 5, "rules": listed}).encode()


@pytest.mark.parametrize(
    ("mode", "values", "rules"),
    [("in", 1_000, 1_000), ("in", 50_000, 1), ("in and between", 1_000, 90), ("fields", 2_000, 40), ("ranges", 9, 900)],
)
def test_rules_that_come_with_a_look_up_hold_up_nobody(system: System, mode: str, values: int, rules: int) -> None:
    others: list[float] = []

    async def look_up_until(done: asyncio.Event) -> None:
        async with load.Connection(system.port) as connection:
            while not done.is_set():
                started = time.monotonic()
                status, _ = await connection.request(load.get_request("/v1/users/1/recommendations?n=5"))
                assert status == 200
                others.append(time.monotonic() - started)

    async def scenario() -> list[tuple[int, bytes]]:
        done = asyncio.Event()
        other = asyncio.create_task(look_up_until(done))
        bomb = load.post_request("/v1/users/1/recommendations", _rules_with_many(mode, values, rules))
        answers = []
        for _ in range(3):
            async with load.Connection(system.port) as connection:
                answers.append(await asyncio.wait_for(connection.request(bomb), 60))
        done.set()
        await other
        return answers

    answers = asyncio.run(scenario())
    assert {status for status, _ in answers} <= {400, 413}
    assert any(word in answers[0][1] for word in (b"at most", b"too-many", b"length <="))  # says why
    assert max(others) < 5.0  # they took many seconds; a loaded machine takes tenths


def test_ids_with_slashes_have_rows_of_their_own(system: System) -> None:
    now = int(time.time() * 1000)
    events = [
        {
            "type": "interaction",
            "event_id": f"slash-{user}",
            "user_id": user,
            "item_id": "A/B-7",
            "kind": "view",
            "at": now,
        }
        for user in ("slash/42", "slash", "slash/features", "slash?b#c")
    ]
    token = httpx.post(f"{system.url}/v1/events", json=events).json()["token"]
    for event in events:
        user = str(event["user_id"])
        waited = httpx.get(f"{system.url}/v1/users/recommendations", params={"user_id": user, "after": token})
        assert (waited.status_code, waited.json()["user_id"]) == (200, user)
        features = httpx.get(f"{system.url}/v1/users/{quote(user, safe='')}/features").json()
        assert (features["user_id"], features["summary"]["totals"]) == (user, {"view": 1})
