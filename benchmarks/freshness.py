"""From an event's acknowledgement to a changed answer, seen through HTTP, on a whole system under load.

`coldstream up` runs (broker, API, consumer, archive) with a neural release of 100,000 items and their catalogue. Load:
2,000 events/s of 20,000 users in batches of 20 over HTTP, on an open schedule. Beside it, probes: a user with a history
views the item on top of the list that leaves out what was seen, so that the list must change; the clock runs from the
202 until an answer without that item. Half of the probes ask again and again, half ask once with `after=TOKEN`.
`coldstream bench freshness [--seconds 60] [--rate 2000] [--items 100000] [--json]`
"""

import argparse
import asyncio
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

import httpx
import msgspec
import numpy as np

from benchmarks.lookups import put_catalogue
from benchmarks.measurements import machine, memory, percentiles
from benchmarks.printing import print_figures
from stream.events import Interaction, encode
from testing import load
from testing.random_release import write_random_release
from testing.supervised import SupervisedSystem, supervised_system
from testing.synthetic import synthetic_events
from testing.temporary_folder import temporary_folder

BATCH: Final = 20
USERS: Final = 20_000
PROBES: Final = 4
ASK_EVERY_S: Final = 0.004
GIVE_UP_S: Final = 10.0
HISTORY: Final = 5
PAUSE_S: Final = 0.05


def measure(seconds: int = 60, rate: int = 2_000, items: int = 100_000) -> dict[str, Any]:
    """The whole benchmark, in a folder of its own."""
    with temporary_folder("coldstream-freshness-") as folder:
        state = folder / "state"
        write_random_release(state / "releases", items, "transformer", np.random.default_rng(0))
        with supervised_system("--no-train", state=state) as system:
            with httpx.Client(base_url=system.url, timeout=60) as client:
                put_catalogue(client, items)
            _until_written(system)
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
                port = int(system.environment["COLDSTREAM_PORT"])
                offering = other.submit(_load, port, rate, seconds, items)
                _until_loaded(system.url)
                polled, awaited = asyncio.run(_probe(port, seconds - 3))
                offered = offering.result()
            table = memory(system.pid)
    return {
        "machine": machine(),
        "items": items,
        "offered_per_second": rate,
        "load": offered,
        "asked_again_and_again": percentiles(polled),
        "asked_with_after": percentiles(awaited),
        "memory": table,
    }


def show(figures: dict[str, Any]) -> None:
    """The table."""
    print(
        f"event acknowledged -> changed answer, {figures['offered_per_second']:,} events/s, {figures['items']:,} items"
    )
    print(f"{'':28}{'n':>7}{'p50 ms':>9}{'p90 ms':>9}{'p99 ms':>9}{'max ms':>9}")
    for title, name in (("asked again and again", "asked_again_and_again"), ("asked with after", "asked_with_after")):
        row = figures[name]
        print(f"{title:28}{row['n']:7}{row['p50']:9.1f}{row['p90']:9.1f}{row['p99']:9.1f}{row['max']:9.1f}")
    taken = figures["load"]
    print(f"load: {taken['events']:,} events accepted in {taken['seconds']:.1f} s ({taken['per_second']:,.0f}/s)")
    print(f"      due -> acknowledged p50 {taken['p50_ms']:.1f} ms, p99 {taken['p99_ms']:.1f} ms")
    print("goals: p50 <= 50 ms, p99 <= 250 ms")


def _until_written(system: SupervisedSystem) -> None:
    """Return once the catalogue is in the features, too: the clock runs on a system at rest."""
    url = f"http://127.0.0.1:{system.environment['COLDSTREAM_CONSUMER_METRICS_PORT']}/metrics"
    while 'coldstream_consumer_lag{partition="items/0"} 0.0' not in httpx.get(url).text:
        time.sleep(0.5)


def _until_loaded(url: str) -> None:
    """Return once the load's first events were accepted."""
    while 'coldstream_records_accepted_total{type="interaction"}' not in httpx.get(f"{url}/metrics").text:
        time.sleep(0.1)


def _load(port: int, rate: int, seconds: int, items: int) -> dict[str, float]:
    """In a process of its own: batches leave when they are due."""
    stream = [encode(event) for event in synthetic_events(rate * seconds, USERS, items, np.random.default_rng(3))]
    bodies = [b"[" + b",".join(stream[at : at + BATCH]) + b"]" for at in range(0, len(stream), BATCH)]
    sent = asyncio.run(load.open_loop(port, [load.post_request("/v1/events", body) for body in bodies], rate / BATCH))
    accepted = sent.statuses.get(202, 0) * BATCH
    figures = {"events": accepted, "seconds": sent.elapsed_s, "per_second": accepted / sent.elapsed_s}
    return figures | {f"{name}_ms": value for name, value in percentiles(sent.latencies).items() if name != "n"}


async def _probe(port: int, seconds: float) -> tuple[list[float], list[float]]:
    polled: list[float] = []
    awaited: list[float] = []
    until = time.monotonic() + seconds
    probes = ((f"probe{number}", until, polled if number % 2 else awaited, number % 2 == 0) for number in range(PROBES))
    await asyncio.gather(*(_visitor(port, *probe) for probe in probes))
    return polled, awaited


async def _visitor(port: int, user: str, until: float, times: list[float], after: bool) -> None:
    path = f"/v1/users/{user}/recommendations?n=20&exclude_seen=true"
    async with load.Connection(port) as connection:
        for number in range(HISTORY):
            token = await _view(connection, user, f"i{number * 7 + 3}", f"{user}-first-{number}")
        top = await _top(connection, f"{path}&after={token}")
        number = 0
        while time.monotonic() < until:
            token = await _view(connection, user, top, f"{user}-{number}")
            acknowledged = time.perf_counter()
            while (now := await _top(connection, f"{path}&after={token}" if after else path)) in {top, ""}:
                if time.perf_counter() - acknowledged > GIVE_UP_S:
                    break
                await asyncio.sleep(ASK_EVERY_S)
            times.append(time.perf_counter() - acknowledged)
            top, number = now, number + 1
            await asyncio.sleep(PAUSE_S)


async def _top(connection: load.Connection, path: str) -> str:
    status, body = await connection.request(load.get_request(path))
    return str(msgspec.json.decode(body)["items"][0]["item_id"]) if status == 200 else ""


async def _view(connection: load.Connection, user: str, item: str, event_id: str) -> str:
    event = Interaction(event_id=event_id, user_id=user, item_id=item, kind="view", at=int(time.time() * 1000))
    status, body = await connection.request(load.post_request("/v1/events", encode(event)))
    if status != 202:
        raise RuntimeError(f"the event was not accepted: {status} {body!r}")
    return str(msgspec.json.decode(body)["token"])


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print_figures(measure(seconds=options.seconds, rate=options.rate, items=options.items), show, options.json)


if __name__ == "__main__":
    main()
