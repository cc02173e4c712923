"""All partitions of a group belong to one member."""

from aiokafka.cluster import ClusterMetadata
from aiokafka.structs import PartitionMetadata

from stream.single_owner import SingleOwnerAssignor


def test_one_member_owns_every_partition_and_the_others_none() -> None:
    cluster = ClusterMetadata()
    for topic, partitions in (("items", 3), ("users", 1)):
        cluster._partitions[topic] = {
            number: PartitionMetadata(topic, number, 0, [0], [0], None) for number in range(partitions)
        }
    members = {name: SingleOwnerAssignor.metadata(["items", "users"]) for name in ("b", "a", "c")}
    assignment = SingleOwnerAssignor.assign(cluster, members)
    assert assignment["a"].assignment == [("items", [0, 1, 2]), ("users", [0])]
    assert assignment["b"].assignment == assignment["c"].assignment == []
