"""kill -9 at random moments under load, then a count: every acknowledged event is in the features exactly once.

A broker, an API, a consumer and an archive process run; a writer posts events without pause and sends again, with the
same ids, what was not acknowledged. Victims are drawn at random and started again at once, and so is what ends by
itself because the broker went away while it started, as `coldstream up` does it. Afterwards three things are held
against each other: what was acknowledged, what the features say, and what a rebuild of archive and log says.
`python -m benchmarks.kill [--times 200] [--seed 0] [--json]`
"""

import argparse
import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import httpx
import msgspec
import pyarrow.parquet as pq

from benchmarks import load
from benchmarks.running import environment
from features.activity import FoldSettings
from features.archive import parts
from features.rebuild import differing_keys, last_offsets, log_by_partition, rebuild
from features.store import OnlineStore, open_store
from serving.process.supervisor import MODULES
from stream import topics
from stream.admin import create_topics
from stream.broker import Broker
from stream.errors import BrokerError
from stream.events import Interaction, encode

PARTS: Final = ("consumer", "broker", "api", "archiver")
USERS: Final = 400
ITEMS: Final = 300
BATCH: Final = 20
SETTLE_S: Final = 120.0
STORE: Final = "feast"


class System:
    """The parts as processes of their own, each of which can be killed and started again."""

    def __init__(self, state: Path, store: str = "sqlite", **settings: object) -> None:
        self.state = state
        self.store = store
        state.mkdir(parents=True, exist_ok=True)
        self.variables = environment(state, store=store, popularity_every_ms=300, cached_users=100, **settings)
        self.variables["COLDSTREAM_KAFKA"] = f"127.0.0.1:{self.variables['COLDSTREAM_KAFKA_PORT']}"
        self.broker = Broker(state / "kafka", int(self.variables["COLDSTREAM_KAFKA_PORT"]))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.logs = {name: (state / f"{name}.log").open("ab") for name in PARTS}
        self.ended: Counter[str] = Counter()

    @property
    def port(self) -> int:
        """The API's."""
        return int(self.variables["COLDSTREAM_PORT"])

    def start(self, name: str) -> None:
        """Start a part; the broker is waited for."""
        if name == "broker":
            self.broker.start()
            return
        command = [sys.executable, "-m", MODULES[name]]
        log = self.logs[name]
        self.processes[name] = subprocess.Popen(command, env=self.variables, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """kill -9."""
        if name == "broker":
            self.broker.kill()
            return
        self.processes[name].kill()
        self.processes[name].wait()

    def revive(self) -> None:
        """Start again what has ended by itself, and count it in `ended`."""
        for name in [name for name, process in self.processes.items() if process.poll() is not None]:
            self.ended[name] += 1
            self.start(name)

    def stop(self, name: str) -> int:
        """SIGTERM, and wait; the exit code."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(60)

    def lag(self) -> float | None:
        """Events that are not in the features yet, as the consumer says; None while it does not answer."""
        url = f"http://127.0.0.1:{self.variables['COLDSTREAM_CONSUMER_METRICS_PORT']}/metrics"
        try:
            text = httpx.get(url, timeout=2).text
        except httpx.TransportError:
            return None
        lines = [line for line in text.splitlines() if line.startswith("coldstream_consumer_lag{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines) if lines else None

    def open_store(self) -> OnlineStore:
        """The online store that the consumer writes."""
        return open_store(self.state / STORE, self.store, tuple(self.domains))

    @property
    def domains(self) -> Sequence[str]:
        return ("shop", "music", "video", "news")

    def __enter__(self) -> Self:
        self.start("broker")
        create_topics(self.broker.bootstrap, None, topics.topics(4))
        for name in ("api", "consumer", "archiver"):
            self.start(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():  # all at once: each takes its time to say goodbye to the broker
            process.send_signal(signal.SIGTERM)
        for name in list(self.processes):
            self.stop(name)
        self.broker.stop()
        for log in self.logs.values():
            log.close()


class Writer:
    """Posts events until told to stop; `acknowledged` holds each event for which a 202 came."""

    def __init__(self, port: int, seed: int) -> None:
        self.port = port
        self.acknowledged: list[Interaction] = []
        self.sent_again = 0
        self.stopping = asyncio.Event()
        self._rng = random.Random(seed)

    async def run(self, name: str, most_per_second: float = 40.0) -> None:
        """One connection's worth of batches, each sent until it is acknowledged."""
        number = 0
        while not self.stopping.is_set():
            batch = [self._event(f"{name}-{number + place}") for place in range(BATCH)]
            number += BATCH
            body = b"[" + b",".join(encode(one) for one in batch) + b"]"
            while not await self._post(body):
                self.sent_again += 1
                await asyncio.sleep(0.05)
            self.acknowledged += batch
            await asyncio.sleep(1 / most_per_second)

    async def _post(self, body: bytes) -> bool:
        try:
            async with asyncio.timeout(15), load.Connection(self.port) as connection:
                status, _ = await connection.ask(load.posting("/v1/events", body))
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False
        return status == 202

    def _event(self, event_id: str) -> Interaction:
        return Interaction(
            event_id=event_id,
            user_id=f"u{self._rng.randrange(USERS)}",
            item_id=f"i{self._rng.randrange(ITEMS)}",
            kind=self._rng.choice(("view", "cart", "purchase")),
            at=int(time.time() * 1000) - self._rng.randrange(60_000),
            category=f"c{self._rng.randrange(9)}",
        )


def measure(times: int = 200, seed: int = 0, victims: Sequence[str] = PARTS, store: str = "sqlite") -> dict[str, Any]:
    """The whole run, in a folder of its own; the folder is kept and named where something is wrong."""
    folder = Path(tempfile.mkdtemp(prefix="coldstream-kill-"))
    started = time.monotonic()
    with System(folder / "state", store) as system:
        kills, writer = asyncio.run(_rampage(system, times, seed, victims))
        _await_caught_up(system)
        await_archived(system)
        for name in ("api", "consumer", "archiver"):
            system.stop(name)
        figures = count(system, writer.acknowledged)
    figures |= {"kills": dict(kills), "sent_again": writer.sent_again, "seconds": time.monotonic() - started}
    figures["ended_unkilled"] = dict(system.ended)
    wrong = figures["lost"] or figures["counted_twice"] or figures["rows_unlike_rebuild"]
    if wrong or figures["popularity_unlike_rebuild"] or figures["archive_unlike_log"]:
        figures["kept"] = str(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return figures


def count(system: System, acknowledged: Sequence[Interaction]) -> dict[str, Any]:
    """Features against what was acknowledged, and against a rebuild; the broker runs, the consumer does not."""
    live = system.open_store()
    expected: dict[str, Counter[str]] = {}
    for event in {one.event_id: one for one in acknowledged}.values():
        expected.setdefault(event.user_id, Counter())[event.kind] += 1
    rows = live.read_activities([("shop", user) for user in expected])
    lost = twice = 0
    for user, kinds in expected.items():
        row = rows.get(("shop", user))
        found = Counter(row.summary.totals if row is not None else {})
        lost += sum((kinds - found).values())
        twice += sum((found - kinds).values())
    shutil.rmtree(system.state / "rebuilt", ignore_errors=True)  # of an earlier count
    aside = open_store(system.state / "rebuilt", "sqlite", tuple(system.domains))
    bootstrap = system.broker.bootstrap
    ends = last_offsets(bootstrap, None)
    log = log_by_partition(system.state / "archive", bootstrap, None, system.domains)
    report = rebuild(log, aside, FoldSettings(), ends=ends)
    unlike = differing_keys(live, aside, [("shop", user) for user in expected])
    one, other = live.read_popularity(list(ends)), aside.read_popularity(list(ends))
    popular = [name for name in ends if msgspec.json.encode(one.get(name)) != msgspec.json.encode(other.get(name))]
    archived = Counter(_archived(system.state / "archive"))
    live.close()
    aside.close()
    return {
        "acknowledged": len(acknowledged),
        "in_the_log": sum(end + 1 for end in ends.values()),
        "lost": lost,
        "counted_twice": twice,
        "rows": report.users,
        "rows_unlike_rebuild": len(unlike),
        "popularity_unlike_rebuild": popular,
        "archive_unlike_log": len(archived) != sum(end + 1 for end in ends.values()) or max(archived.values()) > 1,
    }


def show(figures: dict[str, Any]) -> None:
    """The count."""
    kills = ", ".join(f"{name} {number}" for name, number in sorted(figures["kills"].items()))
    print(f"killed {sum(figures['kills'].values())} times in {figures['seconds']:.0f} s ({kills})")
    print(f"acknowledged events           {figures['acknowledged']:>9,}")
    print(f"messages in the log           {figures['in_the_log']:>9,}  (batches sent again: {figures['sent_again']})")
    print(f"lost                          {figures['lost']:>9,}")
    print(f"counted twice                 {figures['counted_twice']:>9,}")
    print(f"rows unlike a rebuild's       {figures['rows_unlike_rebuild']:>9,} of {figures['rows']:,}")
    print(f"popularity unlike a rebuild's {len(figures['popularity_unlike_rebuild']):>9,} of 4")
    print(f"ended without being killed    {sum(figures['ended_unkilled'].values()):>9,}")
    print(f"archive equals the log        {'no' if figures['archive_unlike_log'] else 'yes':>9}")
    if "kept" in figures:
        print(f"kept for a look: {figures['kept']}")


async def _rampage(system: System, times: int, seed: int, victims: Sequence[str]) -> tuple[Counter[str], Writer]:
    rng = random.Random(seed)
    writer = Writer(system.port, seed)
    writing = [asyncio.create_task(writer.run(f"w{seed}-{one}")) for one in range(2)]
    kills: Counter[str] = Counter()
    while len(writer.acknowledged) < 10 * BATCH:
        await asyncio.sleep(0.1)
    for number in range(times):
        await asyncio.sleep(rng.uniform(0.2, 3.0))
        victim = rng.choice(victims)
        kills[victim] += 1
        await asyncio.to_thread(_strike, system, victim)
        system.revive()
        sys.stderr.write(f"\rkilled {number + 1} of {times}, {len(writer.acknowledged):,} events acknowledged ")
    sys.stderr.write("\n")
    writer.stopping.set()
    await asyncio.gather(*writing)
    return kills, writer


def _strike(system: System, victim: str) -> None:
    system.kill(victim)
    while True:
        try:
            system.start(victim)
        except BrokerError as error:
            sys.stderr.write(f"\n{error}\n")
            time.sleep(1)
        else:
            return


def _await_caught_up(system: System) -> None:
    until = time.monotonic() + SETTLE_S
    while system.lag() != 0:
        if time.monotonic() > until:
            raise RuntimeError(f"the consumer is {system.lag()} events behind after {SETTLE_S:g} s; see {system.state}")
        system.revive()
        time.sleep(0.2)


def await_archived(system: System, within_s: float = SETTLE_S) -> None:
    """Return once the archive holds as many events as the log, or after `within_s`: the count then says what lacks.

    A prefix of the log is no loss, only late: after a broker's end the archive comes back seconds later.
    """
    until = time.monotonic() + within_s
    wanted = sum(end + 1 for end in last_offsets(system.broker.bootstrap, None).values())
    while len(_archived(system.state / "archive")) < wanted and time.monotonic() < until:
        time.sleep(0.5)


def _archived(folder: Path) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for path in parts(folder, topics.EVENTS):
        table = pq.read_table(path, columns=["partition", "offset"], partitioning=None)
        found += zip(table.column("partition").to_pylist(), table.column("offset").to_pylist(), strict=True)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the count; 1 where something was lost, counted twice, or unlike a rebuild."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--victims", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    figures = measure(chosen.times, chosen.seed, chosen.victims)
    print(json.dumps(figures, indent=2)) if chosen.json else show(figures)
    return 1 if "kept" in figures else 0


if __name__ == "__main__":
    sys.exit(main())
