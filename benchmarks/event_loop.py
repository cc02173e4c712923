"""How long arrays of 29 MiB hold the API's event loop, and what look-ups take meanwhile, for two sizes of slices.

`python -m benchmarks.event_loop [--seconds 20] [--rounds 1]`. A task on the API's loop wakes every millisecond,
and notes how late it is: by the clock, which other processes shape too, and by the processor time of the loop's thread.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from benchmarks import lookups
from benchmarks.measurements import machine, percentiles
from benchmarks.printing import print_figures
from stream.child_process import python_command
from stream.events import Impression, encode
from testing import load
from testing.random_release import write_random_release
from testing.temporary_folder import temporary_folder

SLICES: Final = (256 * 1024, 1024 * 1024)
USERS, ITEMS = 5_000, 20_000
RECORDS: Final = 9_900
ARRAY_BYTES: Final = 29 * 2**20
IDS: Final = 12
TICK_S: Final = 0.001
WRITE_EVERY_S: Final = 0.5


def measure(seconds: float, rounds: int) -> dict[str, Any]:
    """The whole benchmark: each size of slices in turn, `rounds` times."""
    rng = np.random.default_rng(0)
    figures: dict[str, Any] = {"machine": machine(), "array_bytes": len(large_array()), "runs": []}
    with temporary_folder("coldstream-loop-") as folder:
        lookups.fill(folder / "feast", USERS, ITEMS, rng)
        write_random_release(folder / "releases", ITEMS, "blend", rng)
        for number in range(rounds):
            for size in SLICES[:: 1 if number % 2 == 0 else -1]:
                figures["runs"].append({"slice_kib": size // 1024, **measure_slices(folder, size, seconds)})
    return figures


def measure_slices(folder: Path, size: int, seconds: float) -> dict[str, Any]:
    """Look-ups alone, then look-ups while one client posts arrays without a pause."""
    ticks = folder / f"ticks-{time.monotonic_ns()}.jsonl"
    command = python_command("benchmarks.event_loop", "--serve", str(size), "--ticks", str(ticks))
    with lookups.serving(folder, ITEMS, command) as (port, _):
        time.sleep(lookups.SETTLE_S)
        alone = window(port, ticks, seconds, arrays=False)
        return {"alone": alone, "with_arrays": window(port, ticks, seconds, arrays=True)}


def window(port: int, ticks: Path, seconds: float, *, arrays: bool) -> dict[str, Any]:
    """Milliseconds: look-ups of one connection, and holds of the loop meanwhile; `arrays`: how many were accepted."""

    async def run() -> list[load.LoadReport]:
        sent = [load.closed_loop(port, lookups.lookups(USERS, np.random.default_rng(1)), 1, seconds)]
        if arrays:
            sent.append(load.closed_loop(port, repeat(load.post_request("/v1/events", large_array())), 1, seconds))
        return await asyncio.gather(*sent)

    started = time.monotonic()
    reports = asyncio.run(run())
    ended = time.monotonic()
    time.sleep(2 * WRITE_EVERY_S)
    held = [tick for tick in read_ticks(ticks) if started <= tick[0] <= ended]
    if any(set(report.statuses) - {200, 202} for report in reports):
        raise RuntimeError(f"requests were refused: {[report.statuses for report in reports]}")
    return {
        "lookups": percentiles(reports[0].latencies),
        "held": percentiles([wall for _, wall, _ in held]),
        "held_cpu": percentiles([cpu for _, _, cpu in held]),
        "arrays": reports[1].statuses.get(202, 0) if arrays else 0,
    }


def large_array() -> bytes:
    """An array of impressions, about 29 MiB."""
    now, length = int(time.time() * 1000), ARRAY_BYTES // RECORDS // IDS - 13
    ids = [f"{number:x>{length}}" for number in range(IDS)]
    records = (Impression(f"e{number}", f"u{number % USERS}", ids, now) for number in range(RECORDS))
    return b"[" + b",".join(map(encode, records)) + b"]"


def read_ticks(file: Path) -> Iterator[tuple[float, float, float]]:
    """When (monotonic, s), and how late a tick was, by the clock and in processor time (s)."""
    for line in file.read_bytes().splitlines():
        yield from json.loads(line)


def serve(size: int, ticks: Path) -> int:
    """Become an API that takes arrays apart in slices of `size` bytes, and notes how late ticks of its loop are."""
    from serving.http import app, record_arrays
    from serving.http.service import Service

    class WatchedService(Service):
        async def start(self) -> None:
            await super().start()
            self._tasks.append(asyncio.create_task(note_ticks(ticks)))

    record_arrays.SLICE_BYTES = size  # type: ignore[misc]  # two sizes are compared
    app.Service = WatchedService  # type: ignore[misc]
    return app.main()


async def note_ticks(file: Path) -> None:
    """Append to `file`, until cancelled."""
    noted: list[tuple[float, float, float]] = []
    written = time.monotonic()
    while True:
        before, worked = time.monotonic(), time.thread_time()
        await asyncio.sleep(TICK_S)
        now = time.monotonic()
        noted.append((now, max(0.0, now - before - TICK_S), time.thread_time() - worked))
        if now - written > WRITE_EVERY_S:
            with file.open("ab") as ticks:
                ticks.write(msgspec.json.encode(noted) + b"\n")
            noted, written = [], time.monotonic()


def show(figures: dict[str, Any]) -> None:
    """The table."""
    print(f"arrays of {figures['array_bytes'] / 2**20:.1f} MiB, one client; milliseconds")
    columns = ("loop held p99", "max", "in CPU p99", "max", "look-up p50", "p99")
    print(f"{'slices':12}{'':10}" + "".join(f"{column:>15}" for column in columns) + f"{'arrays':>8}")
    for run in figures["runs"]:
        for name in ("alone", "with_arrays"):
            row = run[name]
            values = [row[kind][q] for kind in ("held", "held_cpu") for q in ("p99", "max")]
            values += [row["lookups"]["p50"], row["lookups"]["p99"]]
            line = "".join(f"{value:15.1f}" for value in values)
            print(f"{run['slice_kib']:>6} KiB  {name:12}{line}{row['arrays']:8}")
    print("goal: no request holds the loop for more than 20 ms")


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ticks", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.serve:
        sys.exit(serve(options.serve, options.ticks))
    print_figures(measure(options.seconds, options.rounds), show, options.json)


if __name__ == "__main__":
    main()
