"""Waiting for a condition, with a bound; nothing here sleeps for luck."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx


def wait_until(condition: Callable[[], object], within_s: float, what: str) -> None:
    """Return once `condition()` is true.

    Raises:
        AssertionError: with `what` was expected, where it does not hold within `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Whether a GET of `url` answers 200 now."""
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def wait_ready(url: str, process: "subprocess.Popen[bytes]", within_s: float = 300, log: Path | None = None) -> None:
    """Return once `/readyz` below `url` answers 200.

    Raises:
        RuntimeError: the process ends or takes longer than `within_s` seconds; the end of `log` is shown.
    """
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and process.poll() is None:
        if answers(f"{url}/readyz"):
            return
        time.sleep(0.05)
    tail = log.read_text("utf-8", "replace")[-4000:] if log else "run it by hand to see why"
    how = "has ended" if process.poll() is not None else f"is not ready after {within_s:g} s"
    raise RuntimeError(f"the system at {url} {how}:\n{tail}")


def metric_sum(url: str, name: str) -> float:
    """The sum of a Prometheus metric at `url` over the labels that `name` leaves open; 0 where there is no sample."""
    lines = httpx.get(url, timeout=5).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))
