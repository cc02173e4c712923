"""Hostile requests over the wire, to a system that works: no server error, and look-ups go on meanwhile."""

import asyncio

import httpx

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
