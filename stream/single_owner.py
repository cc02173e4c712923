"""An assignment of partitions that gives all of them to one member of a consumer group.

For readers that change one row from several partitions: whatever partitioner a producer uses, a row has one writer.
"""

from collections.abc import Iterable, Mapping

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata


class SingleOwnerAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
    """The first member by id owns every partition of the topics; the others wait to take over."""

    name = "single-owner"
    version = 0

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """The topics and partitions of each member."""
        owner = min(members)
        subscribed = {topic for metadata in members.values() for topic in metadata.subscription}
        owned = [(topic, sorted(cluster.partitions_for_topic(topic) or ())) for topic in sorted(subscribed)]
        return {
            member: ConsumerProtocolMemberAssignment(cls.version, owned if member == owner else [], b"")
            for member in members
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What a member tells the group."""
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), b"")

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing to remember."""
