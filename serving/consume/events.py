"""The event path: micro-batches from the topic `events`, folded into users' states, written to Feast, then committed.

The order is what keeps the promise: user rows first, popularity rows next, offsets last. A crash anywhere in between
makes the same events come again, and rows that hold their positions pass over them (docs/guarantees.md).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import ConsumerRecord
from mode import Service

from features import popularity
from features.activity import Activity, FoldSettings, LoggedEvent
from features.errors import StoreError
from features.outcomes import JoinBuffer, JoinWindow, PartitionOutcomes
from features.popularity import PartitionPopularity
from features.store import OnlineStore, UserKey
from serving import metrics
from serving.consume.activity_cache import ActivityCache
from serving.consume.impression_join import ImpressionJoin
from serving.messages import FETCH_BYTES, FeatureUpdate, encode
from stream import dead_letters, topics
from stream.client import aiokafka_config
from stream.errors import EventError
from stream.events import Event, Interaction, TimeLimits, decode_event

GROUP: Final = "coldstream-events"
UPDATE_USERS: Final = 5_000
RETRY_S: Final = 0.25
STOP_S: Final = 5.0
ANSWER_S: Final = 3.0
"""At the end Kafka is asked whether it answers; so long an answer is waited for."""
AWAY_S: Final = 1.0
"""How long goodbyes are tried where it does not."""
LAG_S: Final = 2.0
"""How long the lag is asked for while the store is away."""
T = TypeVar("T")

log = logging.getLogger("coldstream.consumer")


class ConsumerOptions(msgspec.Struct, frozen=True):
    """What the event path is told."""

    bootstrap: str
    security: dict[str, str]
    rules: FoldSettings
    limits: TimeLimits
    batch_events: int
    batch_ms: int
    cached_users: int
    flush_ms: int
    counting: popularity.SettingsByDomain = {}
    """Popularity's rules by domain."""
    window: JoinWindow = JoinWindow()


class EventProcessor(Service, ConsumerRebalanceListener):  # type: ignore[misc]  # mode has no types
    """The Service of the Faust app that applies events."""

    def __init__(self, store: OnlineStore, options: ConsumerOptions, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.options = options
        self.store = store
        self.states = ActivityCache(store, options.cached_users)
        self._domains = frozenset(store.domains)
        self.joined = ImpressionJoin(options.bootstrap, options.security, options.window)
        self.rows: dict[TopicPartition, PartitionPopularity] = {}
        self.next: dict[TopicPartition, int] = {}
        self.busy = asyncio.Lock()
        self.thread = ThreadPoolExecutor(1, "feast")
        self.flushed_at = time.monotonic()
        self.patience_s = STOP_S

    async def on_start(self) -> None:
        config = aiokafka_config(self.options.bootstrap, self.options.security)
        self.producer = AIOKafkaProducer(**config, acks="all", max_request_size=FETCH_BYTES)
        self.consumer = AIOKafkaConsumer(
            **config,
            group_id=GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=200,
            session_timeout_ms=10_000,
            max_poll_interval_ms=600_000,
        )
        await self.producer.start()
        await self.consumer.start()
        self.consumer.subscribe([topics.EVENTS], listener=self)

    async def prepare_stop(self) -> None:
        """Ask whether Kafka answers: nothing can be committed to one that does not, so it is not waited for."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self.producer.client.fetch_all_metadata()
        except (KafkaError, TimeoutError):
            self.patience_s = AWAY_S

    async def on_stop(self) -> None:
        if not (self.patience_s == STOP_S and await self._flushed()):
            log.warning("stopped without a last commit: Kafka or the store does not answer; these events come again")
        if not await disconnect([self.consumer, self.producer], self.patience_s):
            log.warning("stopped without a goodbye to Kafka: it does not answer")
        self.thread.shutdown()

    async def _flushed(self) -> bool:
        """Whether a last flush came to its end in time."""
        try:
            async with asyncio.timeout(STOP_S), self.busy:
                await self._flush(wait=False)
        except TimeoutError:
            return False
        return True

    @Service.task  # type: ignore[untyped-decorator]  # mode and Faust have no types
    async def run(self) -> None:
        while not self.should_stop:
            try:
                await self._step()
            except KafkaError as error:
                log.warning("Kafka: %s: %s; trying again", type(error).__name__, error)
                await self.sleep(RETRY_S)
            except StoreError as error:
                if not self.should_stop:
                    raise
                log.warning("stopped while the online store is away (%s); these events come again", error)

    async def _step(self) -> None:
        fetched = await self.consumer.getmany(timeout_ms=self.options.batch_ms, max_records=self.options.batch_events)
        async with self.busy:
            mine = {place: records for place, records in fetched.items() if place in self.rows}
            if mine:
                await self._apply_or_return(mine)
            if (time.monotonic() - self.flushed_at) * 1000 >= self.options.flush_ms:
                await self._flush()

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        async with self.busy:
            names = [_name(place) for place in assigned]
            kept = await self.stored(lambda: self.store.read_popularity(names), "read")
            joined = await self._joined(assigned)
            for place in assigned:
                row = self._countable(_name(place), kept.get(_name(place)) or PartitionPopularity())
                committed = await self.consumer.committed(place)
                start = self.joined.begin(place, joined.get(place), min(committed or 0, row.position + 1))
                self.consumer.seek(place, start)
                self.rows[place], self.next[place] = row, start
            await self._measure_lag(assigned)
            self.states.drop()
        log.info("partitions %s are ours", ", ".join(names) or "none")

    def _countable(self, name: str, row: PartitionPopularity) -> PartitionPopularity:
        """The row, or an empty one where a preset changed: then the log is read again, and only popularity moves."""
        changed = popularity.outdated_domains(row, self.options.counting)
        if not changed:
            return row
        log.warning("%s: popularity of %s has other rules now; counted anew from the log", name, ", ".join(changed))
        return PartitionPopularity()

    async def _joined(
        self, assigned: Sequence[TopicPartition]
    ) -> dict[TopicPartition, tuple[PartitionOutcomes, JoinBuffer]]:
        """What the join knew of partitions; Kafka is waited for, as without it lists would be counted twice."""
        while True:
            try:
                return await self.joined.restore(assigned)
            except KafkaError as error:
                if self.should_stop:
                    raise
                log.warning("outcomes cannot be read (%s: %s); trying again", type(error).__name__, error)
                await asyncio.sleep(RETRY_S)

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        async with self.busy:
            await self._flush(wait=False)
            for place in revoked:
                self.rows.pop(place, None)
                self.next.pop(place, None)
                self.joined.drop(place)
            self.states.drop()

    async def forget(self, user_id: str) -> None:
        """Empty a user's rows in every domain."""
        async with self.busy:
            for domain in self.store.domains:
                await self.stored(partial(self.store.delete_user, domain, user_id), "forget")
            self.states.drop([(domain, user_id) for domain in self.store.domains])

    async def _apply_or_return(self, fetched: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        """Apply; where that fails, go back to where we were, or the batch would be skipped."""
        try:
            await self._apply(fetched)
        except BaseException:
            for place in fetched:
                if place in self.next and place in self.consumer.assignment():
                    self.consumer.seek(place, self.next[place])
            raise

    async def _apply(self, fetched: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        started = time.perf_counter()
        entries, letters = self._decode(fetched)
        await asyncio.gather(*[await self.producer.send(topics.DEAD_LETTERS, value) for value in letters])
        decoded = time.perf_counter()
        changed = await self.stored(partial(self.states.fold, entries, self.options.rules), "write")
        for place, records in fetched.items():
            mine = [entry for entry in entries if entry.partition == _name(place)]
            popularity.apply(self.rows[place], mine, self.options.counting)
            self.joined.apply(place, mine, records[-1].offset)
            self.rows[place].position = max(self.rows[place].position, records[-1].offset)
            self.next[place] = records[-1].offset + 1
        metrics.batch_seconds.labels("decode").observe(decoded - started)
        metrics.batch_seconds.labels("apply").observe(time.perf_counter() - decoded)
        await self._announce(fetched, changed)
        self._measure(fetched, entries)

    def _decode(self, fetched: dict[TopicPartition, list[ConsumerRecord]]) -> tuple[list[LoggedEvent], list[bytes]]:
        entries: list[LoggedEvent] = []
        letters: list[bytes] = []
        for place, records in fetched.items():
            name = _name(place)
            for one in records:
                try:
                    entries.append(LoggedEvent(self._event(one), name, one.offset))
                except EventError as error:
                    metrics.dead_letters.labels(error.reason).inc()
                    at = (one.topic, one.partition, one.offset, one.key, one.value or b"")
                    letters.append(dead_letters.encode_letter(error.reason, error.detail, *at))
        return entries, letters

    def _event(self, message: ConsumerRecord) -> Event:
        """The event in a message. Its time is judged by the broker's, so a rebuild judges it in the same way."""
        event = decode_event(message.key, message.value or b"", message.timestamp, self.options.limits)
        if event.domain not in self._domains:
            known = ", ".join(self.store.domains)
            raise EventError("unknown-domain", f"domain={event.domain!r} is not one of {known} (setting: domains)")
        return event

    async def _announce(
        self, fetched: dict[TopicPartition, list[ConsumerRecord]], changed: dict[UserKey, Activity]
    ) -> None:
        now = int(time.time() * 1000)
        for place, records in fetched.items():
            name = _name(place)
            users = [key for key, row in changed.items() if name in row.applied.positions]
            named = users if len(users) <= UPDATE_USERS else None
            update = FeatureUpdate(name, records[-1].offset, now, records[-1].timestamp, named)
            topic, _, value = encode(update)
            await self.producer.send(topic, value, partition=place.partition)

    def _measure(self, fetched: dict[TopicPartition, list[ConsumerRecord]], entries: list[LoggedEvent]) -> None:
        now = time.time()
        counts: dict[tuple[str, str], int] = {}
        for entry in entries:
            event = entry.event
            kind = event.kind if isinstance(event, Interaction) else type(event).__name__.lower()
            counts[kind, event.domain] = counts.get((kind, event.domain), 0) + 1
        for (kind, domain), count in counts.items():
            metrics.events_applied.labels(kind, domain).inc(count)
        for place, records in fetched.items():
            metrics.event_to_feature.observe(max(0.0, now - records[-1].timestamp / 1000))
            end = self.consumer.highwater(place)
            metrics.consumer_lag.labels(_name(place)).set(max(0, (end or self.next[place]) - self.next[place]))
        metrics.batch_events.observe(len(entries))

    async def _measure_lag(self, places: Sequence[TopicPartition]) -> None:
        ends = await self.consumer.end_offsets(list(places))
        for place in places:
            metrics.consumer_lag.labels(_name(place)).set(max(0, ends[place] - self.next[place]))

    async def _tell_lag(self) -> None:
        """The lag while nothing is applied: it has to grow where a dashboard sees it."""
        try:
            async with asyncio.timeout(LAG_S):
                await self._measure_lag(list(self.next))
        except (KafkaError, TimeoutError) as error:
            log.warning("the lag is not known: %s: %s", type(error).__name__, error)

    async def _flush(self, wait: bool = True) -> None:
        """Write popularity rows, then commit. With `wait=False` a store that is away is not waited for."""
        self.flushed_at = time.monotonic()
        if not self.rows:
            return
        rows = {_name(place): row for place, row in self.rows.items() if row.position >= 0}
        rows |= {popularity.TOP_PREFIX + name: popularity.most_popular(row) for name, row in rows.items()}
        try:
            if wait:
                await self.stored(lambda: self.store.write_popularity(rows), "write")
            else:
                await asyncio.get_running_loop().run_in_executor(self.thread, self.store.write_popularity, rows)
            await self.joined.publish(self.producer)
            await self.consumer.commit({place: self.next[place] for place in self.rows})
        except (CommitFailedError, IllegalStateError) as error:
            log.info("not committed (%s): these events come again and change nothing", error)
        except (StoreError, KafkaError) as error:
            log.warning("not flushed (%s): these events come again and change nothing", error)

    async def stored(self, call: Callable[[], T], operation: str) -> T:
        """`call` in the store's thread, again and again while the store is away: nothing is dropped, lag shows it."""
        waiting = False
        while True:
            try:
                result = await asyncio.get_running_loop().run_in_executor(self.thread, call)
            except StoreError as error:
                metrics.store_errors.labels(operation).inc()
                if not waiting:
                    log.warning("%s; waiting for it", error)
                waiting = True
                if self.should_stop:
                    raise
                await self._tell_lag()
                await asyncio.sleep(RETRY_S)
            else:
                if waiting:
                    log.info("the online store answers again")
                return result


async def disconnect(clients: Sequence[AIOKafkaConsumer | AIOKafkaProducer], within_s: float) -> bool:
    """Whether clients said goodbye to Kafka in time.

    In tasks of their own: where a fetch had failed, aiokafka's `stop` ends in a cancellation that nobody asked for.
    """
    leaving = [asyncio.create_task(one.stop()) for one in clients]
    done, late = await asyncio.wait(leaving, timeout=within_s)
    for one in late:
        one.cancel()
    return not late and all(not one.cancelled() and one.exception() is None for one in done)


def _name(place: TopicPartition) -> str:
    return f"{place.topic}/{place.partition}"
