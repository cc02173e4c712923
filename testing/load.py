"""A light HTTP/1.1 load generator: keep-alive connections that send, wait and measure, and little else."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import msgspec

HEAD = "HTTP/1.1\r\nHost: localhost\r\n"


class LoadReport(msgspec.Struct, frozen=True):
    """What a run measured: the latency of each request in seconds, the number of each status, the seconds in all."""

    latencies: list[float]
    statuses: dict[int, int]
    elapsed_s: float

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.elapsed_s


class Connection:
    """One keep-alive connection to a port on loopback, one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def request(self, message: bytes) -> tuple[int, bytes]:
        """Send a whole request; the status and the body of its response."""
        self._writer.write(message)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        start = head.index(b"content-length:") + 15
        body = await self._reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
        return int(head[9:12]), body

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def get_request(path: str) -> bytes:
    """A GET request."""
    return f"GET {path} {HEAD}\r\n".encode()


def post_request(path: str, body: bytes) -> bytes:
    """A POST request with a JSON body."""
    return f"POST {path} {HEAD}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def closed_loop(port: int, requests: Iterator[bytes], connections: int, seconds: float) -> LoadReport:
    """Send the next request of a connection when its response is there; ends early when there are no more requests."""
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    started = time.perf_counter()
    until = started + seconds

    async def work() -> None:
        async with Connection(port) as connection:
            while (sent := time.perf_counter()) < until and (request := next(requests, None)) is not None:
                status, _ = await connection.request(request)
                latencies.append(time.perf_counter() - sent)
                statuses[status] = statuses.get(status, 0) + 1

    await asyncio.gather(*(work() for _ in range(connections)))
    return LoadReport(latencies, statuses, time.perf_counter() - started)


async def open_loop(port: int, requests: Sequence[bytes], per_second: float, connections: int = 8) -> LoadReport:
    """Send on a schedule: each request when it is due, or as soon as a connection is free after that.

    Latencies count from when a request was due.
    """
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    started = time.perf_counter()
    due = iter([(started + number / per_second, request) for number, request in enumerate(requests)])

    async def work() -> None:
        async with Connection(port) as connection:
            for at, request in due:
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                status, _ = await connection.request(request)
                latencies.append(time.perf_counter() - at)
                statuses[status] = statuses.get(status, 0) + 1

    await asyncio.gather(*(work() for _ in range(connections)))
    return LoadReport(latencies, statuses, time.perf_counter() - started)
