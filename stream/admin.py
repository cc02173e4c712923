"""Topics are created explicitly, and a cluster is waited for, with kafka-python's admin client."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    RetriableError,
    TopicAlreadyExistsError,
    for_code,
)

from stream.addresses import bracketed
from stream.client import kafka_python_config
from stream.errors import BrokerError
from stream.login_check import check_login
from stream.topics import Topic

REQUEST_TIMEOUT_MS = 10_000
COORDINATOR_WITHIN_S = 20.0
CLUSTER_DEFAULT = -1
"""The replication factor that leaves the choice to the cluster."""

log = logging.getLogger("coldstream.kafka")


class TopicState(msgspec.Struct, frozen=True):
    """A topic as the cluster has it: its partitions, how many of them have a leader now, and lack replicas in sync;
    `replicas`: the fewest that a partition has."""

    name: str
    partitions: int
    led: int
    replicas: int = 1
    under_replicated: int = 0


class ClusterState(msgspec.Struct, frozen=True):
    """A cluster: how many brokers are in it now, and how many partitions of its topics lack replicas in sync."""

    brokers: int
    under_replicated: int


def wait_ready(bootstrap: str, security: Mapping[str, str] | None = None, timeout_s: float = 60) -> None:
    """Return once the cluster answers.

    Raises:
        BrokerError: it does not within `timeout_s`.
    """
    until = time.monotonic() + timeout_s
    while not _answers(bootstrap, security, max(1.0, until - time.monotonic())):
        if time.monotonic() > until:
            raise BrokerError(f"Kafka at {bootstrap} has no broker that works after {timeout_s:g} s; see its log")
        time.sleep(0.05)


def _answers(bootstrap: str, security: Mapping[str, str] | None, timeout_s: float) -> bool:
    """Whether a broker works there: one listens a moment before it is let into its own cluster, and another may end
    while it is asked."""
    with _admin(bootstrap, security, timeout_s) as admin:
        try:
            return bool(admin.describe_cluster()["brokers"])
        except RetriableError as error:
            log.warning("the connection to Kafka at %s was lost (%s); waiting for it", bootstrap, error)
            return False


def create_topics(
    bootstrap: str,
    security: Mapping[str, str] | None,
    topics: Sequence[Topic],
    timeout_s: float = 30,
    *,
    replication: int = 0,
    min_insync_replicas: int = 0,
) -> list[str]:
    """Create the topics that do not exist yet, and wait until all of `topics` can be written to.

    `replication` and `min_insync_replicas` of 0 leave the choice to the cluster.

    Those that exist stay as they are: other partitions would send a user's next events to another partition.

    Returns:
        The names of those that were created.

    Raises:
        BrokerError: the cluster does not answer in time, or refuses a topic; it is named.
    """
    with _admin(bootstrap, security, timeout_s) as admin:
        present = set(admin.list_topics())
        missing = [topic for topic in topics if topic.name not in present]
        created: list[str] = []
        if missing:
            answer = admin.create_topics(
                [_new(topic, replication, min_insync_replicas) for topic in missing], raise_errors=False
            )
            created = [topic["name"] for topic in answer["topics"] if _was_created(bootstrap, topic)]
        admin.wait_for_topics([topic.name for topic in topics], timeout_ms=int(timeout_s * 1000))
        return created


def describe(bootstrap: str, security: Mapping[str, str] | None = None, timeout_s: float = 10) -> dict[str, TopicState]:
    """Every topic of the cluster by name, Kafka's own (`__consumer_offsets`) left out.

    Raises:
        BrokerError: the cluster does not answer in time.
    """
    with _admin(bootstrap, security, timeout_s) as admin:
        descriptions = [description for description in admin.describe_topics() if not description.get("is_internal")]
    return {description["name"]: _state(description) for description in descriptions}


def cluster_state(bootstrap: str, security: Mapping[str, str] | None = None, timeout_s: float = 10) -> ClusterState:
    """What an operator looks at first. Raises like `describe`."""
    with _admin(bootstrap, security, timeout_s) as admin:
        brokers = admin.describe_cluster()["brokers"]
        states = [_state(description) for description in admin.describe_topics()]
    alive = [broker for broker in brokers if not broker.get("is_fenced")]
    return ClusterState(len(alive), sum(state.under_replicated for state in states))


def partitions_of(bootstrap: str, security: Mapping[str, str] | None, topic: str) -> int:
    """How many partitions a topic has; 0 where it does not exist. Raises like `describe`."""
    state = describe(bootstrap, security).get(topic)
    return state.partitions if state else 0


def group_members(bootstrap: str, security: Mapping[str, str] | None, groups: Sequence[str]) -> dict[str, int]:
    """How many members each of these consumer groups has now. Raises like `describe`."""
    until = time.monotonic() + COORDINATOR_WITHIN_S
    with _admin(bootstrap, security, 10) as admin:
        while True:
            try:
                described = admin.describe_groups(list(groups))
                break
            except RetriableError:  # a new broker creates its topic of groups when it is first asked for a coordinator
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
    return {group: len(described.get(group, {}).get("members") or ()) for group in groups}


def log_begins(bootstrap: str, security: Mapping[str, str] | None, topic: str) -> list[int]:
    """The first offset that the log still has, by partition. Raises like `describe`."""
    places = [TopicPartition(topic, number) for number in range(partitions_of(bootstrap, security, topic))]
    try:
        consumer = KafkaConsumer(**kafka_python_config(bootstrap, security))
        try:
            begins = consumer.beginning_offsets(places)
        finally:
            consumer.close()
    except KafkaError as error:
        raise BrokerError(f"the log of {topic} at {bootstrap} cannot be described: {error}") from error
    return [begins[place] for place in places]


@contextmanager
def _admin(bootstrap: str, security: Mapping[str, str] | None, timeout_s: float) -> Iterator[KafkaAdminClient]:
    config = kafka_python_config(bootstrap, security)
    check_login(bootstrap, security)
    try:
        admin = KafkaAdminClient(
            **config,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            bootstrap_timeout_ms=int(timeout_s * 1000),
            reconnect_backoff_max_ms=500,  # a broker that comes up is seen at once, not after a doubled wait
        )
    except (KafkaError, OSError, ValueError) as error:
        raise BrokerError(
            f"no Kafka at {bootstrap} within {timeout_s:g} s ({type(error).__name__}: {error}); "
            "is the broker running, is the address right, and does kafka_security fit it?"
        ) from error
    try:
        yield admin
    except KafkaError as error:
        hint = _advertised(admin) if isinstance(error, KafkaConnectionError | KafkaTimeoutError) else ""
        raise BrokerError(
            f"Kafka at {bootstrap} does not do as asked: {type(error).__name__}: {error}{hint}"
        ) from error
    finally:
        admin.close()


def _advertised(admin: KafkaAdminClient) -> str:
    """Which addresses a cluster told this client to use, where the first one answered and those do not."""
    brokers = admin._manager.cluster.brokers()
    addresses = ", ".join(f"{bracketed(broker.host)}:{broker.port}" for broker in brokers)
    return f"; its brokers say they are at {addresses}: reach those from here, or correct advertised.listeners there"


def _was_created(bootstrap: str, answer: Mapping[str, Any]) -> bool:
    error = for_code(answer["error_code"])
    if error is TopicAlreadyExistsError:  # another process was faster
        return False
    if answer["error_code"]:
        raise BrokerError(
            f"topic {answer['name']} cannot be created at {bootstrap}: {error.__name__}: {answer['error_message']}; "
            "check its partitions, the replication factor and your rights"
        )
    return True


def _state(description: Mapping[str, Any]) -> TopicState:
    partitions = description.get("partitions") or []
    led = sum(partition.get("leader_id", -1) >= 0 for partition in partitions)
    replicas = [len(partition.get("replica_nodes") or ()) for partition in partitions]
    lacking = sum(
        len(partition.get("isr_nodes") or ()) < replica_count
        for partition, replica_count in zip(partitions, replicas, strict=True)
    )
    return TopicState(description["name"], len(partitions), led, min(replicas, default=0), lacking)


def _new(topic: Topic, replication: int, min_insync_replicas: int) -> NewTopic:
    configs = {"retention.ms": str(topic.retention_ms)}
    if topic.compacted:
        configs = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.2"}
    configs["message.timestamp.type"] = "LogAppendTime"  # what is too late or too early is judged by the broker's clock
    if min_insync_replicas:
        configs["min.insync.replicas"] = str(min_insync_replicas)
    return NewTopic(topic.name, topic.partitions, replication or CLUSTER_DEFAULT, topic_configs=configs)
