"""Catching up on a log until every event's features are written, on each store; and events over HTTP.

The log: Zipf-popular items, users of uneven activity (see `testing.synthetic`), a user for every 20 events.
`coldstream bench ingest [--events 1000000] [--store sqlite|redis] [--json]`
"""

import argparse
import asyncio
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import numpy as np
import psutil

from benchmarks.measurements import machine, percentiles, worked_s
from benchmarks.printing import print_figures
from stream import topics
from stream.admin import create_topics
from stream.broker import Broker
from stream.bulk import BulkProducer
from stream.child_process import start_child
from stream.events import Interaction, encode
from testing import load
from testing.environment import system_environment
from testing.ports import free_port
from testing.redis_server import redis_server
from testing.synthetic import synthetic_events
from testing.temporary_folder import temporary_folder
from testing.waiting import answers, wait_until

EVENTS_A_USER: Final = 20
STORES: Final = ("sqlite", "redis")
ITEMS: Final = 20_000
HTTP_S: Final = 10.0
HTTP_BATCH: Final = 1_000
GORSE: Final = {"batch": 8_250, "single": 600}
WITHIN_S: Final = 900


def measure(events: int = 1_000_000, stores: Sequence[str] = STORES) -> dict[str, Any]:
    """The whole benchmark, each part in a folder of its own."""
    figures: dict[str, Any] = {"machine": machine(), "events": events, "users": events // EVENTS_A_USER}
    for store in stores:
        if store == "redis" and shutil.which("redis-server") is None:
            figures[store] = {"skipped": "no redis-server is installed"}
            continue
        with temporary_folder("coldstream-ingest-") as folder:
            figures[store] = catch_up(folder, store, events)
    with temporary_folder("coldstream-ingest-") as folder:
        figures["http"] = over_http(folder)
    return figures


def catch_up(state: Path, store: str, events: int) -> dict[str, Any]:
    """A consumer starts on a full log: the rate from its first written event to the last, and its memory."""
    with Broker(state / "kafka", free_port()) as broker, _store(state, store) as address:
        create_topics(broker.bootstrap, None, topics.topics(4))
        asyncio.run(_fill(broker.bootstrap, events))
        variables = system_environment(state, kafka=broker.bootstrap, store=address)
        url = f"http://127.0.0.1:{variables['COLDSTREAM_CONSUMER_METRICS_PORT']}/metrics"
        with _process("serving.consume.app", variables) as process:
            begun = _await_applied(process, url, 1)
            before_s = worked_s(process.pid)
            ended = _await_applied(process, url, events)
            worked = worked_s(process.pid) - before_s
            memory = psutil.Process(process.pid).memory_info()
            peak = _peak_mib(process.pid)
            elapsed, done = ended[0] - begun[0], events - begun[1]
    return {
        "seconds": elapsed,
        "events_per_second": done / elapsed,
        "cpu_us": worked * 1e6 / done,
        "rss_mib": memory.rss / 2**20,
        "peak_rss_mib": peak,
    }


def over_http(state: Path) -> dict[str, Any]:
    """POST /v1/events, in batches of 1,000 and singly: the API and the broker run, nothing else."""
    with Broker(state / "kafka", free_port()) as broker:
        create_topics(broker.bootstrap, None, topics.topics(4))
        variables = system_environment(state, kafka=broker.bootstrap)
        port = int(variables["COLDSTREAM_PORT"])
        with _process("serving.http.app", variables) as process:
            wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), 60, "the API answers")
            rng = np.random.default_rng(1)
            events = list(synthetic_events(100_000, 10_000, ITEMS, rng))
            asyncio.run(load.closed_loop(port, _singly(events), 4, 2.0))
            return {
                "batches_of_1000": _under_load(process.pid, port, _batches(events), 4, HTTP_BATCH),
                "single_32_connections": _under_load(process.pid, port, _singly(events), 32, 1),
                "single_1_connection": _under_load(process.pid, port, _singly(events), 1, 1),
            }


def show(figures: dict[str, Any]) -> None:
    """The table."""
    print(f"catching up on {figures['events']:,} events of {figures['users']:,} users")
    print(f"{'':28}{'events/s':>12}{'seconds':>10}{'peak MiB':>10}{'cpu us':>10}")
    for store in ("sqlite", "redis"):
        row = figures.get(store)
        if row is None or "skipped" in row:
            print(f"{store:28}{row['skipped'] if row else 'not asked for'}")
            continue
        line = f"{store:28}{row['events_per_second']:12,.0f}{row['seconds']:10.1f}{row['peak_rss_mib']:10.0f}"
        print(f"{line}{row['cpu_us']:10.1f}")
    print("goal: >= 20,000 on sqlite\n")
    print(f"{'POST /v1/events':28}{'events/s':>12}{'p50 ms':>10}{'p99 ms':>10}{'not 202':>10}{'cpu us':>10}")
    for name, row in figures["http"].items():
        refused = sum(count for status, count in row["statuses"].items() if int(status) != 202)
        line = f"{name:28}{row['events_per_second']:12,.0f}{row['p50']:10.2f}{row['p99']:10.2f}{refused:10}"
        print(f"{line}{row['cpu_us']:10.1f}")
    print(f"goals: 3 x gorse: {3 * GORSE['batch']:,} in batches of 1,000, {3 * GORSE['single']:,} singly")


async def _fill(bootstrap: str, events: int) -> None:
    producer = BulkProducer(bootstrap)
    await producer.start()
    stream = synthetic_events(events, events // EVENTS_A_USER, ITEMS, np.random.default_rng(0))
    while chunk := list(islice(stream, 10_000)):
        await (await producer.send(topics.EVENTS, [(event.user_id.encode(), encode(event)) for event in chunk]))
    await producer.stop()


def _singly(events: list[Interaction]) -> Iterator[bytes]:
    while True:
        for event in events:
            new = msgspec.structs.replace(event, event_id=f"{event.event_id}-{time.monotonic_ns()}")
            yield load.post_request("/v1/events", encode(new))


def _batches(events: list[Interaction]) -> Iterator[bytes]:
    """Made before the clock starts."""
    ready = [encode(event) for event in events]
    bodies = [b"[" + b",".join(ready[at : at + HTTP_BATCH]) + b"]" for at in range(0, len(ready), HTTP_BATCH)]
    whole = [load.post_request("/v1/events", body) for body in bodies]
    while True:
        yield from whole


def _under_load(pid: int, port: int, requests: Iterator[bytes], connections: int, size: int) -> dict[str, Any]:
    """Latencies in milliseconds, and what an event costs the API's processor, which other load shapes less."""
    before_s = worked_s(pid)
    result = asyncio.run(load.closed_loop(port, requests, connections, HTTP_S))
    worked = worked_s(pid) - before_s
    taken = result.statuses.get(202, 0) * size
    return {
        **percentiles(result.latencies),
        "events_per_second": taken / result.elapsed_s,
        "cpu_us": worked * 1e6 / max(1, taken),
        "statuses": result.statuses,
    }


def _await_applied(process: subprocess.Popen[bytes], url: str, count: int) -> tuple[float, int]:
    """When at least `count` events were applied, and how many were then."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            text = httpx.get(url, timeout=5).text
        except httpx.TransportError:
            text = ""
        lines = [line for line in text.splitlines() if line.startswith("coldstream_events_applied_total{")]
        applied = round(sum(float(line.rsplit(" ", 1)[1]) for line in lines))
        if applied >= count:
            return time.monotonic(), applied
        time.sleep(0.1)
    raise RuntimeError(f"{count} events were not applied; run `coldstream consumer` by hand to see why")


def _peak_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


@contextmanager
def _process(module: str, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = start_child(
        [sys.executable, "-m", module], env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def _store(state: Path, store: str) -> Iterator[str]:
    """The setting `store`; for Redis, of a server of its own."""
    if store != "redis":
        yield store
        return
    with redis_server(state) as (address, _):
        yield address


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--store", choices=STORES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print_figures(
        measure(events=options.events, stores=(options.store,) if options.store else STORES), show, options.json
    )


if __name__ == "__main__":
    main()
