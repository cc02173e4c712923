"""One writer per row, whatever partitioner a producer used: misplaced events are forwarded to their home partition.

An event's home is the partition that our partitioner gives its key, at the partition count that the group's leader saw
when it assigned the partitions. The count travels with the assignment, so all consumers of a generation agree on it.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.structs import ConsumerRecord

from serving import metrics
from stream.headers import forwarding_headers
from stream.producer import Producer
from stream.record_batches import Partitioner
from stream.topics import EVENTS

REMEMBERED_KEYS: Final = 200_000
UNNOTICED_S: Final = 12.0
"""Longer than a leader takes to see added partitions."""

Misplaced = tuple[int, ConsumerRecord]
"""An event's home partition, and the event as it stands in another one."""


class Forwarder:
    """Knows each key's home, and sends misplaced events there."""

    def __init__(self, bootstrap: str, security: Mapping[str, str]) -> None:
        self._producer = Producer(bootstrap, security)
        self._started = False
        self._partition_of = Partitioner(REMEMBERED_KEYS).partition_of
        self._partitions = 0
        self._known = ""
        self._behind_since: float | None = None

    def should_rejoin(self, partitions: int) -> bool:
        """Whether `events` has had another number of partitions than the assignment for so long that nobody else acts.

        A leader that was killed and started again as a static member does not know that it leads, and does not look.
        """
        now = time.monotonic()
        if not self._partitions or partitions <= self._partitions:
            self._behind_since = None
            return False
        if self._behind_since is None:
            self._behind_since = now
        if now - self._behind_since < UNNOTICED_S:
            return False
        self._behind_since, self._known = now, f"{partitions} at {now}"
        return True

    def assignor(self) -> type[RoundRobinPartitionAssignor]:
        """The assignment strategy that tells this forwarder the partition count."""
        return counting_assignor(self._on_count, lambda: self._known)

    def home(self, message: ConsumerRecord) -> int:
        """The home partition of an event; its own while the count is unknown."""
        return self._partition_of(message.key, self._partitions) if self._partitions else message.partition

    async def send(self, misplaced: Sequence[Misplaced]) -> dict[str, int]:
        """Send events to their homes, in their order; the newest offset of each partition (`events/1`) that got one.

        Raises:
            BrokerError: not acknowledged; send all of them again, in the same order.
        """
        if not self._started:
            await self._producer.start()
            self._started = True
        copies = [
            (home, message.key, message.value, forwarding_headers(message.headers, message.partition, message.offset))
            for home, message in misplaced
        ]
        newest: dict[str, int] = {}
        for position in await self._producer.send_to(EVENTS, copies):
            newest[f"{EVENTS}/{position.partition}"] = position.offset
        metrics.events_forwarded.inc(len(copies))
        return newest

    async def stop(self) -> None:
        """Disconnect."""
        if self._started:
            await self._producer.stop()

    def _on_count(self, partitions: int) -> None:
        self._partitions = partitions


def counting_assignor(
    on_count: Callable[[int], None], known: Callable[[], str] = str
) -> type[RoundRobinPartitionAssignor]:
    """Round robin; the leader adds the partition count of `events`, and each member gives it to `on_count`.

    `known` goes with a member that joins: where it differs from before, the broker has the partitions assigned again.
    """

    class CountingAssignor(RoundRobinPartitionAssignor):  # type: ignore[misc]  # aiokafka's own types are incomplete
        name = "coldstream-roundrobin"

        @classmethod
        def assign(
            cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            count = str(len(cluster.partitions_for_topic(EVENTS) or ())).encode()
            assignments = RoundRobinPartitionAssignor.assign(cluster, members)
            return {
                member: ConsumerProtocolMemberAssignment(part.version, part.assignment, count)
                for member, part in assignments.items()
            }

        @classmethod
        def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
            on_count(int(assignment.user_data or b"0"))

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            version = RoundRobinPartitionAssignor.version
            return ConsumerProtocolMemberMetadata(version, list(topics), known().encode())

    return CountingAssignor
