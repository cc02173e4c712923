"""Whether a log is the one that was read before: a reader keeps a mark of each partition, and compares it.

A log goes back when it is lost, when a topic is created again, when an older backup of the broker is restored, or when
an address names another cluster. Its offsets then begin again, or stand for other records.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from stream.client import kafka_python_config
from stream.errors import BrokerError
from stream.log_watch import LogState, LogWatch

ATTEMPTS: Final = 3
AGAIN_S: Final = 1.0
"""A broker that just started may not know everything yet: only what it says several times is believed."""
FETCH_S: Final = 5.0
CURES: Final = (
    "Nothing more is read from it. If the address or the backup is wrong, give the right one. Otherwise stop the "
    "system and run `coldstream features rebuild` (features from the archive, then from this log) or "
    "`coldstream new-epoch` (keep features and archive, and read what is new in this log)"
)


class LogMark(msgspec.Struct, frozen=True):
    """The last record that was read of a partition: its offset, and the broker's time (epoch ms).

    `cluster` and `topic_id` are Kafka's ids, `epoch` is the number of `log_epochs.LogEpochs`. An offset of -1: nothing
    was read of this log yet.
    """

    cluster: str
    topic_id: str
    offset: int = -1
    logged_at: int = 0
    epoch: int = 0


def identity_problem(name: str, mark: LogMark, state: LogState, epoch: int) -> str | None:
    """Why a mark of partition `name` is of another log than the present one; None where it is of this one."""
    topic = name.rpartition("/")[0]
    if mark.cluster != state.cluster:
        return f"the cluster is {state.cluster}, but what was read before came from cluster {mark.cluster}"
    if topic in state.topics and state.topics[topic] != mark.topic_id:
        return f"the topic {topic} was deleted and created again"
    if mark.epoch != epoch:
        return f"the log is in epoch {epoch}, but {name} was read before in epoch {mark.epoch}"
    return None


def mark_problem(
    marks: Mapping[str, LogMark], state: LogState, epoch: int, times: Mapping[str, int] | None = None
) -> str | None:
    """Why the log is not the one that `marks` were taken of, by partition (`events/3`); None where it is.

    `times`: the broker's times of the records at the offsets of the marks now, where they are known.
    """
    for name, mark in sorted(marks.items()):
        problem = identity_problem(name, mark, state, epoch)
        if problem is None and mark.offset >= (end := state.ends.get(name, mark.offset + 1)):
            problem = f"{name} ends at offset {end}, but offset {mark.offset} was read before"
        if problem is None and (times or {}).get(name, mark.logged_at) != mark.logged_at:
            problem = f"{name} has another record at offset {mark.offset} than was read before"
        if problem is not None:
            return problem
    return None


def refusal(bootstrap: str, problem: str) -> str:
    """The whole message about a log that is not the one that was read before, with the cures."""
    return f"the log at {bootstrap} is not the one that was read before: {problem}. {CURES}"


def check_marks(
    bootstrap: str, security: Mapping[str, str] | None, marks: Mapping[str, LogMark], epoch: int
) -> str | None:
    """`mark_problem` of the log at `bootstrap`, asked until it is certain.

    Raises:
        BrokerError: Kafka does not answer.
    """
    problem = None
    with LogWatch(bootstrap, security, sorted({name.rpartition("/")[0] for name in marks})) as watch:
        for attempt in range(ATTEMPTS if marks else 0):
            time.sleep(AGAIN_S if attempt else 0.0)
            state = watch.read()
            problem = mark_problem(marks, state, epoch)
            if problem is None:
                present = {name: mark for name, mark in marks.items() if 0 <= mark.offset < state.ends.get(name, 0)}
                problem = mark_problem(marks, state, epoch, record_times(bootstrap, security, present))
            if problem is None:
                return None
    return problem


def record_times(bootstrap: str, security: Mapping[str, str] | None, marks: Mapping[str, LogMark]) -> dict[str, int]:
    """The broker's times of the records at the offsets of `marks`; records that cannot be read now are left out.

    Raises:
        BrokerError: Kafka does not answer.
    """
    offsets = {_place(name): mark.offset for name, mark in marks.items()}
    if not offsets:
        return {}
    try:
        consumer = KafkaConsumer(
            **kafka_python_config(bootstrap, security), enable_auto_commit=False, auto_offset_reset="none"
        )
        try:
            return _times(consumer, offsets)
        finally:
            consumer.close(timeout_ms=1_000)
    except KafkaError as error:
        raise BrokerError(f"no Kafka at {bootstrap} ({type(error).__name__}: {error})") from error


def _times(consumer: KafkaConsumer, offsets: Mapping[TopicPartition, int]) -> dict[str, int]:
    beginnings = consumer.beginning_offsets(list(offsets))
    times: dict[str, int] = {}
    for place, offset in offsets.items():
        if offset < beginnings[place]:
            continue  # deleted, as retention says
        consumer.assign([place])
        consumer.seek(place, offset)
        records = _poll(consumer, place)
        if records and records[0].offset == offset:
            times[f"{place.topic}/{place.partition}"] = records[0].timestamp
    return times


def _poll(consumer: KafkaConsumer, place: TopicPartition) -> list[Any]:
    until = time.monotonic() + FETCH_S
    while time.monotonic() < until:
        try:
            fetched = consumer.poll(500, max_records=1)
        except KafkaError:
            raise
        except Exception:  # a batch that cannot be read; codecs raise classes of their own
            return []
        if place in fetched:
            return list(fetched[place])
    return []


def _place(name: str) -> TopicPartition:
    topic, _, number = name.rpartition("/")
    return TopicPartition(topic, int(number))
