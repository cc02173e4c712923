"""A system whose parts are processes of their own, each of which can be killed and started again."""

import signal
import subprocess
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
from kafka.errors import KafkaError

from features.store import OnlineStore, open_store
from serving.process.state_folder import prepare_state_folder
from serving.process.supervisor import MODULES
from serving.settings import ANY_ADDRESS
from stream import topics
from stream.addresses import bracketed
from stream.admin import create_topics
from stream.broker import Broker
from stream.child_process import python_command, start_child
from stream.errors import BrokerError
from testing.consumer_group import uncommitted
from testing.environment import system_environment
from testing.waiting import answers, wait_until

PARTS: Final = ("consumer", "broker", "api", "archiver")
DOMAINS: Final = ("shop", "music", "video", "news")
STORE_FOLDER: Final = "feast"
READY_WITHIN_S: Final = 300.0
"""Half a minute on two idle cores; a busy machine took two and a half."""


class System:
    """A broker, an API, a consumer and an archive process; a context manager that starts and stops them.

    `unexpected_exits` counts the ends of parts that `revive` had to start again.
    """

    def __init__(self, state: Path, store: str = "sqlite", **settings: object) -> None:
        self.state = state
        self.store = store
        prepare_state_folder(state)
        self.environment = system_environment(state, store=store, popularity_every_ms=300, cached_users=100, **settings)
        self.environment["COLDSTREAM_KAFKA"] = f"127.0.0.1:{self.environment['COLDSTREAM_KAFKA_PORT']}"
        self.broker = Broker(state / "kafka", int(self.environment["COLDSTREAM_KAFKA_PORT"]))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.logs = {name: (state / f"{name}.log").open("ab") for name in PARTS}
        self.unexpected_exits: Counter[str] = Counter()

    @property
    def port(self) -> int:
        """The port of the API."""
        return int(self.environment["COLDSTREAM_PORT"])

    @property
    def host(self) -> str:
        """The address of API and metrics, as URLs write it."""
        listens = self.environment.get("COLDSTREAM_HOST", "127.0.0.1")
        return bracketed(ANY_ADDRESS.get(listens, listens))

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"http://{self.host}:{self.port}"

    def start(self, name: str) -> None:
        """Start a part; the broker is waited for."""
        if name == "broker":
            self.broker.start()
            return
        command = python_command(MODULES[name])
        log = self.logs[name]
        self.processes[name] = start_child(command, env=self.environment, stdout=log, stderr=log)

    def kill(self, name: str) -> None:
        """kill -9."""
        if name == "broker":
            self.broker.kill()
            return
        self.processes[name].kill()
        self.processes[name].wait()

    def revive(self) -> None:
        """Start the parts again that ended by themselves, and count them in `unexpected_exits`."""
        for name in [name for name, process in self.processes.items() if process.poll() is not None]:
            self.unexpected_exits[name] += 1
            self.start(name)

    def stop(self, name: str) -> int:
        """SIGTERM, and wait; the exit code."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(60)

    def lag(self) -> float | None:
        """The consumer lag in events, as the consumer's metrics reported it last; None while it does not answer."""
        try:
            text = httpx.get(self.metrics_url("consumer"), timeout=2).text
        except httpx.TransportError:
            return None
        lines = [line for line in text.splitlines() if line.startswith("coldstream_consumer_lag{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines) if lines else None

    def caught_up(self) -> bool:
        """Whether the consumer has committed everything that is in the log now. The gauge of `lag` is seconds old."""
        try:
            return uncommitted(self.environment["COLDSTREAM_KAFKA"]) == 0
        except (KafkaError, BrokerError):
            return False

    def metrics_url(self, part: str) -> str:
        """Where `consumer`, `archive` or `trainer` serves its Prometheus metrics."""
        return f"http://{self.host}:{self.environment[f'COLDSTREAM_{part.upper()}_METRICS_PORT']}/metrics"

    def ready(self) -> bool:
        """Whether the API is ready and the consumer has its partitions."""
        return answers(f"{self.url}/readyz") and self.lag() is not None

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Return once the system is ready; AssertionError where it is not within `within_s` seconds."""
        wait_until(self.ready, within_s, "the system is ready")

    def open_store(self) -> OnlineStore:
        """The online store to which the consumer writes."""
        return open_store(self.state / STORE_FOLDER, self.store, DOMAINS)

    def __enter__(self) -> Self:
        self.start("broker")
        create_topics(self.broker.bootstrap, None, topics.topics(4))
        for name in ("api", "consumer", "archiver"):
            self.start(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes.values():  # all at once: each takes its time to leave the consumer group
            process.send_signal(signal.SIGTERM)
        for name in list(self.processes):
            self.stop(name)
        self.broker.stop()
        for log in self.logs.values():
            log.close()
