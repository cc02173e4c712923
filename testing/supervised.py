"""A whole system in a folder of its own, started the way a user starts it and stopped the same way."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from stream.child_process import start_child
from testing.environment import system_environment
from testing.temporary_folder import temporary_folder
from testing.waiting import wait_ready

COLDSTREAM: Final = str(Path(sys.executable).with_name("coldstream"))
"""The installed command."""


class SupervisedSystem(msgspec.Struct, frozen=True):
    """A started system: its API, its broker, its state folder, and the process that supervises it."""

    url: str
    bootstrap: str
    state: Path
    pid: int
    environment: dict[str, str]


@contextmanager
def supervised_system(
    *flags: str, within_s: float = 300, state: Path | None = None, folder: Path | None = None, **settings: object
) -> Iterator[SupervisedSystem]:
    """`coldstream up FLAGS` in the working folder `folder` until the block ends; ready when `/readyz` answers 200."""
    with temporary_folder("coldstream-bench-") as temporary:
        place = state or temporary / "state"
        variables = system_environment(place, **settings)
        log = (place.parent / f"{place.name}.log").open("wb")
        command = [COLDSTREAM, "up", *flags]
        process = start_child(command, env=variables, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        url = f"http://127.0.0.1:{variables['COLDSTREAM_PORT']}"
        try:
            wait_ready(url, process, within_s, Path(log.name))
            bootstrap = f"127.0.0.1:{variables['COLDSTREAM_KAFKA_PORT']}"
            yield SupervisedSystem(url, bootstrap, place, process.pid, variables)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
            log.close()
            Path(log.name).unlink(missing_ok=True)
