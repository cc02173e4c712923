"""Tokens that no write can have returned: of a partition that does not exist, or beyond the end of the log."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from serving.consume.log_guard import LogGuard
from serving.http.problems import Problem
from stream.client import kafka_python_config

TIMEOUT_MS: Final = 2_000

log = logging.getLogger("coldstream.api")


class LogEnds:
    """Asks the broker for the ends of partitions, one request at a time, over a connection that it keeps."""

    def __init__(self, bootstrap: str, security: Mapping[str, str], guard: LogGuard) -> None:
        self._kafka = (bootstrap, security)
        self._guard = guard
        self._consumer: KafkaConsumer | None = None
        self._asking = asyncio.Lock()

    async def check(self, entries: Sequence[tuple[str, int]]) -> None:
        """Refuse partitions (`events/3`) and positions that are not in the log. A broker that is away refuses nothing.

        Raises:
            Problem: an entry is not in the log.
        """
        async with self._asking:
            try:
                refusal = await asyncio.to_thread(self._refusal, entries)
            except (KafkaError, OSError, ValueError) as error:
                log.debug("the ends of the log are not known: %s", error)
                await asyncio.to_thread(self.close)
                return
        if refusal is not None:
            raise Problem(400, "bad-token", refusal)

    def close(self) -> None:
        """Close the connection; the next check opens another one."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    def _refusal(self, entries: Sequence[tuple[str, int]]) -> str | None:
        if self._consumer is None:
            self._consumer = KafkaConsumer(**kafka_python_config(*self._kafka))
        for name, offset in entries:
            topic, _, number = name.rpartition("/")
            partitions = self._consumer.partitions_for_topic(topic) or set()
            if partitions and int(number) not in partitions:
                return f"after: {name} does not exist; {topic} has partitions 0 to {max(partitions)}"
            if not partitions:
                continue
            place = TopicPartition(topic, int(number))
            end = self._consumer.end_offsets([place], timeout_ms=TIMEOUT_MS)[place]
            if offset >= self._guard.epochs.position(name, end):
                return f"after: {name} ends before offset {offset}; give a token as a write answered it"
        return None
