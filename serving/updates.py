"""What the API hears from Kafka: features that were written, catalogue changes, releases. No group: every API hears all."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from serving import metrics
from stream import topics
from stream.client import aiokafka_config
from stream.errors import EventError
from stream.events import Item, decode

log = logging.getLogger("coldstream.api")
RETRY_S: Final = 0.5
FETCH_BYTES: Final = 16 * 1024 * 1024


class Update(msgspec.Struct, frozen=True):
    """What `feature-updates` says after a write: everything of `partition` through `through` is in the features.

    `users` are (domain, user) pairs, or None where there were too many to name. Times are epoch ms.
    """

    partition: str
    through: int
    at: int
    logged_at: int
    users: list[tuple[str, str]] | None


_updates = msgspec.json.Decoder(Update)


class Updates:
    """How far each partition is applied, and who waits for a position or for a user's features to change."""

    def __init__(self) -> None:
        self.through: dict[int, int] = {}
        self._positions: dict[int, list[tuple[int, asyncio.Future[None]]]] = {}
        self._users: dict[tuple[str, str], set[asyncio.Event]] = {}

    def hear(self, update: Update) -> None:
        """Take in one message of `feature-updates`."""
        metrics.event_to_recommendation.observe(max(0.0, time.time() - update.logged_at / 1000))
        partition = int(update.partition.rsplit("/", 1)[1])
        self.through[partition] = max(update.through, self.through.get(partition, -1))
        waiting = self._positions.pop(partition, [])
        for offset, future in waiting:
            if offset > update.through:
                self._positions.setdefault(partition, []).append((offset, future))
            elif not future.done():
                future.set_result(None)
        named = update.users if update.users is not None else list(self._users)
        for user in named:
            for event in self._users.get(tuple(user), ()):
                event.set()

    async def reached(self, partition: int, offset: int, within_s: float) -> bool:
        """Whether `offset` of `partition` is in the features, now or within the time given."""
        if self.through.get(partition, -1) >= offset:
            return True
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._positions.setdefault(partition, []).append((offset, future))
        try:
            await asyncio.wait_for(future, within_s)
        except TimeoutError:
            return False
        return True

    def watch(self, domain: str, user_id: str) -> asyncio.Event:
        """An event that is set whenever the user's features change; `unwatch` it."""
        event = asyncio.Event()
        self._users.setdefault((domain, user_id), set()).add(event)
        return event

    def unwatch(self, domain: str, user_id: str, event: asyncio.Event) -> None:
        watching = self._users.get((domain, user_id))
        if watching is not None:
            watching.discard(event)
            if not watching:
                del self._users[domain, user_id]


class Follower:
    """Reads one topic from its beginning, or from its end, and hands every message on; survives the broker's absence."""

    def __init__(
        self,
        bootstrap: str,
        security: dict[str, str],
        topic: str,
        take: Callable[[bytes | None, bytes | None], None],
        *,
        from_start: bool,
    ) -> None:
        self._config = aiokafka_config(bootstrap, security)
        self._topic = topic
        self._take = take
        self._from_start = from_start
        self.caught_up = asyncio.Event()

    async def run(self) -> None:
        """Follow until cancelled. After a broken connection it goes on where it was."""
        positions: dict[TopicPartition, int] = {}
        while True:
            consumer = AIOKafkaConsumer(
                self._topic,
                **self._config,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="earliest" if self._from_start else "latest",
                max_partition_fetch_bytes=FETCH_BYTES,
                fetch_max_wait_ms=200,
            )
            try:
                await consumer.start()
                await self._follow(consumer, positions)
            except KafkaError as error:
                log.warning("%s: %s: %s; trying again", self._topic, type(error).__name__, error)
                await asyncio.sleep(RETRY_S)
            finally:
                await consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer, positions: dict[TopicPartition, int]) -> None:
        while not consumer.assignment():
            await asyncio.sleep(0.05)
        places = consumer.assignment()
        for place, position in positions.items():
            consumer.seek(place, position)
        ends = await consumer.end_offsets(places)
        while True:
            if not self.caught_up.is_set() and all(positions.get(place, 0) >= ends[place] for place in places):
                self.caught_up.set()
            for place, records in (await consumer.getmany(timeout_ms=200, max_records=2_000)).items():
                for one in records:
                    self._take(one.key, one.value)
                positions[place] = records[-1].offset + 1
            if not self.caught_up.is_set():
                positions |= {place: await consumer.position(place) for place in places}
            await asyncio.sleep(0)


def read_update(value: bytes | None) -> Update | None:
    """The message, or None for what is not one (logged)."""
    try:
        return _updates.decode(value or b"")
    except msgspec.DecodeError as error:
        log.warning("a message on %s is passed over: %s", topics.FEATURE_UPDATES, error)
        return None


def read_item(value: bytes) -> Item | None:
    """The item, or None for what is not one (logged)."""
    try:
        record = decode(value, 2**53)
    except EventError as error:
        log.warning("a message on %s is passed over: %s", topics.ITEMS, error.detail)
        return None
    return record if isinstance(record, Item) else None
