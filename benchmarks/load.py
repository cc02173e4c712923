"""A light HTTP/1.1 client for load: keep-alive connections that send, wait and time, and little else."""

import asyncio
import time
from collections.abc import Iterator

import msgspec


class Load(msgspec.Struct, frozen=True):
    """What a run measured: seconds of each request, statuses by count, and the seconds it took in all."""

    latencies: list[float]
    statuses: dict[int, int]
    elapsed_s: float

    @property
    def per_second(self) -> float:
        return len(self.latencies) / self.elapsed_s


async def get(port: int, paths: Iterator[str], connections: int, seconds: float) -> Load:
    """Ask for `paths` on loopback over `connections` connections, each with one request under way, for `seconds`."""
    requests = (f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths)
    return await send(port, requests, connections, seconds)


async def post(port: int, path: str, bodies: Iterator[bytes], connections: int, seconds: float) -> Load:
    """Post JSON `bodies` to `path` in the same way; ends early when there are no more."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
    requests = (f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies)
    return await send(port, requests, connections, seconds)


async def send(port: int, requests: Iterator[bytes], connections: int, seconds: float) -> Load:
    """Whole requests, each connection one at a time."""
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    started = time.perf_counter()
    until = started + seconds
    await asyncio.gather(*(_connection(port, requests, until, latencies, statuses) for _ in range(connections)))
    return Load(latencies, statuses, time.perf_counter() - started)


async def _connection(
    port: int, requests: Iterator[bytes], until: float, latencies: list[float], statuses: dict[int, int]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        while (sent := time.perf_counter()) < until and (request := next(requests, None)) is not None:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(head))
            latencies.append(time.perf_counter() - sent)
            status = int(head[9:12])
            statuses[status] = statuses.get(status, 0) + 1
    finally:
        writer.close()


def _length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.index(b"content-length:") + 15
    return int(lowered[start : lowered.index(b"\r\n", start)])
