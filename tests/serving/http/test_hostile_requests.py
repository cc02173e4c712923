"""Whatever a request holds, it gets an answer that is no server error, and never a long wait."""

import asyncio
from typing import Any
from urllib.parse import unquote

from serving.http.app import build
from serving.http.door import Door
from serving.http.service import Service
from testing.hostile_requests import HostileRequest, hostile_requests


async def status_of(app: Any, request: HostileRequest) -> int:
    """The status that an ASGI application answers."""
    path, _, query = request.target.partition("?")
    headers = [(name.encode(), value.encode("latin-1")) for name, value in request.headers]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "method": request.method,
        "path": unquote(path, errors="replace"),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": headers,
        "client": None,
        "server": ("localhost", 80),
        "extensions": {},
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": request.body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return int(sent[0]["status"])


def test_no_request_is_a_server_error(service: Service) -> None:
    async def scenario() -> dict[str, int]:
        app = Door(build(service))
        service.lookups.start()
        answers = {repr(request)[:200]: await status_of(app, request) for request in hostile_requests()}
        await service.lookups.stop()
        return answers

    answers = asyncio.run(scenario())
    assert len(answers) > 300
    unavailable = 503  # no store and no broker here
    assert {what: status for what, status in answers.items() if status >= 500 and status != unavailable} == {}
