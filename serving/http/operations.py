"""Health and metrics on a port of their own, from threads of their own: they answer whatever the API's port is doing.

Only readiness needs the event loop; a loop that does not answer in time is what keeps the process from serving.
"""

import asyncio
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6, socket
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serving import metrics
from serving.http.problems import NO_TYPE, Problem, problem_body
from serving.http.readiness import missing_parts, substitutes
from serving.http.service import Service

JSON: Final = "application/json"
READINESS_TIMEOUT_S: Final = 3.0
CONNECTION_TIMEOUT_S: Final = 5.0
"""For a whole request line, each header and the answer."""
MAX_CONNECTIONS: Final = 64

Reply = tuple[int, str, bytes]
"""Status, media type and body."""


def start_operations(service: Service, host: str, port: int, loop: asyncio.AbstractEventLoop) -> None:
    """Serve /healthz, /readyz and /metrics in the background, as long as the process lives.

    Raises:
        OSError: the port cannot be used.
    """
    replies: dict[str, Callable[[], Reply]] = {
        "/healthz": lambda: (200, JSON, b'{"status":"ok"}'),
        "/readyz": lambda: _readiness(service, loop),
        "/metrics": lambda: (200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry)),
    }
    handler = type("OperationsHandler", (_Handler,), {"replies": replies})
    server = _Server((host, port), handler)
    threading.Thread(target=server.serve_forever, name="operations", daemon=True).start()


def readiness_reply(missing: dict[str, str], instead: dict[str, str] | None = None) -> Reply:
    """200, or 503 with what is missing and the cure; `instead`: replacements of damaged releases, by domain."""
    body: dict[str, object] = {"status": "not ready" if missing else "ready", "missing": missing}
    if instead:
        body["substitutes"] = instead
    return 503 if missing else 200, JSON, json.dumps(body).encode()


def _readiness(service: Service, loop: asyncio.AbstractEventLoop) -> Reply:
    checking = asyncio.run_coroutine_threadsafe(missing_parts(service), loop)
    try:
        return readiness_reply(checking.result(READINESS_TIMEOUT_S), substitutes(service))
    except TimeoutError:
        checking.cancel()
        return readiness_reply(
            {"event loop": f"it does not answer within {READINESS_TIMEOUT_S:g} s; see the API's log"}
        )


class _Server(ThreadingHTTPServer):
    """A server with a bounded number of threads: who comes when all are busy is turned away at once."""

    daemon_threads = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = AF_INET6 if ":" in address[0] else AF_INET
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, handler)

    def process_request(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left or was too slow: nothing to say."""


class _Handler(BaseHTTPRequestHandler):
    """Answers one request of a connection."""

    replies: dict[str, Callable[[], Reply]]
    timeout = CONNECTION_TIMEOUT_S

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        reply = self.replies.get(path)
        if reply is None:
            problem = Problem(404, NO_TYPE, f"this port answers {', '.join(self.replies)}; the API has its own")
            status, media_type, body = 404, "application/problem+json", json.dumps(problem_body(problem)).encode()
        else:
            status, media_type, body = reply()
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Requests are not logged."""
