"""Nothing is left behind: no process, no port, no temporary folder, not even after kill -9."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from testing.system import System
from testing.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")

HARNESS = """
import sys, time
from pathlib import Path
from testing.system import System
from testing.temporary_folder import temporary_folder
with temporary_folder("coldstream-killed-") as folder, System(folder / "state") as system:
    print(folder, system.port, system.broker.port, flush=True)
    time.sleep(600)
"""


def users_of(folder: Path) -> list[psutil.Process]:
    """The processes whose command line or environment names the folder."""
    users = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if any(f"{folder}/" in f"{word}/" for word in words) and process.pid != os.getpid():
            users.append(process)
    return users


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start(folder: Path, *command: str) -> "subprocess.Popen[str]":
    """A process whose temporary files lie in `folder`."""
    variables = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen([sys.executable, *command], env=variables, stdout=subprocess.PIPE, text=True)


def test_a_killed_harness_leaves_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, "-c", HARNESS)
    assert process.stdout is not None
    folder, *ports = process.stdout.readline().split()
    wait_until(lambda: all(listens(int(port)) for port in ports), 60, "API and broker listen")
    assert len(users_of(Path(folder))) >= 4
    process.kill()
    process.wait()
    process.stdout.close()
    wait_until(lambda: not users_of(tmp_path), 60, "every process has ended")
    wait_until(lambda: not Path(folder).exists(), 60, "the folder is gone")
    assert not any(listens(int(port)) for port in ports)
    assert list(tmp_path.glob("coldstream-*")) == []


def test_a_killed_benchmark_leaves_nothing(tmp_path: Path) -> None:
    process = start(tmp_path, "-m", "serving.cli", "bench", "ingest", "--store", "sqlite")

    def folders() -> list[Path]:
        return list(tmp_path.glob("coldstream-ingest-*"))

    def brokers() -> list[psutil.Process]:
        return [child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == "java"]

    wait_until(brokers, 60, "the benchmark has started its broker")
    assert folders() != []
    process.kill()
    process.wait()
    wait_until(lambda: not users_of(tmp_path), 60, "every process has ended")
    wait_until(lambda: not folders(), 60, "the folder is gone")


def test_a_system_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    with System(tmp_path / "state") as system:
        system.wait_ready()
        ports = [
            int(value)
            for name, value in system.environment.items()
            if name.startswith("COLDSTREAM_") and name.endswith("PORT")
        ]
    assert users_of(tmp_path) == []
    assert not any(listens(port) for port in ports)
