"""The compacted topics `catalogue` and `profiles`: the newest merged record of every item and user.

Keys are those of the updates (`domain/id`). Behind the records of a batch follows how far they contain the topic of
the updates: one message a partition, under a key that no record has.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from features.catalogue import CatalogueEntry, ItemRow, ProfileRow, UserProfile
from stream import topics
from stream.errors import EventError

MERGED: Final = {topics.ITEMS: topics.CATALOGUE, topics.USERS: topics.PROFILES}
"""By the topic of updates, the topic of merged records."""
PROGRESS_KEY: Final = "@"
"""Begins the key of a progress message, which ends in the partition: `@items/0`. No domain begins so."""

Message = tuple[str, bytes, bytes | None]
"""Topic, key and value; a value of None is a tombstone."""


class CatalogueProgress(msgspec.Struct, tag_field="type", tag="progress", frozen=True):
    """The records before this message contain every update of `partition` (`items/0`) through the offset `through`."""

    partition: str
    through: int


class RemovedRecord(msgspec.Struct, frozen=True):
    """An item or user that is no longer known."""

    domain: str
    id: str


MergedMessage = CatalogueEntry | UserProfile | CatalogueProgress
_decoder: msgspec.json.Decoder[MergedMessage] = msgspec.json.Decoder(MergedMessage)
_encode = msgspec.json.Encoder().encode


def record_message(row: ItemRow | ProfileRow) -> Message:
    """The message of a merged record."""
    if isinstance(row, ItemRow):
        return topics.CATALOGUE, f"{row.domain}/{row.item_id}".encode(), _encode(row.record())
    return topics.PROFILES, f"{row.domain}/{row.user_id}".encode(), _encode(row.record())


def tombstone(topic: str, domain: str, identity: str) -> Message:
    """The message that removes a record."""
    return topic, f"{domain}/{identity}".encode(), None


def progress_message(partition: str, through: int) -> Message:
    """The message that says how far the records contain a partition of updates."""
    topic = MERGED[partition.partition("/")[0]]
    return topic, f"{PROGRESS_KEY}{partition}".encode(), _encode(CatalogueProgress(partition, through))


def batch_messages(rows: Iterable[ItemRow | ProfileRow], through: dict[str, int]) -> Iterator[Message]:
    """The records of a batch, then how far they contain each partition of updates."""
    yield from map(record_message, rows)
    for partition, offset in through.items():
        yield progress_message(partition, offset)


def decode_message(key: bytes | None, value: bytes | None) -> MergedMessage | RemovedRecord:
    """A message of `catalogue` or `profiles`.

    Raises:
        EventError: it is neither a record nor a progress message.
    """
    if value is None:
        domain, _, identity = (key or b"").decode("utf-8", "replace").partition("/")
        return RemovedRecord(domain, identity)
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EventError("bad-field", f"not a merged record: {error}") from None
