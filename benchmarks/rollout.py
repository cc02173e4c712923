"""Releases that come and go under load: a damaged one is refused, a worse one rolled back, a good one promoted.

`coldstream up` runs without a trainer. The control is a release of real co-occurrence: users of one taste take items of
that taste. The bad canary has the same files with its neighbors at random; the good one is made as the control is.
Visitors look (`GET .../recommendations`), send the list as an impression, and click where the list holds an item of
their taste among the first ten, by a coin of their own. Beside them, look-ups at a fixed rate are timed before, during
and after each trial; every status other than 200 or 202 is a failed request.
`python -m benchmarks.rollout [--visitors 2000] [--rate 100] [--within 240] [--json]`
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import numpy as np

from benchmarks.measurements import machine, percentiles
from models.data.vocabulary import Vocabulary
from models.errors import ReleaseError
from models.recommenders.item_knn import ItemKNN
from models.releases import arms, release_store, rollout
from models.releases.manifest import ITEM_KNN, Manifest, new_id
from stream.events import Event, Impression, Interaction, Item, encode
from testing import load
from testing.supervised import supervised_system
from testing.temporary_folder import temporary_folder

TASTES: Final = 20
EACH: Final = 50
HISTORY: Final = 3
SHARE: Final = 0.3
CLICKS: Final = 0.4
"""How often a visitor clicks who sees what fits."""


def release(root: Path, rng: np.random.Generator, *, knows_tastes: bool) -> str:
    """A whole release of item-kNN: neighbors of an item's own taste, or of any."""
    items = TASTES * EACH
    model = ItemKNN()
    model.vocabulary = Vocabulary.from_items([f"i{number}" for number in range(items)])
    model.popularity = np.full(items, 1.0, np.float32)
    shape = (items, model.params.neighbors)
    own = np.arange(items)[:, None] // EACH * EACH + rng.integers(0, EACH, shape)
    model.neighbors = (own if knows_tastes else rng.integers(0, items, shape)).astype(np.int32)
    model.similarities = np.sort(rng.random(shape, np.float32))[:, ::-1].copy()
    now = int(time.time() * 1000)
    manifest = Manifest(new_id(now), "shop", ITEM_KNN, now, 0, items, 0, 0, {}, params=model.describe())
    release_store.save(root, manifest, model.vocabulary.item_ids, model.save)
    return manifest.id


class SimulatedVisitors:
    """Visitors over HTTP, until told to stop; `failed` counts statuses that are not as they should be."""

    def __init__(self, port: int, number: int, rng: np.random.Generator) -> None:
        self.port = port
        self.number = number
        self.failed: Counter[str] = Counter()
        self.requests = 0
        self.stopping = asyncio.Event()
        self._rng = rng
        self._sent = 0

    async def begin(self) -> None:
        """Each takes a few items of its taste, so that look-ups are personal."""
        async with load.Connection(self.port) as connection:
            for start in range(0, self.number, 100):
                users = range(start, min(start + 100, self.number))
                views = [self._take(user, self._liked(user)) for user in users for _ in range(HISTORY)]
                await self._send(connection, views)

    async def run(self) -> None:
        """One connection's worth of visits."""
        async with load.Connection(self.port) as connection:
            while not self.stopping.is_set():
                user = int(self._rng.integers(self.number))
                path = f"/v1/users/v{user}/recommendations?n=10"
                body = await self._ask(connection, load.get_request(path), 200)
                if body is not None:
                    await self._send(connection, self._visit(user, msgspec.json.decode(body)))

    def _visit(self, user: int, answer: dict[str, Any]) -> list[Event]:
        items = [str(item["item_id"]) for item in answer["items"]]
        about = {"release": answer["release"], "request_id": answer["request_id"]}
        self._sent += 1
        shown = Impression(
            event_id=f"s{self._sent}", user_id=f"v{user}", item_ids=items, at=int(time.time() * 1000), **about
        )
        liked = [item for item in items if int(item[1:]) // EACH == user % TASTES]
        if liked and self._rng.random() < CLICKS * len(liked) / len(items):
            return [shown, self._take(user, liked[0], "click")]
        return [shown]

    def _take(self, user: int, item: str, kind: Any = "view") -> Interaction:
        self._sent += 1
        at = int(time.time() * 1000)
        return Interaction(event_id=f"t{self._sent}", user_id=f"v{user}", item_id=item, kind=kind, at=at)

    def _liked(self, user: int) -> str:
        return f"i{user % TASTES * EACH + int(self._rng.integers(EACH))}"

    async def _send(self, connection: load.Connection, events: list[Event]) -> None:
        body = b"[" + b",".join(encode(event) for event in events) + b"]"
        await self._ask(connection, load.post_request("/v1/events", body), 202)

    async def _ask(self, connection: load.Connection, request: bytes, expected_status: int) -> bytes | None:
        status, body = await connection.request(request)
        self.requests += 1
        if status != expected_status:
            self.failed[str(status)] += 1
            return None
        return body


async def timed(port: int, visitors: int, rate: float, seconds: float) -> load.LoadReport:
    """Look-ups at a fixed rate for a while."""
    paths = [f"/v1/users/v{number % visitors}/recommendations?n=20" for number in range(int(rate * seconds))]
    return await load.open_loop(port, [load.get_request(path) for path in paths], rate, 4)


async def scenes(url: str, root: Path, visitors: int, rate: float, within_s: float) -> dict[str, Any]:
    """Before, a damaged candidate, a worse one, a good one, after."""
    port, rng = int(url.rsplit(":", 1)[1]), np.random.default_rng(0)
    crowd = SimulatedVisitors(port, visitors, rng)
    await crowd.begin()
    visiting = [asyncio.create_task(crowd.run()) for _ in range(4)]
    figures: dict[str, Any] = {}
    loads: dict[str, load.LoadReport] = {"before": await timed(port, visitors, rate, 10)}
    figures["damaged"] = refused(root, rng)
    loads["beside a damaged one"] = await timed(port, visitors, rate, 5)
    for name, knows in (("worse", False), ("good", True)):
        release_id = release(root, rng, knows_tastes=knows)
        rollout.begin_canary(root, "shop", release_id, SHARE)
        figures[name], loads[name] = await ended(url, root, release_id, port, visitors, rate, within_s)
    loads["after"] = await timed(port, visitors, rate, 10)
    crowd.stopping.set()
    await asyncio.gather(*visiting)
    failed = crowd.failed + Counter(
        {str(status): n for report in loads.values() for status, n in report.statuses.items() if status != 200}
    )
    latency = {name: percentiles(report.latencies) for name, report in loads.items()}
    requests = crowd.requests + sum(len(report.latencies) for report in loads.values())
    return {
        **figures,
        "latency": latency,
        "requests": requests,
        "failed": sum(failed.values()),
        "statuses": dict(failed),
    }


def refused(root: Path, rng: np.random.Generator) -> str:
    """The reason for which a damaged candidate is refused."""
    release_id = release(root, rng, knows_tastes=True)
    path = root / "shop" / release_id / "popularity.npy"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    try:
        rollout.begin_canary(root, "shop", release_id, SHARE)
    except ReleaseError as error:
        return f"refused: {error.reason}"
    return "not refused"


async def ended(
    url: str, root: Path, release_id: str, port: int, visitors: int, rate: float, within_s: float
) -> tuple[dict[str, Any], load.LoadReport]:
    """How a trial ended, and look-ups meanwhile."""
    began = time.monotonic()
    latencies: list[float] = []
    statuses: Counter[int] = Counter()
    figures: dict[str, Any] = {}
    async with httpx.AsyncClient(timeout=30) as client:
        while (canary := arms.read(root, "shop").canary) is not None and time.monotonic() - began < within_s:
            part = await timed(port, visitors, rate, 2)
            latencies += part.latencies
            statuses.update(part.statuses)
            rollout = (await client.get(f"{url}/v1/releases")).json()["shop"]["rollout"]
            figures = rollout["figures"] or figures
            sys.stderr.write(f"\r{release_id}: {rollout['verdict']['detail'] if rollout['verdict'] else 'begins'}   ")
    sys.stderr.write("\n")
    seconds = time.monotonic() - began
    last = arms.read(root, "shop").ended[-1:] if canary is None else []
    end = {"action": last[0].action, "reason": last[0].reason} if last else {"action": "undecided", "reason": ""}
    return {**end, "seconds": seconds, "figures": figures}, load.LoadReport(latencies, dict(statuses), seconds)


def measure(
    visitors: int = 2_000, rate: float = 100.0, within_s: float = 240.0, impressions: int = 2_000, margin: float = 0.1
) -> dict[str, Any]:
    """The whole benchmark, in a folder of its own."""
    with temporary_folder("coldstream-rollout-") as folder:
        state = folder / "state"
        root = state / "releases"
        options = {"canary_impressions": impressions, "canary_margin": margin}
        release_store.promote(root, "shop", release(root, np.random.default_rng(1), knows_tastes=True))
        with supervised_system("--no-train", "--no-archive", state=state, within_s=600, **options) as system:
            now = int(time.time() * 1000)
            items = [
                Item(item_id=f"i{number}", at=now, category=f"c{number // EACH}") for number in range(TASTES * EACH)
            ]
            body = b"[" + b",".join(encode(item) for item in items) + b"]"
            httpx.put(f"{system.url}/v1/items", content=body, timeout=60).raise_for_status()
            figures = asyncio.run(scenes(system.url, root, visitors, rate, within_s))
    return {"machine": machine(), "visitors": visitors, "rate": rate, "share": SHARE, **figures}


def show(figures: dict[str, Any]) -> None:
    """The tables."""
    print(f"releases under load: {figures['visitors']:,} visitors, canaries answer {figures['share']:.0%} of them")
    print(f"a damaged candidate: {figures['damaged']}")
    for name in ("worse", "good"):
        trial = figures[name]
        print(f"a {name} canary: {trial['action']} {trial['reason']} after {trial['seconds']:.0f} s")
        for arm, row in trial["figures"].items():
            lists = f"{row['clicks']:,} of {row['impressions']:,} lists clicked ({row['click_through']:.4f})"
            print(f"    {arm:8} {lists}, {row['errors']} errors, p95 of ranking {row['p95_ms']:.2f} ms")
    print(f"{'look-ups':24}{'n':>7}{'p50 ms':>9}{'p99 ms':>9}")
    for name, row in figures["latency"].items():
        if row["n"]:
            print(f"{name:24}{row['n']:7}{row['p50']:9.2f}{row['p99']:9.2f}")
    print(f"failed requests: {figures['failed']} of {figures['requests']:,} (goal 0)")


def passed(figures: dict[str, Any]) -> bool:
    """Whether everything went as it should."""
    ends = (figures["worse"]["action"], figures["good"]["action"])
    return ends == ("rolled-back", "promoted") and not figures["failed"] and figures["damaged"].startswith("refused")


def main() -> int:
    """Print the tables; 1 where something did not go as it should."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=2_000)
    parser.add_argument("--rate", type=float, default=100.0, help="look-ups a second that are timed")
    parser.add_argument("--within", type=float, default=240.0, help="seconds that a trial may take")
    parser.add_argument("--impressions", type=int, default=2_000, help="setting canary_impressions")
    parser.add_argument("--margin", type=float, default=0.1, help="setting canary_margin")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    figures = measure(chosen.visitors, chosen.rate, chosen.within, chosen.impressions, chosen.margin)
    print(json.dumps(figures, indent=2)) if chosen.json else show(figures)
    return 0 if passed(figures) else 1


if __name__ == "__main__":
    sys.exit(main())
