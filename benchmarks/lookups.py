"""Look-ups: 100,000 items, 100,000 users with histories, 20 answers. One connection, then many against one core.

coldstream bench lookups [--recommender NAME] [--seconds 10] [--json]
"""

import argparse
import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np

from benchmarks.measurements import machine, memory, percentiles, worked_s
from benchmarks.printing import print_figures
from features.activity import Activity, ActivitySummary, Deduplication, History
from stream.admin import create_topics
from stream.broker import Broker
from stream.child_process import python_command, start_child
from stream.events import encode
from stream.topics import topics
from testing import load
from testing.environment import system_environment
from testing.ports import free_port
from testing.random_release import write_random_release
from testing.synthetic import synthetic_items
from testing.temporary_folder import temporary_folder

SETTLE_S: Final = 2.0
NEIGHBOURS: Final = 50
API_COMMAND: Final = python_command("serving.http.app")


def histories(users: int, items: int, rng: np.random.Generator) -> Iterator[tuple[tuple[str, str], Activity]]:
    """A row for each user: 5 to 50 recent items, popular ones more often."""
    now = int(time.time() * 1000)
    for user in range(users):
        length = int(rng.integers(5, 51))
        chosen = np.minimum(rng.zipf(1.2, length) - 1, items * 10) % items
        recent = History(
            [f"i{item}" for item in chosen], [0] * length, [now - 60_000 * number for number in range(length)][::-1]
        )
        recent.values = [None] * length
        summary = ActivitySummary(first_seen=recent.times[0], last_seen=now, totals={"view": length})
        yield ("shop", f"u{user}"), Activity(recent, summary, Deduplication({"events/0": user}))


def fill(folder: Path, users: int, items: int, rng: np.random.Generator) -> None:
    """Write the users' rows through Feast, 5,000 at a time."""
    from features.store import open_store

    store = open_store(folder, "sqlite", ("shop", "music", "video", "news"))
    batch: dict[tuple[str, str], Activity] = {}
    for key, row in histories(users, items, rng):
        batch[key] = row
        if len(batch) == 5_000:
            store.write_activities(batch)
            batch = {}
    store.write_activities(batch)
    store.close()


@contextmanager
def serving(state: Path, items: int, api_command: Sequence[str] = API_COMMAND) -> Iterator[tuple[int, int]]:
    """A broker, a consumer and the API over a filled state, with the catalogue sent: the API's port and process id."""
    with Broker(state / "kafka", free_port()) as broker:
        create_topics(broker.bootstrap, None, topics(4))
        variables = system_environment(state, kafka=broker.bootstrap)
        api, consumer = [
            start_child(command, env=variables, stdout=subprocess.DEVNULL)
            for command in (api_command, python_command("serving.consume.app"))
        ]
        port = int(variables["COLDSTREAM_PORT"])
        try:
            _prepare(port, items, api)
            yield port, api.pid
        finally:
            for process in (api, consumer):
                process.send_signal(signal.SIGTERM)
            for process in (api, consumer):
                process.wait(30)


def _prepare(port: int, items: int, process: subprocess.Popen[bytes], within_s: float = 120) -> None:
    until = time.monotonic() + within_s
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        _until(client, "/readyz", lambda answer: set(answer.json()["missing"]) <= {"consumer"}, until, process)
        put_catalogue(client, items)
        path = "/v1/users/u1/recommendations"
        _until(client, path, lambda answer: answer.json().get("reason") == "personal", until, process)
        path = "/v1/users/nobody/recommendations?category=c199"
        _until(client, path, lambda answer: len(answer.json().get("items", [])) == 20, until, process)


def put_catalogue(client: httpx.Client, items: int) -> None:
    """Send the catalogue through the API, 2,000 items at a time."""
    catalogue = list(synthetic_items(items))
    for start in range(0, items, 2_000):
        body = b"[" + b",".join(encode(item) for item in catalogue[start : start + 2_000]) + b"]"
        client.put("/v1/items", content=body).raise_for_status()


def _until(client: httpx.Client, path: str, good: Any, until: float, process: subprocess.Popen[bytes]) -> None:
    while time.monotonic() < until and process.poll() is None:
        try:
            if good(client.get(path)):
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"{path} does not answer as it should; run `python -m serving.http.app` by hand to see why")


def lookups(users: int, rng: np.random.Generator) -> Iterator[bytes]:
    """Look-ups of users in turn, drawn evenly."""
    while True:
        for user in rng.integers(0, users, 10_000):
            yield load.get_request(f"/v1/users/u{user}/recommendations?n=20")


def measure(users: int, items: int, recommender: str, seconds: float) -> dict[str, Any]:
    """The whole benchmark. The API has core 0 for itself in the second part; the load comes from the others."""
    rng = np.random.default_rng(0)
    figures: dict[str, Any] = {"machine": machine(), "users": users, "items": items, "recommender": recommender}
    with temporary_folder("coldstream-lookups-") as folder:
        state = folder
        fill(state / "feast", users, items, rng)
        write_random_release(state / "releases", items, recommender, rng)
        with serving(state, items) as (port, pid):
            time.sleep(SETTLE_S)
            asyncio.run(load.closed_loop(port, lookups(users, rng), 1, 2.0))
            figures["one"] = under_load(port, pid, lookups(users, rng), 1, seconds)
            figures["memory_mib"] = memory(pid)
            _pin(pid)
            for connections in (16, 32):
                figures[f"connections_{connections}"] = under_load(port, pid, lookups(users, rng), connections, seconds)
    return figures


def under_load(port: int, pid: int, requests: Iterator[bytes], connections: int, seconds: float) -> dict[str, Any]:
    """Latencies in milliseconds, and what a request costs the API's processor, which other load shapes less."""
    before = worked_s(pid)
    sent = asyncio.run(load.closed_loop(port, requests, connections, seconds))
    cpu_us = (worked_s(pid) - before) * 1e6 / max(1, len(sent.latencies))
    rate = {"per_second": sent.per_second, "statuses": sent.statuses, "cpu_us": cpu_us}
    return {**percentiles(sent.latencies), **rate}


def _pin(pid: int) -> None:
    """The API and all its threads on core 0, this process on the rest."""
    cores = sorted(os.sched_getaffinity(0))
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {cores[0]})
    os.sched_setaffinity(0, set(cores[1:]) or {cores[0]})


def show(figures: dict[str, Any]) -> None:
    """The table."""
    print(f"look-ups, {figures['items']:,} items, {figures['users']:,} users, 20 answers, {figures['recommender']}")
    print(f"{'':28}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'/s':>9}{'cpu us':>9}")
    rows = {"one connection": "one", "16, API on one core": "connections_16", "32, API on one core": "connections_32"}
    for title, name in rows.items():
        row = figures[name]
        line = f"{title:28}{row['p50']:9.2f}{row['p99']:9.2f}{row['max']:9.2f}{row['per_second']:9.0f}"
        print(f"{line}{row['cpu_us']:9.0f}")
    print("goals: one connection p99 <= 5 ms; >= 1,000/s on one core")


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--recommender", default="transformer")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print_figures(measure(options.users, options.items, options.recommender, options.seconds), show, options.json)


if __name__ == "__main__":
    main()
