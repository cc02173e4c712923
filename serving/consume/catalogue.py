"""The catalogue path: updates of items and users, merged into the store, then sent to `catalogue` and `profiles`.

The order gives the exactly-once effect: rows and the position that they contain, merged records, offsets last. A merge
that is repeated after a crash changes nothing, and the records that it sends again are the newest ones.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import ConsumerRecord
from mode import Service

from features.activity import is_repeat
from features.catalogue_fold import LoggedUpdate, write_updates
from features.catalogue_topics import Message, batch_messages, tombstone
from features.store import OnlineStore
from serving.consume.events import OTHER_LOG_S, EventProcessor, disconnect
from serving.consume.membership import leave_at_stop
from serving.consume.partition_reader import PartitionReader, letters_of, partition_name
from serving.messages import FETCH_BYTES, UserDeletion, decode_deletion
from stream import topics
from stream.client import READ_COMMITTED, aiokafka_config
from stream.errors import EventError
from stream.events import Item, User, decode_catalogue_update
from stream.partition_guard import PartitionGuard
from stream.single_owner import SingleOwnerAssignor

GROUP: Final = "coldstream-catalogue"
BATCH: Final = 250
"""Updates in a batch. Small: events wait while a batch is written."""
FETCH_MS: Final = 500
RETRY_S: Final = 0.5
MERGED_PARTITION: Final = 0
"""Records and their progress messages stand in one partition, so that they are read in order."""

LoggedDeletion = tuple[str, int, UserDeletion]
"""A deletion among the updates, with its partition (`users/0`) and position."""

log = logging.getLogger("coldstream.consumer")


class CatalogueProcessor(PartitionReader):
    """The Service of the Faust app that applies updates of items and users."""

    def __init__(self, store: OnlineStore, events: EventProcessor, **kwargs: Any) -> None:
        super().__init__(store, **kwargs)
        self.events = events
        self.log_guard = events.log_guard
        self.store_thread = events.store_thread
        self.store_health = events.store_health

    async def on_start(self) -> None:
        options = self.events.options
        config = aiokafka_config(options.bootstrap, options.security)
        self.producer = AIOKafkaProducer(**config, acks="all", max_request_size=FETCH_BYTES)
        self.consumer = AIOKafkaConsumer(
            **config,
            group_id=GROUP,
            group_instance_id=self.instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **READ_COMMITTED,
            partition_assignment_strategy=(SingleOwnerAssignor,),
            session_timeout_ms=options.session_timeout_ms,
            max_poll_interval_ms=600_000,
        )
        self.guard = PartitionGuard(self.consumer, options.bootstrap, options.security, self.next_offsets)
        await self.producer.start()
        await self.join([topics.ITEMS, topics.USERS])

    async def on_stop(self) -> None:
        leave_at_stop(self.consumer)
        if not await disconnect([self.consumer, self.producer], self.events.disconnect_timeout_s):
            log.warning("stopped without leaving the catalogue consumer group: Kafka does not respond")

    @Service.task  # type: ignore[untyped-decorator]  # mode and Faust have no types
    async def run(self) -> None:
        while not self.should_stop:
            await self.try_step(self._step, "updates", KafkaError, retry_s=RETRY_S)

    async def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """Continue behind the commit, or where the store's rows end if it holds less: an emptied store fills again."""
        names = [partition_name(partition) for partition in assigned]
        async with self.busy:
            stored = await self.call_store(lambda: self.store.read_positions(names), "read")
            epochs = self.log_guard.epochs
            for partition, name in zip(assigned, names, strict=True):
                committed = epochs.position(name, await self.consumer.committed(partition) or 0)
                if committed <= stored.get(name, -1):  # after a crash, or in a log that went back
                    await self.recheck_log([name])
                self.next_offsets[partition] = epochs.offset(name, min(committed, stored.get(name, -1) + 1))
                self.consumer.seek(partition, self.next_offsets[partition])

    async def _step(self) -> None:
        if self.log_guard.problem:
            await self.sleep(OTHER_LOG_S)
            return
        fetched = await self.guard.fetch(FETCH_MS, BATCH)
        async with self.busy:
            owned = {partition: records for partition, records in fetched.items() if partition in self.next_offsets}
            if await self.has_other_log(owned):
                return
            if owned:
                async with self.seeking_back(owned):
                    await self._apply(owned)
            else:
                await self._pass_markers()

    async def _pass_markers(self) -> None:
        """Advance over what holds no update: the markers of transactions, and aborted updates."""
        for partition in self.next_offsets.keys() & self.consumer.assignment():
            position = await self.consumer.position(partition)
            self.next_offsets[partition] = max(self.next_offsets[partition], position)

    async def _apply(self, fetched: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        updates, letters, deletions = self._decode(fetched)
        erased = await self._erase(deletions) if deletions else {}
        epochs = self.log_guard.epochs
        through: dict[str, int] = {}
        for partition, records in fetched.items():
            name, last = partition_name(partition), records[-1]
            through[name] = epochs.position(name, last.offset)
            self.log_guard.on_read(name, last.offset, last.timestamp)
        folded = await self.call_store(partial(write_updates, self.store, updates, through | erased), "write")
        if marks := self.log_guard.take_marks():
            await self.call_store(partial(self.store.write_log_marks, marks), "write")
        for entry, error in folded.refused:
            letters += _letters(self._message(fetched, entry), error)
        await self._send((topics.DEAD_LETTERS, b"", letter) for letter in letters)
        await self._send(batch_messages(folded.rows, through))
        for partition, records in fetched.items():
            self.next_offsets[partition] = records[-1].offset + 1
        try:
            await self.consumer.commit({partition: self.next_offsets[partition] for partition in fetched})
        except (CommitFailedError, IllegalStateError) as error:
            log.info("not committed (%s): these updates will be redelivered and change nothing", error)

    async def _erase(self, deletions: Sequence[LoggedDeletion]) -> dict[str, int]:
        """Delete users' profiles in every domain, from the store and from `profiles`.

        Returns the positions of the last messages of `forget` that are applied then. A new record of a message that is
        applied (a killed consumer sent it twice) is passed over: updates between the two count. A record that is read
        again is not: updates before it were read again, too.
        """
        names = sorted({name for partition, _, deletion in deletions for name in (partition, deletion.origin[0])})
        applied = await self.call_store(partial(self.store.read_positions, names), "read")
        through = {partition: applied.pop(partition, -1) for partition in {partition for partition, _, _ in deletions}}
        users = [
            deletion.user_id
            for partition, position, deletion in deletions
            if not is_repeat(deletion.origin, applied) or position <= through[partition]
        ]
        keys = [(domain, user) for user in users for domain in self.store.domains]
        await self.call_store(partial(self.store.delete_profiles, keys), "forget")
        await self._send([tombstone(topics.PROFILES, domain, user) for domain, user in keys])
        return applied

    def _decode(
        self, fetched: dict[TopicPartition, list[ConsumerRecord]]
    ) -> tuple[list[LoggedUpdate], list[bytes], list[LoggedDeletion]]:
        """Updates to merge, dead letters, and deletions, which take back the user's updates before them."""
        updates: list[LoggedUpdate] = []
        letters: list[bytes] = []
        deletions: list[LoggedDeletion] = []
        for partition, records in fetched.items():
            name = partition_name(partition)
            for message in records:
                position = self.log_guard.epochs.position(name, message.offset)
                try:
                    updates.append(LoggedUpdate(self._update(message), name, position))
                except EventError as error:
                    deletion = decode_deletion(message.key, message.value) if message.topic == topics.USERS else None
                    if deletion is None:
                        letters += _letters(message, error)
                        continue
                    deletions.append((name, position, deletion))
                    updates = [entry for entry in updates if not _is_of(entry, deletion.user_id)]
        return updates, letters, deletions

    def _update(self, message: ConsumerRecord) -> Item | User:
        """The update in a message. Its times are checked against the broker's, so that a rebuild decides the same."""
        update = decode_catalogue_update(message.topic, message.value, message.timestamp, self.events.options.limits)
        self.check_domain(update.domain)
        return update

    def _message(self, fetched: dict[TopicPartition, list[ConsumerRecord]], entry: LoggedUpdate) -> ConsumerRecord:
        records = next(batch for partition, batch in fetched.items() if partition_name(partition) == entry.partition)
        offset = self.log_guard.epochs.offset(entry.partition, entry.offset)
        return next(message for message in records if message.offset == offset)

    async def _send(self, messages: Iterable[Message]) -> None:
        """Send messages and wait until all are acknowledged."""
        sent = [
            await self.producer.send(topic, value, key or None, partition=MERGED_PARTITION)
            for topic, key, value in messages
        ]
        await asyncio.gather(*sent)


def _is_of(entry: LoggedUpdate, user_id: str) -> bool:
    return isinstance(entry.update, User) and entry.update.user_id == user_id


def _letters(message: ConsumerRecord, error: EventError) -> list[bytes]:
    log.warning("%s, offset %d: not applied: %s", message.topic, message.offset, error.detail)
    return letters_of(message, error)
