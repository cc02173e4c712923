"""Dead letters: rejected events, stored unchanged with the reason, to list, show and replay.

A large one is split into parts, each of which fits a message of a stock broker (1 MiB).
"""

import base64
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from stream import topics
from stream.client import READ_COMMITTED, kafka_python_config
from stream.errors import BrokerError, EventError, StreamError
from stream.events import decode, key_of
from stream.readable_polls import poll_readable

REPLAYED_HEADER: Final = "replayed-letter"
"""Header on an event that was sent again, and kind of the marker that says so on the topic `dead-letters`."""
UNREADABLE: Final = "unreadable-batch"
"""Reason of a skipped record batch: its bytes are those of the batch, and cannot be sent again as an event."""
MAX_KEY: Final = 4096
PART_BYTES: Final = 512 * 1024
"""Bytes of a message in one part; base64 adds a third."""


class DeadLetter(msgspec.Struct, frozen=True, tag_field="type", tag="letter", omit_defaults=True):
    """An event that was refused: why, where it stood in the log, and its bytes (base64), of which this is one part."""

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    key: str | None
    raw: str
    at: int
    part: int = 0
    parts: int = 1

    @property
    def value(self) -> bytes:
        return base64.b64decode(self.raw)


class ReplayMarker(msgspec.Struct, frozen=True, tag_field="type", tag="replayed"):
    """A marker: the letter at `letter` (its own offset) was sent again at `at`."""

    letter: int
    at: int


class ListedLetter(msgspec.Struct, frozen=True):
    """A letter with its own offset on `dead-letters`, and whether it was sent again."""

    number: int
    letter: DeadLetter
    replayed: bool


_decoder: msgspec.json.Decoder[DeadLetter | ReplayMarker] = msgspec.json.Decoder(DeadLetter | ReplayMarker)


def encode_letters(
    reason: str, detail: str, topic: str, partition: int, offset: int, key: bytes | None, raw: bytes
) -> list[bytes]:
    """The values of the dead letter, one per part, for a message that stood at topic, partition, offset."""
    shown = key.decode("utf-8", "replace")[:MAX_KEY] if key is not None else None
    pieces = [raw[start : start + PART_BYTES] for start in range(0, len(raw), PART_BYTES)] or [b""]
    now = int(time.time() * 1000)
    letters = [
        DeadLetter(
            reason, detail, topic, partition, offset, shown, base64.b64encode(piece).decode(), now, number, len(pieces)
        )
        for number, piece in enumerate(pieces)
    ]
    return [msgspec.json.encode(letter) for letter in letters]


def read(bootstrap: str, security: Mapping[str, str] | None = None, reason: str | None = None) -> list[ListedLetter]:
    """Every letter that is kept, oldest first; of one `reason` where given.

    Raises:
        BrokerError: the cluster does not answer.
    """
    letters: dict[int, DeadLetter] = {}
    again: set[int] = set()
    numbers: dict[tuple[str, int, int], int] = {}
    for offset, value in _messages(bootstrap, security):
        try:
            message = _decoder.decode(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # not from this project
        if isinstance(message, ReplayMarker):
            again.add(message.letter)
            continue
        number = numbers.setdefault((message.topic, message.partition, message.offset), offset)
        if number == offset:
            letters[offset] = message
        elif message.part == letters[number].part + 1:  # the next part; a crash may set a letter aside twice
            raw = base64.b64encode(letters[number].value + message.value).decode()
            letters[number] = msgspec.structs.replace(letters[number], raw=raw, part=message.part)
    chosen = (
        letters.items() if reason is None else [(n, letter) for n, letter in letters.items() if letter.reason == reason]
    )
    return [ListedLetter(number, letter, number in again) for number, letter in chosen]


def show(bootstrap: str, number: int, security: Mapping[str, str] | None = None) -> ListedLetter:
    """The letter with that number (its offset on `dead-letters`).

    Raises:
        StreamError: there is none.
    """
    for listed in read(bootstrap, security):
        if listed.number == number:
            return listed
    raise _no_letter(number)


def replay(
    bootstrap: str,
    numbers: list[int] | None = None,
    security: Mapping[str, str] | None = None,
    *,
    reason: str | None = None,
    value: bytes | None = None,
    again: bool = False,
) -> list[ListedLetter]:
    """Send letters to their topics again: those with `numbers`, with a `reason`, or all. Returns the letters sent.

    Letters that were already replayed are skipped unless `again`. `value` replaces the bytes (of one letter only).

    Raises:
        StreamError: a number does not exist, or `value` is given for more than one letter.
        BrokerError: the cluster does not answer.
    """
    listed = read(bootstrap, security, reason)
    missing = sorted(set(numbers or ()) - {listed_letter.number for listed_letter in listed})
    if missing:
        raise _no_letter(missing[0], reason)
    chosen = [
        listed_letter
        for listed_letter in listed
        if (numbers is None or listed_letter.number in numbers) and (again or not listed_letter.replayed)
    ]
    if value is not None and len(chosen) != 1:
        raise StreamError(f"a new value needs exactly one letter, but {len(chosen)} match; give one number")
    if any(listed_letter.letter.reason == UNREADABLE for listed_letter in chosen) and value is None:
        if numbers is not None:
            raise StreamError(f"a letter of reason {UNREADABLE} is a record batch: `show` has its bytes, repair those")
        chosen = [listed_letter for listed_letter in chosen if listed_letter.letter.reason != UNREADABLE]
    producer = KafkaProducer(**kafka_python_config(bootstrap, security), acks="all")
    try:
        for listed_letter in chosen:
            letter = listed_letter.letter
            sent = value if value is not None else letter.value
            producer.send(
                letter.topic,
                sent,
                _key(sent, letter.key),
                headers=[(REPLAYED_HEADER, str(listed_letter.number).encode())],
            ).get(30)
            marker = ReplayMarker(listed_letter.number, int(time.time() * 1000))
            producer.send(topics.DEAD_LETTERS, msgspec.json.encode(marker)).get(30)
    except KafkaError as error:
        raise BrokerError(f"no Kafka at {bootstrap}: {error}") from error
    finally:
        producer.close()
    return chosen


def _no_letter(number: int, reason: str | None = None) -> StreamError:
    which = f"dead letter {number}" if reason is None else f"dead letter {number} with reason {reason}"
    return StreamError(f"{which} does not exist; `coldstream dead-letters list` shows those that do")


def _key(value: bytes, before: str | None) -> bytes | None:
    """The key that belongs to the record, so that a corrected event reaches the partition of its user."""
    try:
        return key_of(decode(value, 2**53))
    except EventError:
        return before.encode() if before is not None else None


def _messages(bootstrap: str, security: Mapping[str, str] | None) -> Iterator[tuple[int, bytes]]:
    config: dict[str, Any] = kafka_python_config(bootstrap, security)
    try:
        consumer = KafkaConsumer(
            **config, **READ_COMMITTED, enable_auto_commit=False, max_partition_fetch_bytes=16 * 1024 * 1024
        )
    except KafkaError as error:
        raise BrokerError(f"no Kafka at {bootstrap}: {error}; is the system running?") from error
    try:
        place = TopicPartition(topics.DEAD_LETTERS, 0)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        end = consumer.end_offsets([place])[place]
        while consumer.position(place) < end:
            messages = poll_readable(consumer, place, bootstrap, security)
            yield from ((message.offset, message.value) for message in messages)
    finally:
        consumer.close()
