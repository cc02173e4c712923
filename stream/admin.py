"""Topics are created explicitly, and a cluster is waited for, with kafka-python's admin client."""

import time
from collections.abc import Mapping, Sequence

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from stream.client import kafka_python_config
from stream.errors import BrokerError
from stream.topics import Topic


def wait_ready(bootstrap: str, security: Mapping[str, str] | None = None, timeout_s: float = 60) -> None:
    """Return once the cluster answers.

    Raises:
        BrokerError: it does not within `timeout_s`.
    """
    until = time.monotonic() + timeout_s
    while True:
        try:
            _admin(bootstrap, security).close()
        except (KafkaError, OSError, ValueError) as error:
            if time.monotonic() > until:
                raise BrokerError(
                    f"no Kafka at {bootstrap} after {timeout_s:.0f} s ({type(error).__name__}: {error}); "
                    "is the broker running, and is the address right?"
                ) from error
            time.sleep(0.2)
        else:
            return


def create_topics(
    bootstrap: str, security: Mapping[str, str] | None, topics: Sequence[Topic], replication: int = 1
) -> list[str]:
    """Create the topics that do not exist yet; their names come back. Existing ones are left as they are.

    Raises:
        BrokerError: the cluster refuses or does not answer.
    """
    try:
        admin = _admin(bootstrap, security)
    except KafkaError as error:
        raise BrokerError(f"no Kafka at {bootstrap}: {error}; is the broker running?") from error
    try:
        present = set(admin.list_topics())
        missing = [topic for topic in topics if topic.name not in present]
        if missing:
            admin.create_topics([_new(topic, replication) for topic in missing])
        return [topic.name for topic in missing]
    except TopicAlreadyExistsError:
        return []
    except KafkaError as error:
        raise BrokerError(f"topics cannot be created at {bootstrap}: {error}") from error
    finally:
        admin.close()


def partitions_of(bootstrap: str, security: Mapping[str, str] | None, topic: str) -> int:
    """How many partitions a topic has; 0 where it does not exist."""
    admin = _admin(bootstrap, security)
    try:
        found = admin.describe_topics([topic])
        return sum(len(one.get("partitions", ())) for one in found if not one.get("error_code"))
    except KafkaError:
        return 0
    finally:
        admin.close()


def _admin(bootstrap: str, security: Mapping[str, str] | None) -> KafkaAdminClient:
    return KafkaAdminClient(**kafka_python_config(bootstrap, security), request_timeout_ms=10_000)


def _new(topic: Topic, replication: int) -> NewTopic:
    configs = {"retention.ms": str(topic.retention_ms)}
    if topic.compacted:
        configs = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.2"}
    return NewTopic(topic.name, topic.partitions, replication, topic_configs=configs)
