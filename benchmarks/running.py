"""A whole system in a folder of its own, started the way a user starts it and stopped the same way."""

import itertools
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import msgspec
import numpy as np
import psutil

from serving.process.supervisor import FRUGAL

PORTS: Final = ("port", "kafka_port", "consumer_metrics_port", "archive_metrics_port", "trainer_metrics_port")
LISTENED: Final = range(12_000, 32_000)
"""Below what Linux gives to connections: a port of those is taken by somebody between being found and being used."""


def _numbers() -> Iterator[int]:
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    begin = 5_000 * int(worker.removeprefix("gw")) if worker else random.randrange(len(LISTENED))
    return (LISTENED[number % len(LISTENED)] for number in itertools.count(begin))


_ports = _numbers()


class Running(msgspec.Struct, frozen=True):
    """A started system: where it answers, where it keeps its state, and the process that supervises it."""

    url: str
    bootstrap: str
    state: Path
    pid: int
    environment: dict[str, str]


def free_port() -> int:
    """A port on loopback that nothing listens on at this moment, and that no other worker of the tests is given."""
    while True:
        port = next(_ports)
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def environment(state: Path, **settings: object) -> dict[str, str]:
    """The variables that give a system free ports, its state folder and `settings`."""
    ports = {name: free_port() for name in PORTS}
    chosen = {"state": state, **ports, **settings}
    return {**FRUGAL, **os.environ, **{f"COLDSTREAM_{name.upper()}": str(value) for name, value in chosen.items()}}


@contextmanager
def running(*flags: str, within_s: float = 120, state: Path | None = None, **settings: object) -> Iterator[Running]:
    """`coldstream up FLAGS` until the block ends; ready when `/readyz` says so."""
    with tempfile.TemporaryDirectory(prefix="coldstream-bench-") as folder:
        place = state or Path(folder)
        variables = environment(place, **settings)
        log = (place.parent / f"{place.name}.log").open("wb")
        command = [sys.executable, "-m", "serving.cli", "up", *flags]
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{variables['COLDSTREAM_PORT']}"
        try:
            wait_ready(url, process, Path(log.name), within_s)
            bootstrap = f"127.0.0.1:{variables['COLDSTREAM_KAFKA_PORT']}"
            yield Running(url, bootstrap, place, process.pid, variables)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            log.close()
            Path(log.name).unlink(missing_ok=True)


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path, within_s: float) -> None:
    """Return once `/readyz` answers 200.

    Raises:
        RuntimeError: with the end of the log, where the system ends or takes longer than `within_s`.
    """
    until = time.monotonic() + within_s
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the system is not ready after {within_s} s:\n{log.read_text('utf-8', 'replace')[-4000:]}")


def memory(pid: int) -> dict[str, dict[str, float]]:
    """MiB of each process below `pid`: resident, and proportional (shared pages divided among their users)."""
    table: dict[str, dict[str, float]] = {}
    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        full = process.memory_full_info()
        table[_name(process)] = {"rss": full.rss / 2**20, "pss": full.pss / 2**20}
    return table


def machine() -> dict[str, object]:
    """What the figures were taken on, as far as it shapes them."""
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    """p50, p90, p99, maximum in milliseconds, and how many."""
    values = np.asarray(seconds) * 1000
    if not len(values):
        return {"n": 0}
    p50, p90, p99 = (float(np.percentile(values, q)) for q in (50, 90, 99))
    return {"n": len(values), "p50": p50, "p90": p90, "p99": p99, "max": float(values.max())}


def _name(process: psutil.Process) -> str:
    words = process.cmdline()
    part = next((word for word in words[1:] if not word.startswith("-") and "=" not in word), process.name())
    tail = " ".join(words[2:5]) if len(words) > 2 else part
    return f"{process.pid} {process.name()} {tail}"[:60]
