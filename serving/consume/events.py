"""The event path: micro-batches from the topic `events`, folded into users' states, written to Feast, then committed.

The order gives the exactly-once effect: user rows first, popularity rows next, offsets last. After a crash in between,
Kafka redelivers the same events, and rows skip those at or before the positions that they hold (docs/guarantees.md).
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import ConsumerRecord
from mode import Service

from features import popularity
from features.activity import Activity, FoldSettings, LoggedEvent, is_repeat, origin_of
from features.errors import StoreError
from features.outcomes import JoinBuffer, JoinWindow, PartitionOutcomes
from features.popularity import PartitionPopularity
from features.store import OnlineStore, UserKey
from serving import metrics
from serving.consume.activity_cache import ActivityCache
from serving.consume.forwarding import Forwarder, Misplaced
from serving.consume.impression_join import ImpressionJoin
from serving.consume.log_guard import LogGuard
from serving.consume.membership import leave_at_stop
from serving.consume.partition_reader import PartitionReader, letters_of, partition_name
from serving.messages import FETCH_BYTES, FeatureUpdate, UserDeletion, decode_deletion, encode
from serving.store_health import StoreHealth
from stream import topics
from stream.client import READ_COMMITTED, aiokafka_config
from stream.errors import BrokerError, EventError
from stream.events import Event, Interaction, TimeLimits, decode_event
from stream.headers import forwarded_from, is_backfill
from stream.partition_guard import PartitionGuard

GROUP: Final = "coldstream-events"
UPDATE_USERS: Final = 5_000
UPDATE_BYTES: Final = 512 * 1024
"""Largest update with users: stock brokers take messages of 1 MiB."""
NEW_PARTITIONS_MS: Final = 10_000
"""Added partitions are seen within this time."""
RETRY_S: Final = 0.25
OTHER_LOG_S: Final = 1.0
"""Pause of a consumer that has found another log: it only reports."""
STOP_S: Final = 5.0
PROBE_TIMEOUT_S: Final = 3.0
"""How long the shutdown waits for Kafka to respond to a metadata request."""
OFFLINE_STOP_S: Final = 1.0
"""How long clients may take to disconnect if Kafka did not respond."""

EventDeletion = tuple[TopicPartition, int, UserDeletion]
"""A deletion among the events, with its partition and position."""

log = logging.getLogger("coldstream.consumer")


class ConsumerOptions(msgspec.Struct, frozen=True):
    """Configuration of the event path; `popularity_settings` are by domain."""

    bootstrap: str
    security: dict[str, str]
    fold_settings: FoldSettings
    limits: TimeLimits
    batch_events: int
    batch_ms: int
    cached_users: int
    flush_ms: int
    session_timeout_ms: int = 10_000
    popularity_settings: popularity.SettingsByDomain = {}
    join_window: JoinWindow = JoinWindow()


class EventProcessor(PartitionReader):
    """The Service of the Faust app that applies events."""

    def __init__(self, store: OnlineStore, options: ConsumerOptions, **kwargs: Any) -> None:
        super().__init__(store, **kwargs)
        self.options = options
        self.activities = ActivityCache(store, options.cached_users)
        self.impression_join = ImpressionJoin(options.bootstrap, options.security, options.join_window)
        self.popularity_rows: dict[TopicPartition, PartitionPopularity] = {}
        self.update_partitions = 1
        self.ends: dict[str, int] = {}
        self.forwarder = Forwarder(options.bootstrap, options.security)
        self.log_guard = LogGuard(options.bootstrap, options.security)
        self.store_thread = ThreadPoolExecutor(1, "feast")
        self.store_health = StoreHealth()
        self.flushed_at = time.monotonic()
        self.disconnect_timeout_s = STOP_S

    async def on_start(self) -> None:
        config = aiokafka_config(self.options.bootstrap, self.options.security)
        self.producer = AIOKafkaProducer(**config, acks="all", max_request_size=FETCH_BYTES)
        self.consumer = AIOKafkaConsumer(
            **config,
            group_id=GROUP,
            group_instance_id=self.instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            fetch_max_wait_ms=200,
            **READ_COMMITTED,
            partition_assignment_strategy=[self.forwarder.assignor()],
            metadata_max_age_ms=NEW_PARTITIONS_MS,
            session_timeout_ms=self.options.session_timeout_ms,
            max_poll_interval_ms=600_000,
        )
        self.guard = PartitionGuard(self.consumer, self.options.bootstrap, self.options.security, self.next_offsets)
        await self.producer.start()
        await self.join([topics.EVENTS])

    async def prepare_stop(self) -> None:
        """Check that Kafka responds: if not, nothing can be committed, so the shutdown does not wait for it."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self.producer.client.fetch_all_metadata()
        except (KafkaError, TimeoutError):
            self.disconnect_timeout_s = OFFLINE_STOP_S

    async def on_stop(self) -> None:
        if not (self.disconnect_timeout_s == STOP_S and await self._flushed()):
            log.warning(
                "stopped without a final commit (Kafka or the store does not respond): events will be redelivered"
            )
        leave_at_stop(self.consumer)
        if not await disconnect([self.consumer, self.producer, self.forwarder], self.disconnect_timeout_s):
            log.warning("stopped without leaving the consumer group: Kafka does not respond")
        self.store_thread.shutdown()

    async def _flushed(self) -> bool:
        """Flush one last time; False if that did not finish in time."""
        try:
            async with asyncio.timeout(STOP_S), self.busy:
                await self._flush(wait=False)
        except TimeoutError:
            return False
        return True

    @Service.task  # type: ignore[untyped-decorator]  # mode and Faust have no types
    async def run(self) -> None:
        while not self.should_stop:
            await self.try_step(self._step, "events", KafkaError, BrokerError, retry_s=RETRY_S)

    async def _step(self) -> None:
        if self.log_guard.problem:
            await self.sleep(OTHER_LOG_S)
            return
        fetched = await self.guard.fetch(self.options.batch_ms, self.options.batch_events)
        async with self.busy:
            owned = {partition: records for partition, records in fetched.items() if partition in self.popularity_rows}
            if await self.has_other_log(owned):
                return
            if owned:
                async with self.seeking_back(owned):
                    await self._apply(owned)
            if (time.monotonic() - self.flushed_at) * 1000 >= self.options.flush_ms:
                await self._pass_markers()
                await self._flush()

    async def _pass_markers(self) -> None:
        """Advance over what is applied and holds no event: the markers of transactions, and aborted events."""
        for partition in self.popularity_rows.keys() & self.consumer.assignment():
            position = await self.consumer.position(partition)
            self.next_offsets[partition] = max(self.next_offsets[partition], position)
            row = self.popularity_rows[partition]
            end = self.log_guard.epochs.position(partition_name(partition), position)
            row.position = max(row.position, end - 1)

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        async with self.busy:
            self.update_partitions = len(await self.producer.partitions_for(topics.FEATURE_UPDATES))
            self.impression_join.shown_partitions = len(await self.producer.partitions_for(topics.SHOWN))
            names = [partition_name(partition) for partition in assigned]
            stored_rows = await self.call_store(lambda: self.store.read_popularity(names), "read")
            outcomes = await self._restore_outcomes(assigned)
            epochs = self.log_guard.epochs
            for partition, name in zip(assigned, names, strict=True):
                row = self._current_row(name, stored_rows.get(name) or PartitionPopularity())
                committed = epochs.position(name, await self.consumer.committed(partition) or 0)
                if committed <= row.position:  # after a crash, or in a log that went back
                    await self.recheck_log([name])
                position = self.impression_join.begin(
                    partition, outcomes.get(partition), min(committed, row.position + 1)
                )
                start = epochs.offset(name, position)
                self.consumer.seek(partition, start)
                self.popularity_rows[partition], self.next_offsets[partition] = row, start
            self._measure_lag(assigned)
            self.activities.drop()
        log.info("assigned partitions: %s", ", ".join(names) or "none")

    def _current_row(self, name: str, row: PartitionPopularity) -> PartitionPopularity:
        """The row, or an empty one if a preset changed: the log is then read again, which changes popularity only."""
        outdated = popularity.outdated_domains(row, self.options.popularity_settings)
        if not outdated:
            return row
        log.warning("%s: popularity settings of %s changed; counting again from the log", name, ", ".join(outdated))
        return PartitionPopularity()

    async def _restore_outcomes(
        self, assigned: Sequence[TopicPartition]
    ) -> dict[TopicPartition, tuple[PartitionOutcomes, JoinBuffer]]:
        """The join's stored rows; waits for Kafka, because impressions would be counted twice without them."""
        while True:
            try:
                return await self.impression_join.restore(assigned)
            except KafkaError as error:
                if self.should_stop:
                    raise
                log.warning("outcomes cannot be read (%s: %s); retrying", type(error).__name__, error)
                await asyncio.sleep(RETRY_S)

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        async with self.busy:
            await self._flush(wait=False)
            for partition in revoked:
                self.popularity_rows.pop(partition, None)
                self.impression_join.drop(partition)
                self.drop_partition(partition)
            self.activities.drop()

    async def _apply(self, fetched: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        started = time.perf_counter()
        entries, letters, misplaced, deletions = self._decode(fetched)
        await asyncio.gather(*[await self.producer.send(topics.DEAD_LETTERS, value) for value in letters])
        sent = await self.forwarder.send(misplaced) if misplaced else {}
        behind = {name: self.log_guard.epochs.position(name, offset) for name, offset in sent.items()}
        decoded = time.perf_counter()
        changed = await self._erase(deletions, entries) if deletions else {}
        fold = partial(self.activities.fold, entries, self.options.fold_settings)
        changed |= await self.call_store(fold, "write")
        for partition, records in fetched.items():
            name, last = partition_name(partition), records[-1]
            through = self.log_guard.epochs.position(name, last.offset)
            partition_entries = [entry for entry in entries if entry.partition == name]
            popularity.apply(self.popularity_rows[partition], partition_entries, self.options.popularity_settings)
            self.impression_join.apply(partition, partition_entries, through)
            self.popularity_rows[partition].position = max(self.popularity_rows[partition].position, through)
            self.next_offsets[partition] = last.offset + 1
            self.log_guard.on_read(name, last.offset, last.timestamp)
        for partition, _, deletion in deletions:
            is_repeat(deletion.origin, self.popularity_rows[partition].forwarded)
        metrics.batch_seconds.labels("decode").observe(decoded - started)
        metrics.batch_seconds.labels("apply").observe(time.perf_counter() - decoded)
        await self._send_updates(fetched, changed, behind)
        self._record_metrics(fetched, entries)

    def _decode(
        self, fetched: dict[TopicPartition, list[ConsumerRecord]]
    ) -> tuple[list[LoggedEvent], list[bytes], list[Misplaced], list[EventDeletion]]:
        """Events to apply, dead letters, what belongs into another partition, and deletions."""
        entries: list[LoggedEvent] = []
        letters: list[bytes] = []
        misplaced: list[Misplaced] = []
        deletions: list[EventDeletion] = []
        epochs = self.log_guard.epochs
        for partition, records in fetched.items():
            name = partition_name(partition)
            shift = epochs.shift_between(name, records[0].offset, records[-1].offset)
            for message in records:
                try:
                    event = self._event(message)
                    home = self.forwarder.home(message)
                    if home != message.partition:
                        misplaced.append((home, message))
                        continue
                    headers = message.headers
                    origin = origin_of(name, forwarded_from(headers), epochs) if headers else None
                    position = message.offset + (shift if shift is not None else epochs.shift(name, message.offset))
                    entries.append(LoggedEvent(event, name, position, is_backfill(headers), origin))
                except EventError as error:
                    deletion = decode_deletion(message.key, message.value)
                    if deletion is None:
                        letters += letters_of(message, error)
                    elif (home := self.forwarder.home(message)) != message.partition:
                        misplaced.append((home, message))
                    else:
                        deletions.append((partition, epochs.position(name, message.offset), deletion))
        return entries, letters, misplaced, deletions

    async def _erase(
        self, deletions: Sequence[EventDeletion], entries: Sequence[LoggedEvent]
    ) -> dict[UserKey, Activity]:
        """Erase users' rows in every domain. They then hold the deletion's position, which keeps out what is before it.

        A deletion that a killed consumer sent twice is passed over: events between the two count.
        """
        users = {
            (domain, deletion.user_id): (partition_name(partition), position)
            for partition, position, deletion in deletions
            if deletion.origin[1] > self.popularity_rows[partition].forwarded.get(deletion.origin[0], -1)
            for domain in self.store.domains
        }
        arriving = {(entry.event.domain, entry.event.user_id) for entry in entries}
        changed = await self.call_store(partial(self.activities.erase, users, arriving), "forget")
        log.info("deleted the features of users: %s", ", ".join(sorted({user for _, user in users})) or "none")
        return changed

    def _event(self, message: ConsumerRecord) -> Event:
        """The event in a message. Its time is checked against the broker's, so that a rebuild decides the same."""
        event = decode_event(message.key, message.value or b"", message.timestamp, self.options.limits)
        self.check_domain(event.domain)
        return event

    async def _send_updates(
        self,
        fetched: dict[TopicPartition, list[ConsumerRecord]],
        changed: dict[UserKey, Activity],
        behind: dict[str, int],
    ) -> None:
        now = int(time.time() * 1000)
        for partition, records in fetched.items():
            name = partition_name(partition)
            users = [key for key, row in changed.items() if name in row.applied.positions]
            listed = users if len(users) <= UPDATE_USERS else None
            through = self.log_guard.epochs.position(name, records[-1].offset)
            update = FeatureUpdate(name, through, now, records[-1].timestamp, listed, behind=behind)
            await self.send_update(partition, update)

    async def send_update(self, partition: TopicPartition, update: FeatureUpdate) -> None:
        """Queue an update for the API processes; without its users where they would not fit a message."""
        topic, _, value = encode(update)
        if len(value or b"") > UPDATE_BYTES:
            topic, _, value = encode(msgspec.structs.replace(update, users=None))
        await self.producer.send(topic, value, partition=partition.partition % self.update_partitions)

    def _record_metrics(self, fetched: dict[TopicPartition, list[ConsumerRecord]], entries: list[LoggedEvent]) -> None:
        now = time.time()
        counts: dict[tuple[str, str], int] = {}
        for entry in entries:
            event = entry.event
            kind = event.kind if isinstance(event, Interaction) else type(event).__name__.lower()
            counts[kind, event.domain] = counts.get((kind, event.domain), 0) + 1
        for (kind, domain), count in counts.items():
            metrics.events_applied.labels(kind, domain).inc(count)
        for domain, count in self.activities.take_late().items():
            metrics.late_events.labels(domain).inc(count)
        for records in fetched.values():
            metrics.event_to_feature.observe(max(0.0, now - records[-1].timestamp / 1000))
        self._measure_lag(fetched)
        metrics.batch_events.observe(len(entries))

    def _measure_lag(self, partitions: Iterable[TopicPartition]) -> None:
        """Set the lag metrics from the newest ends: those that the broker last told, or a fetch if that is newer."""
        for partition in partitions:
            name = partition_name(partition)
            position = self.next_offsets[partition]
            end = max(self.ends.get(name, 0), self.consumer.highwater(partition) or 0)
            metrics.consumer_lag.labels(name).set(max(0, end - position))

    async def _flush(self, wait: bool = True) -> None:
        """Write popularity rows, then commit. With `wait=False` it does not wait for an unavailable store."""
        self.flushed_at = time.monotonic()
        if not self.popularity_rows:
            return
        rows = {partition_name(partition): row for partition, row in self.popularity_rows.items() if row.position >= 0}
        rows |= {popularity.TOP_PREFIX + name: popularity.most_popular(row) for name, row in rows.items()}
        marks = self.log_guard.take_marks()

        def write() -> None:
            self.store.write_popularity(rows)
            if marks:
                self.store.write_log_marks(marks)

        try:
            if wait:
                await self.call_store(write, "write")
            else:
                await asyncio.get_running_loop().run_in_executor(self.store_thread, write)
            if self.log_guard.problem:
                return
            await self.impression_join.publish(self.producer)
            await self.consumer.commit({partition: self.next_offsets[partition] for partition in self.popularity_rows})
        except (CommitFailedError, IllegalStateError) as error:
            log.info("not committed (%s): these events will be redelivered and change nothing", error)
        except (StoreError, KafkaError) as error:
            log.warning("not flushed (%s): these events will be redelivered and change nothing", error)


async def disconnect(clients: Sequence[AIOKafkaConsumer | AIOKafkaProducer | Forwarder], within_s: float) -> bool:
    """Stop clients; False if one did not disconnect from Kafka in time.

    Each stops in its own task: after a failed fetch, aiokafka's `stop` raises CancelledError in the calling task.
    """
    tasks = [asyncio.create_task(client.stop()) for client in clients]
    done, pending = await asyncio.wait(tasks, timeout=within_s)
    for task in pending:
        task.cancel()
    return not pending and all(not task.cancelled() and task.exception() is None for task in done)
