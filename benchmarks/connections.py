"""Whether look-ups stay quick while thousands of connections are idle, watch live streams, or send slowly.

`python -m benchmarks.connections` starts a system and prints the latency of look-ups alone, then beside the others,
alternating. Goal: p99 beside them at most twice the p99 alone, and every slow connection ended.
"""

import argparse
import asyncio
import contextlib
import itertools
import resource
import statistics
from collections.abc import AsyncIterator
from typing import Any, Final

from benchmarks.printing import print_figures
from testing import load
from testing.supervised import supervised_system

IDLE: Final = 2_000
STREAMS: Final = 1_000
ROUNDS: Final = 5
USERS: Final = 500
SLOW_HEAD: Final = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
SLOW_BODY: Final = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"

Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def measure(port: int, idle: int, streams: int, seconds: float, slow_within_s: float) -> dict[str, Any]:
    """Rounds of look-ups, alone and beside the connections; the medians of their quantiles in ms."""
    alone: list[load.LoadReport] = []
    beside: list[load.LoadReport] = []
    for _ in range(ROUNDS):
        alone.append(await _look_up(port, seconds))
        async with _connections(port, idle, b""), _streams(port, streams):
            beside.append(await _look_up(port, seconds))
    ended = await asyncio.gather(*(_ended(port, start, slow_within_s) for start in (SLOW_HEAD, SLOW_BODY) * 20))
    report = {"alone": _quantiles(alone), f"beside {idle} idle, {streams} streams": _quantiles(beside)}
    return {"rows": report, "slow connections": len(ended), "ended": sum(ended)}


async def _look_up(port: int, seconds: float) -> load.LoadReport:
    requests = (load.get_request(f"/v1/users/u{number % USERS}/recommendations") for number in itertools.count())
    return await load.closed_loop(port, requests, connections=2, seconds=seconds)


@contextlib.asynccontextmanager
async def _connections(port: int, number: int, sent: bytes) -> AsyncIterator[list[Opened]]:
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
    try:
        for _, writer in opened:
            writer.write(sent)
        yield opened
    finally:
        for _, writer in opened:
            writer.close()
        await asyncio.sleep(0.5)


@contextlib.asynccontextmanager
async def _streams(port: int, number: int) -> AsyncIterator[None]:
    """Live streams of different users, each with its first list."""
    async with _connections(port, number, b"") as opened:
        for place, (_, writer) in enumerate(opened):
            writer.write(load.get_request(f"/v1/users/u{place % USERS}/recommendations/stream"))
        heads = await asyncio.gather(*(reader.readuntil(b"data: ") for reader, _ in opened))
        assert all(head.startswith(b"HTTP/1.1 200") for head in heads), heads[0]
        yield


async def _ended(port: int, start: bytes, within_s: float) -> bool:
    """Whether the server ends a connection that goes on with a byte each half second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(start)
    waiting = asyncio.create_task(reader.read())
    for _ in range(int(2 * within_s)):
        writer.write(b"a")
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        if done:
            break
    is_ended = waiting.done()
    waiting.cancel()
    writer.close()
    return is_ended


def _quantiles(reports: list[load.LoadReport]) -> dict[str, float]:
    cuts = [statistics.quantiles(report.latencies, n=100) for report in reports]
    assert all(set(report.statuses) == {200} for report in reports), "every look-up is answered"
    rate = statistics.median(report.per_second for report in reports)
    p50, p99 = (1000 * statistics.median(cut[place] for cut in cuts) for place in (49, 98))
    return {"p50 ms": round(p50, 2), "p99 ms": round(p99, 2), "per second": round(rate)}


def main() -> None:
    """Print the table, or one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=int, default=IDLE)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    timeouts = {"body_timeout_ms": 5_000}
    with supervised_system("--no-train", "--no-archive", **timeouts) as system:
        port = int(system.environment["COLDSTREAM_PORT"])
        report = asyncio.run(measure(port, options.idle, options.streams, options.seconds, 40.0))
    print_figures(report, _show, options.json)


def _show(report: dict[str, Any]) -> None:
    for name, figures in report["rows"].items():
        print(f"{name:<36}", ", ".join(f"{what} {figure}" for what, figure in figures.items()))
    print(f"{'slow heads and bodies':<36}", f"{report['ended']} of {report['slow connections']} ended")


if __name__ == "__main__":
    main()
