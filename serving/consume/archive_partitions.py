"""The partitions that the archive process reads, each from the position in its files.

A batch that cannot be read stops its partition only: the others are assigned again without it, and it is tried again
every few seconds, until the batch can be read or an operator has skipped it.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition

from features.activity import origin_of
from features.archive import Archive, DamagedPart
from features.archive_marks import read_marks, write_marks
from serving import metrics
from serving.consume.log_guard import LogGuard
from serving.errors import LogError
from stream import skips
from stream.batch_probe import UnreadableBatch, probe_now, stop_message
from stream.errors import BrokerError
from stream.headers import forwarded_from
from stream.log_watch import LogWatch

RETRY_S: Final = 1.0
PROBE_AGAIN_S: Final = 4.0

log = logging.getLogger("coldstream.archive")


class ArchivePartitions:
    """What is assigned, what stopped and why, and where a skipped batch ends."""

    def __init__(self, bootstrap: str, security: dict[str, str], store: Archive, topics: Sequence[str]) -> None:
        self._kafka = (bootstrap, security)
        self._store = store
        self.log_watch = LogWatch(bootstrap, security, topics)
        self._topics = tuple(topics)
        self._starts: dict[TopicPartition, int] = {}
        self.log_guard = LogGuard(bootstrap, security)
        self._marks = read_marks(store.folder)
        self._probed_at = 0.0
        self.all: list[TopicPartition] = []
        self.stopped: dict[TopicPartition, UnreadableBatch] = {}

    @property
    def assigned(self) -> list[TopicPartition]:
        """The partitions that are read now."""
        return [partition for partition in self.all if partition not in self.stopped]

    def assign(self, consumer: KafkaConsumer, stop: threading.Event) -> None:
        """Assign every partition that did not stop. Waits for missing topics: a skipped one would never be archived."""
        partitions: list[TopicPartition] = []
        for topic in self._topics:
            while not (numbers := consumer.partitions_for_topic(topic)):
                log.warning("topic %s does not exist yet; `coldstream topics` creates it", topic)
                if stop.wait(RETRY_S):
                    return
            partitions += [TopicPartition(topic, number) for number in sorted(numbers)]
        self.all = partitions
        consumer.assign(self.assigned)
        beginnings = consumer.beginning_offsets(self.assigned)
        for partition in self.assigned:
            beginning = self.position(partition, beginnings[partition])
            self._store.advance(partition.topic, partition.partition, beginning)
            start = max(beginning, self.position(partition, self.start(partition)))
            following = self._store.position(partition.topic, partition.partition, start)
            consumer.seek(partition, self.offset(partition, following))
        self._report_damaged(beginnings)

    def check_log(self) -> None:
        """Learn the log's epochs, and that it is the log that the archive was written from.

        Raises:
            LogError: it is not.
            BrokerError: Kafka does not answer.
        """
        self.log_guard.start(self._marks)

    def position(self, partition: TopicPartition, offset: int) -> int:
        """The position in the archive of an offset."""
        return self.log_guard.epochs.position(f"{partition.topic}/{partition.partition}", offset)

    def offset(self, partition: TopicPartition, position: int) -> int:
        """The offset of a position in the archive."""
        return self.log_guard.epochs.offset(f"{partition.topic}/{partition.partition}", position)

    def advance(self, consumer: KafkaConsumer, partition: TopicPartition, last: Any) -> None:
        """What was polled, through the record `last`, is appended; go on behind parts that are archived already."""
        self.log_guard.on_read(f"{partition.topic}/{partition.partition}", last.offset, last.timestamp)
        position = self.position(partition, consumer.position(partition))
        self._store.advance(partition.topic, partition.partition, position)
        following = self._store.position(partition.topic, partition.partition)
        if following > position:
            consumer.seek(partition, self.offset(partition, following))

    def forwarded_from(self, message: Any) -> str | None:
        """Where the original of a forwarded event stands in the archive (`3:17`), from the message's headers."""
        text = forwarded_from(message.headers)
        origin = origin_of(f"{message.topic}/{message.partition}", text, self.log_guard.epochs)
        return text if origin is None else f"{origin[0].rpartition('/')[2]}:{origin[1]}"

    def write_marks(self) -> None:
        """Store which records were read last, once the rows are in the files. Raises FileError."""
        if marks := self.log_guard.take_marks():
            self._marks |= marks
            write_marks(self._store.folder, self._marks)

    def _report_damaged(self, beginnings: Mapping[TopicPartition, int]) -> None:
        """Say which parts were set aside, and which of their offsets the log no longer has."""
        for part in self._store.damaged:
            metrics.archive_damaged_parts.inc()
            place = TopicPartition(part.topic, part.partition)
            beginning = self.position(place, beginnings.get(place, 0))
            log.error("the archive part of %s", damage_message(part, beginning))
        self._store.damaged.clear()

    def start(self, partition: TopicPartition) -> int:
        """The next offset of a partition: from the files, or behind a skipped batch."""
        archived = self.offset(partition, self._store.position(partition.topic, partition.partition))
        return max(archived, self._starts.get(partition, 0))

    def positions(self, consumer: KafkaConsumer) -> dict[TopicPartition, int]:
        """The next offset of every partition, those that stopped included."""
        positions = {partition: self.start(partition) for partition in self.stopped}
        return positions | {partition: consumer.position(partition) for partition in self.assigned}

    def lag(self, positions: Mapping[TopicPartition, int]) -> int:
        """Messages between `positions` (offsets) and the ends that the broker has.

        Raises:
            LogError: the log is not the one that was read before.
            BrokerError: Kafka does not answer.
        """
        state = self.log_watch.read()
        ends = state.ends
        offsets = {f"{partition.topic}/{partition.partition}": offset for partition, offset in positions.items()}
        self.log_guard.on_state(state, offsets)
        if self.log_guard.problem:
            raise LogError(self.log_guard.problem)
        return sum(
            max(0, ends.get(f"{partition.topic}/{partition.partition}", position) - position)
            for partition, position in positions.items()
        )

    def changed(self, consumer: KafkaConsumer) -> bool:
        """Whether a topic has other partitions than those assigned."""
        known = {(partition.topic, partition.partition) for partition in self.all}
        return any(
            (topic, number) not in known
            for topic in self._topics
            for number in consumer.partitions_for_topic(topic) or ()
        )

    def isolate(self, consumer: KafkaConsumer) -> bool:
        """After a failed fetch: stop each partition whose next batch cannot be read. False: no batch was the reason.

        Raises:
            BrokerError: Kafka does not answer.
        """
        isolated = False
        for partition in self.assigned:
            batch = self._probe(partition, consumer.position(partition))
            if batch is not None:
                isolated = True
                self.stopped[partition] = batch
                metrics.partition_stopped.labels(batch.name).set(1)
                log.error("%s", stop_message(batch))
        self._probed_at = 0.0
        return isolated

    def resume(self) -> bool:
        """Take back stopped partitions whose batch can be read by now or was skipped; True if there was one."""
        if not self.stopped or time.monotonic() - self._probed_at < PROBE_AGAIN_S:
            return False
        self._probed_at = time.monotonic()
        try:
            known = skips.read(*self._kafka)
            readable = [
                partition for partition, batch in self.stopped.items() if self._readable(partition, batch, known)
            ]
        except BrokerError as error:
            log.warning("%s", error)
            return False
        for partition in readable:
            metrics.partition_stopped.labels(self.stopped.pop(partition).name).set(0)
        return bool(readable)

    def _readable(self, partition: TopicPartition, batch: UnreadableBatch, known: Sequence[skips.Skip]) -> bool:
        skip = skips.covering(known, batch.name, batch.first)
        if skip is not None:
            log.warning("%s: skipped offsets %d to %d as ordered", batch.name, skip.first, skip.next - 1)
            self._starts[partition] = skip.next
        return skip is not None or self._probe(partition, batch.first) is None

    def _probe(self, partition: TopicPartition, offset: int) -> UnreadableBatch | None:
        return probe_now(*self._kafka, partition.topic, partition.partition, offset)[0]


def damage_message(part: DamagedPart, beginning: int) -> str:
    """What happened to a damaged part, for a log that starts at `beginning`."""
    where = f"{part.topic}/{part.partition} from offset {part.first} was damaged and is kept as {part.path}"
    if beginning >= part.end:
        return f"{where}; offsets {part.first} to {part.end - 1} are lost to the archive: the log starts at {beginning}"
    if beginning > part.first:
        lost = f"offsets {part.first} to {beginning - 1} are lost to the archive: the log starts there"
        return f"{where}; {lost}; the others are written again"
    return f"{where}; it is written again from the log"
