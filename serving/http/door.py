"""The outermost layer of the HTTP API: what every request passes before it is routed.

It reads ids in addresses, decompresses bodies, ends bodies that come too slowly, answers HEAD, and turns every error
that nothing else caught into a problem and a line in the log. A plain GET passes with a few comparisons.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from serving.http import addresses
from serving.http.bodies import decompressed
from serving.http.problems import Problem, new_request_id, problem_body, unexpected_problem

BODY_TIMEOUT_S: Final = 30.0
"""For the whole body of a request."""
STREAM_SUFFIX: Final = "/stream"

EndConnection = Callable[[tuple[str, int]], object]
"""Called with the address and port of a client whose connection has to end."""

log = logging.getLogger("coldstream.api")


class Door:
    """An ASGI application around the API's own. `end_connection` ends the connection of a slow client."""

    def __init__(
        self, app: ASGIApp, end_connection: EndConnection = lambda _: None, body_timeout_s: float = BODY_TIMEOUT_S
    ) -> None:
        self._app = app
        self._end_connection = end_connection
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        await self._answer(scope, receive, send)

    async def _answer(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        try:
            if addresses.needs_parsing(scope):
                scope = addresses.parsed(scope)
            if scope["method"] == "GET":
                await self._app(scope, receive, send)
            elif scope["method"] == "HEAD":
                await self._head(scope, receive, send)
            else:
                await self._with_body(scope, receive, send)
        except Problem as problem:
            await _send_problem(problem, send)
        except Exception as error:
            await self._report(error, scope, send)

    async def _with_body(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        body = _TimedBody(receive)
        timer = asyncio.get_running_loop().call_later(self._body_timeout_s, self._end, scope, body)
        body.on_end = timer.cancel
        try:
            encoding = next((value for name, value in scope["headers"] if name == b"content-encoding"), None)
            if encoding is None:
                await self._app(scope, body, send)
            else:
                plain, replay = await decompressed(scope, body, encoding)
                await self._app(plain, replay, send)
        finally:
            timer.cancel()

    def _end(self, scope: HTTPScope, body: "_TimedBody") -> None:
        if not body.started:  # nobody reads it: a wrong address, a wrong method
            return
        log.warning("%s %s: the body did not come within %g s", scope["method"], scope["path"], self._body_timeout_s)
        if scope["client"] is not None:
            host, port = scope["client"]
            self._end_connection((host, int(port)))

    async def _head(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        """The same status and headers as for GET, without the body."""

        async def send_head(message: Any) -> None:
            if message["type"] == "http.response.body":
                message = {"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)}
            await send(message)

        if scope["path"].endswith(STREAM_SUFFIX):
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
            await _send_whole(send, 200, headers, b"")
            return
        scope["method"] = "GET"
        await self._app(scope, receive, send_head)

    async def _report(self, error: Exception, scope: HTTPScope, send: Send) -> None:
        """Log what nothing foresaw; the client gets a problem if its response has not started."""
        request_id = new_request_id()
        what = "%s %s: unexpected error, request %s"
        log.error(what, scope["method"], scope["path"], request_id, exc_info=error)
        try:
            await _send_problem(unexpected_problem(request_id), send)
        except Exception:
            log.debug("request %s: its response had started", request_id)


class _TimedBody:
    """The `receive` of a request; says when the whole body is there.

    A client that leaves before, or whose chunks are none, is refused: Litestar would answer with a server error.
    """

    __slots__ = ("_receive", "_whole", "on_end", "started")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.started = False
        self._whole = False
        self.on_end: Callable[[], object] = lambda: None

    async def __call__(self) -> Any:
        self.started = True
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._whole:
            raise Problem(400, "incomplete", "the body ended before its length, or its chunks cannot be read")
        if not message.get("more_body"):
            self._whole = True
            self.on_end()
        return message


async def _send_problem(problem: Problem, send: Send) -> None:
    body = msgspec.json.encode(problem_body(problem))
    headers = [(name.lower().encode(), str(value).encode()) for name, value in (problem.headers or {}).items()]
    headers.append((b"content-type", b"application/problem+json"))
    await _send_whole(send, problem.status_code, headers, body)


async def _send_whole(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
