"""Three brokers of the real Kafka on loopback, each a voter of the KRaft quorum, with a folder and a JVM of its own."""

import shutil
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aiokafka.admin import AIOKafkaAdminClient
from kafka import KafkaAdminClient

from stream import jars, node
from stream.broker import Broker
from stream.node import HOST
from testing.ports import free_port

NODES: Final = 3
HEAP_MB: Final = 128
START_WITHIN_S: Final = 120.0
REPLICATED: Final = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
}


class Cluster:
    """Brokers 1, 2 and 3; a context manager that starts and stops them. Topics have 3 replicas, 2 of them in sync."""

    def __init__(self, folder: Path) -> None:
        self._id = node.cluster_id(uuid.uuid4())
        ports = [(free_port(), free_port()) for _ in range(NODES)]
        voters = ",".join(f"{number}@{HOST}:{controller}" for number, (_, controller) in enumerate(ports, 1))
        self.brokers = {
            number: Broker(
                folder / f"broker-{number}", port, heap_mb=HEAP_MB, settings=_settings(number, port, controller, voters)
            )
            for number, (port, controller) in enumerate(ports, 1)
        }

    @property
    def bootstrap(self) -> str:
        """HOST:PORT of every broker, separated by commas."""
        return ",".join(broker.bootstrap for broker in self.brokers.values())

    def start(self, numbers: Sequence[int]) -> None:
        """Start brokers, all at once: the first two become ready together, as a majority of the quorum."""
        with ThreadPoolExecutor(len(numbers)) as pool:
            list(pool.map(self._start, numbers))

    def kill(self, number: int) -> None:
        """kill -9 of a broker."""
        self.brokers[number].kill()

    def empty(self, number: int) -> None:
        """Take the disk of a broker that does not run: its log and its part of the cluster's metadata."""
        shutil.rmtree(self.brokers[number].folder)

    def active_controller(self) -> int:
        """The broker that leads the quorum."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        quorum = admin.describe_metadata_quorum()
        admin.close()
        return int(quorum["topics"][0]["partitions"][0]["leader_id"])

    async def coordinator(self, group: str) -> int:
        """The broker that holds a consumer group's members and offsets."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            return int(await admin.find_coordinator(group))
        finally:
            await admin.close()

    def _start(self, number: int) -> None:
        broker = self.brokers[number]
        broker.folder.mkdir(parents=True, exist_ok=True)
        data = broker.folder / "data"
        node.write(broker.folder, node.properties(broker.port, free_port(), data) | broker.settings)
        node.format_storage(broker.folder, jars.install(jars.cache_folder()), self._id)
        broker.start(START_WITHIN_S)

    def __enter__(self) -> Self:
        try:
            self.start(list(self.brokers))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End every broker; without a majority a clean shutdown would wait for one, so they are killed."""
        for broker in self.brokers.values():
            broker.kill()


def _settings(number: int, port: int, controller: int, voters: str) -> dict[str, str]:
    return {
        **REPLICATED,
        "node.id": str(number),
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller}",
        "controller.quorum.voters": voters,
    }
