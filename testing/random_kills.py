"""kill -9 at random moments under load, then a count: every acknowledged event is in the features exactly once.

Two clients post events without pause and retry, with the same ids, what was not acknowledged. Victims are drawn at
random and started again at once, as is every part that ends by itself because the broker went away while it started:
`coldstream up` does the same.
"""

import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from stream.errors import BrokerError
from testing.delivery import delivery_report, wait_archived
from testing.event_writer import BATCH, EventWriter
from testing.system import PARTS, System
from testing.temporary_folder import removed_if_killed

CAUGHT_UP_WITHIN_S: Final = 120.0


def kill_at_random(
    times: int = 200, seed: int = 0, victims: Sequence[str] = PARTS, store: str = "sqlite"
) -> dict[str, Any]:
    """The delivery report of a system whose parts were killed `times` times.

    It runs in a temporary folder, which is kept, and named under `kept`, where something is wrong.
    """
    folder = Path(tempfile.mkdtemp(prefix="coldstream-kill-"))
    started = time.monotonic()
    with removed_if_killed(folder), System(folder / "state", store) as system:
        kills, writer = asyncio.run(_kill_under_load(system, times, seed, victims))
        _wait_caught_up(system)
        wait_archived(system)
        for name in ("api", "consumer", "archiver"):
            system.stop(name)
        report = delivery_report(system, writer.acknowledged)
    report |= {"kills": dict(kills), "sent_again": writer.retries, "seconds": time.monotonic() - started}
    report["ended_unkilled"] = dict(system.unexpected_exits)
    wrong = report["lost"] or report["counted_twice"] or report["rows_unlike_rebuild"]
    if wrong or report["popularity_unlike_rebuild"] or report["archive_unlike_log"]:
        report["kept"] = str(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return report


async def _kill_under_load(
    system: System, times: int, seed: int, victims: Sequence[str]
) -> tuple[Counter[str], EventWriter]:
    rng = random.Random(seed)
    writer = EventWriter(system.port, seed)
    writing = [asyncio.create_task(writer.run(f"w{seed}-{client}")) for client in range(2)]
    kills: Counter[str] = Counter()
    while len(writer.acknowledged) < 10 * BATCH:
        await asyncio.sleep(0.1)
    for number in range(times):
        await asyncio.sleep(rng.uniform(0.2, 3.0))
        victim = rng.choice(victims)
        kills[victim] += 1
        await asyncio.to_thread(_kill_and_start, system, victim)
        system.revive()
        sys.stderr.write(f"\rkilled {number + 1} of {times}, {len(writer.acknowledged):,} events acknowledged ")
    sys.stderr.write("\n")
    writer.stopping.set()
    await asyncio.gather(*writing)
    return kills, writer


def _kill_and_start(system: System, victim: str) -> None:
    system.kill(victim)
    while True:
        try:
            system.start(victim)
        except BrokerError as error:
            sys.stderr.write(f"\n{error}\n")
            time.sleep(1)
        else:
            return


def _wait_caught_up(system: System) -> None:
    deadline = time.monotonic() + CAUGHT_UP_WITHIN_S
    while not system.caught_up():
        if time.monotonic() > deadline:
            lag = system.lag()
            raise RuntimeError(f"the consumer lag is {lag} after {CAUGHT_UP_WITHIN_S:g} s; see {system.state}")
        system.revive()
        time.sleep(0.2)
