"""The embedded broker: one node of the real Apache Kafka (KRaft) on loopback, its log in a folder of ours.

`python -m stream.broker FOLDER PORT` becomes the broker: the process turns into Kafka's own, so that SIGTERM and SIGINT
shut Kafka down cleanly. `--end-with-parent` (Linux) sends that SIGTERM where the parent dies.

What is acknowledged is in the page cache of this machine, not yet on its disk: it survives kill -9 of the broker, not a
power cut. A cluster of three with min.insync.replicas=2 is what survives that (`--kafka HOST:PORT`).
"""

import argparse
import fcntl
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from stream import admin, child_process, jars, node
from stream.errors import BrokerError
from stream.files import free_space
from stream.node import HOST

STOP_WITHIN_S: Final = 30
LOCK_WITHIN_S: Final = 10
"""How long a start waits for a broker in the same folder that is just shutting down."""


class Broker:
    """A broker in `folder` that listens on 127.0.0.1:`port`; a context manager that starts and stops it.

    `settings` are further Kafka properties, and win over ours.
    """

    def __init__(
        self, folder: Path, port: int, *, heap_mb: int = 256, settings: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder.absolute()
        self.port = port
        self.heap_mb = heap_mb
        self.settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """HOST:PORT for clients."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int | None:
        """Of the Java process, while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def install(self, progress: jars.Progress | None = None) -> list[Path]:
        """Fetch and check the jars; see `stream.jars.install`."""
        return jars.install(jars.cache_folder(), progress=progress)

    def start(self, timeout_s: float = 60, security: Mapping[str, str] | None = None) -> None:
        """Start, and return once Kafka answers clients (with `security`, where `settings` ask for it).

        Raises:
            BrokerError: the port or the folder is in use, or Kafka does not come up; the end of its log is shown.
        """
        if self.pid is not None:
            raise BrokerError(f"the broker in {self.folder} runs already (pid {self.pid})")
        command, lock = self._prepare()
        try:
            with (self.folder / "console.log").open("wb") as console:
                self._process = child_process.start_child(
                    command,
                    stdout=console,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[lock],  # the lock lives as long as Kafka, whatever becomes of this process
                    start_new_session=True,  # Ctrl-C in a terminal must not reach Kafka before its clients are done
                )
        finally:
            os.close(lock)
        try:
            self._await_ready(time.monotonic() + timeout_s, timeout_s, security)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ask Kafka to shut down cleanly; kill it where it takes longer than 30 s."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def kill(self) -> None:
        """kill -9, for tests of what survives it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def run(self, *, end_with_parent: bool = False) -> None:
        """Become the broker: this process is replaced by Kafka's. Raises like `start`, and does not return."""
        command, lock = self._prepare()
        os.set_inheritable(lock, True)
        if end_with_parent:
            child_process.end_with_parent()
        os.execv(command[0], command)  # noqa: S606 - our own command, and no shell is wanted

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> tuple[list[str], int]:
        """Everything up to the Java command, and the descriptor that holds the folder's lock."""
        paths = self.install()
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(self.folder)
        try:
            _check_port(self.port)
            data = self.folder / "data"
            node.write(self.folder, node.properties(self.port, _free_port(), data) | self.settings)
            if not node.formatted(data):
                node.format_storage(self.folder, paths)
        except BaseException:
            os.close(lock)
            raise
        server = ["kafka.Kafka", str(self.folder / "server.properties")]
        return node.command(self.folder, paths, self.heap_mb, *server), lock

    def _await_ready(self, until: float, timeout_s: float, security: Mapping[str, str] | None) -> None:
        while time.monotonic() < until and self.pid is not None:
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    admin.wait_ready(self.bootstrap, security, max(1.0, until - time.monotonic()))
                    return
            time.sleep(0.05)
        how = f"did not come up within {timeout_s:g} s" if self.pid is not None else "ended while it started"
        raise BrokerError(f"Kafka {how}; {_tail(self.folder)}")


def _locked(folder: Path) -> int:
    lock = os.open(folder / "broker.lock", os.O_RDWR | os.O_CREAT, 0o600)
    until = time.monotonic() + LOCK_WITHIN_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() < until:
                time.sleep(0.1)
                continue
            os.close(lock)
            raise BrokerError(
                f"{folder} is in use by another broker{_owner(folder)}; stop that one, or choose another state folder"
            ) from None
        return lock


def _owner(folder: Path) -> str:
    named = str(folder / "server.properties")
    for process in psutil.process_iter(["cmdline"]):
        if named in (process.info["cmdline"] or ()):
            return f" (pid {process.pid})"
    return ""


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BrokerError(
                f"port {port} on {HOST} cannot be used{_holder(port)} ({error.strerror}); "
                "stop the process that holds it, or set kafka_port (COLDSTREAM_KAFKA_PORT) to a free port"
            ) from None


def _free_port() -> int:
    """For the controller, which only the node itself talks to."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.laddr
                and connection.laddr.port == port
                and connection.status == psutil.CONN_LISTEN
                and connection.pid
            ):
                return f": {psutil.Process(connection.pid).name()} (pid {connection.pid}) listens there"
    except psutil.Error:  # another user's process: the system does not say whose
        pass
    return ""


def _tail(folder: Path) -> str:
    lines: list[str] = []
    for name in ("console.log", "kafka.log"):
        path = folder / name
        if path.exists():
            lines += path.read_text("utf-8", "replace").splitlines()[-5:]
    return f"the end of {folder / 'kafka.log'} and console.log: " + (" | ".join(lines) or "(nothing)")


def main(arguments: list[str]) -> int:
    """Become the broker; a return is an error with one line that says what is wrong: 2, or 1 on a full disk."""
    parser = argparse.ArgumentParser(prog="python -m stream.broker", description="Run the embedded Apache Kafka.")
    parser.add_argument("folder", type=Path, help="where its log is, or will be")
    parser.add_argument("port", type=int, help=f"to listen on, on {HOST}")
    parser.add_argument("--heap-mb", type=int, default=256)
    parser.add_argument("--end-with-parent", action="store_true", help="stop when the parent process dies (Linux)")
    chosen = parser.parse_args(arguments)
    try:
        Broker(chosen.folder, chosen.port, heap_mb=chosen.heap_mb).run(end_with_parent=chosen.end_with_parent)
    except BrokerError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
    except OSError as error:  # such as a full disk: it may be otherwise at the next start
        print(f"error: {chosen.folder} cannot be written: {error}; {free_space(chosen.folder)}", file=sys.stderr)
        return 1
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
