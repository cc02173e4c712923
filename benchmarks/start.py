"""What a newcomer waits for: `coldstream run` on an empty folder, then a second start; and each process' memory."""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.measurements import machine, memory
from benchmarks.printing import print_figures
from models.releases import release_store
from models.releases.manifest import read_manifest
from serving.commands.demonstration import busiest
from stream.child_process import start_child
from stream.sources.complete_journey import open_complete_journey
from stream.sources.source import Source
from testing.environment import system_environment
from testing.temporary_folder import temporary_folder

READY_S: Final = 180.0
NEURAL_S: Final = 900.0
SETTLED_S: Final = 60.0
STOP_S: Final = 60.0
LAST_WEEKS_MS: Final = 14 * 24 * 60 * 60 * 1000
TRAINER: Final = "serving.train.trainer"


def measure() -> dict[str, Any]:
    """Seconds to each mark of the first and the second start, of the stop between them, and MiB by process."""
    user = _followed(open_complete_journey())
    with temporary_folder("coldstream-bench-") as folder:
        place = folder / "state"
        variables = system_environment(place)
        figures: dict[str, Any] = {"machine": machine(), "user": user}
        with _started(variables, folder / "first.log") as first:
            figures["first"] = _marks(first, variables, user)
            _until(first, lambda: _tuned(place), NEURAL_S, "a tuned release")
            figures["first"]["tuned_release_s"] = first.seconds()
            _until(first, lambda: _settled(place), SETTLED_S, "a release that serves and is among the newest two")
            figures["memory_while_live"] = memory(first.process.pid)
            figures["releases"] = [
                {"recommender": release.recommender, "state": release.state, "metrics": release.metrics}
                for release in release_store.list_releases(place / "releases", "shop")
            ]
        figures["stop_s"] = first.stopped_s
        with _started(variables, folder / "second.log") as second:
            figures["second"] = _marks(second, variables, user)
        return figures


def show(figures: dict[str, Any]) -> None:
    """The table."""
    first, second = figures["first"], figures["second"]
    rows = [
        ("the API is ready", first["ready_s"], second["ready_s"], "60 s, then 30 s"),
        ("first personal answer", first["personal_s"], second["personal_s"], "60 s, then 30 s"),
        ("a tuned release is made", first["tuned_release_s"], None, "300 s"),
        ("Ctrl-C to the end", figures["stop_s"], None, ""),
    ]
    print(f"{'':<28}{'first':>9}{'second':>9}   goal")
    for name, first, other, goal in rows:
        print(f"{name:<28}{first:>8.1f}s" + (f"{other:>8.1f}s" if other is not None else f"{'':>9}") + f"   {goal}")
    print(f"\n{'process, while live events come':<62}{'RSS':>7}{'PSS':>7} MiB")
    for name, usage in figures["memory_while_live"].items():
        print(f"{name:<62}{usage['rss']:>7.0f}{usage['pss']:>7.0f}")
    print(f"{'all but the trainer (goal 1,200)':<62}{_sum(figures, 'rss'):>7.0f}{_sum(figures, 'pss'):>7.0f}")
    for release in figures["releases"]:
        print(f"{release['recommender']:<10} {release['state']:<9} NDCG@10 {release['metrics'].get('ndcg@10', 0):.4f}")


def _sum(figures: dict[str, Any], kind: str) -> float:
    return sum(float(usage[kind]) for name, usage in figures["memory_while_live"].items() if TRAINER not in name)


class _StartedSystem:
    """A started `coldstream run`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.began = time.monotonic()
        self.stopped_s = 0.0

    def seconds(self) -> float:
        return time.monotonic() - self.began


@contextmanager
def _started(variables: dict[str, str], log: Path) -> Iterator[_StartedSystem]:
    with log.open("wb") as out:
        command = [sys.executable, "-m", "serving.cli", "run"]
        process = start_child(command, env={**os.environ, **variables}, stdout=out, stderr=subprocess.STDOUT)
        start = _StartedSystem(process, log)
        try:
            yield start
        finally:
            requested_at = time.monotonic()
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            start.stopped_s = time.monotonic() - requested_at


def _marks(start: _StartedSystem, variables: dict[str, str], user: str) -> dict[str, float]:
    url = f"http://127.0.0.1:{variables['COLDSTREAM_PORT']}"
    _until(start, lambda: _status(f"{url}/readyz") is not None, READY_S, "the API is ready")
    ready = start.seconds()

    def personal() -> bool:
        answer = _status(f"{url}/v1/users/{user}/recommendations")
        return answer is not None and answer["reason"] == "personal" and answer["release"] is not None

    _until(start, personal, READY_S, "a personal answer")
    return {"ready_s": ready, "personal_s": start.seconds()}


def _until(start: _StartedSystem, condition: Callable[[], bool], within_s: float, what: str) -> None:
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end or start.process.poll() is not None:
            raise RuntimeError(f"not within {within_s:g} s: {what}\n{start.log.read_text('utf-8', 'replace')[-4000:]}")
        time.sleep(0.1)


def _status(url: str) -> dict[str, Any] | None:
    try:
        answer = httpx.get(url, timeout=5)
    except httpx.TransportError:
        return None
    status: dict[str, Any] | None = answer.json() if answer.status_code == 200 else None
    return status


def _tuned(place: Path) -> bool:
    """Whether a run that tunes has made its release: its card says what was tuned."""
    root = place / "releases"
    releases = release_store.list_releases(root, "shop")
    return any("tuning" in read_manifest(root / "shop" / release.id).params for release in releases)


def _settled(place: Path) -> bool:
    """Whether the first run's choice is made: one of its two releases, the newest, serves."""
    return any(release.state == "serving" for release in release_store.list_releases(place / "releases", "shop")[:2])


def _followed(source: Source) -> str:
    return busiest(source, source.end - LAST_WEEKS_MS)


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print_figures(measure(), show, options.json)


if __name__ == "__main__":
    main()
