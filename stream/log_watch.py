"""What the broker says about the log itself: its identity, and where each partition ends.

Lag is measured against these ends, never against what was fetched: a fetch that fails would look like no lag.
"""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError

from stream.client import kafka_python_config
from stream.errors import BrokerError

TIMEOUT_MS: Final = 5_000


class LogState(msgspec.Struct, frozen=True):
    """The log now. `topics` maps names to Kafka's topic ids, `ends` a partition (`events/3`) to its next offset."""

    cluster: str
    topics: dict[str, str]
    ends: dict[str, int]


class LogWatch:
    """One connection that reads `LogState`s of some topics; not for use by two threads at once."""

    def __init__(self, bootstrap: str, security: Mapping[str, str] | None, topics: Sequence[str]) -> None:
        self._bootstrap = bootstrap
        self._config = kafka_python_config(bootstrap, security)
        self._topics = list(topics)
        self._admin: KafkaAdminClient | None = None

    def read(self) -> LogState:
        """The log now; topics that do not exist are left out.

        Raises:
            BrokerError: the broker does not answer.
        """
        try:
            if self._admin is None:
                self._admin = KafkaAdminClient(
                    **self._config, request_timeout_ms=TIMEOUT_MS, bootstrap_timeout_ms=TIMEOUT_MS
                )
            return _read(self._admin, self._topics)
        except (KafkaError, OSError, ValueError) as error:
            self.close()
            raise BrokerError(f"no Kafka at {self._bootstrap} ({type(error).__name__}: {error})") from error

    def close(self) -> None:
        """Disconnect; the next `read` connects again."""
        admin, self._admin = self._admin, None
        if admin is not None:
            admin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read(admin: KafkaAdminClient, names: Sequence[str]) -> LogState:
    cluster = str(admin.describe_cluster()["cluster_id"])
    described: list[dict[str, Any]] = [topic for topic in admin.describe_topics(list(names)) if not topic["error_code"]]
    places = [
        TopicPartition(topic["name"], partition["partition_index"])
        for topic in described
        for partition in topic["partitions"]
        if partition["leader_id"] >= 0
    ]
    ends = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST)) if places else {}
    return LogState(
        cluster,
        {topic["name"]: str(topic["topic_id"]) for topic in described},
        {f"{place.topic}/{place.partition}": end.offset for place, end in ends.items()},
    )
