"""Kafka headers of messages: what the sender says about a message, besides the record in it."""

from collections.abc import Sequence
from typing import Final

Header = tuple[str, bytes]
"""A header's name and value."""

BACKFILL: Final[Header] = ("backfill", b"1")
"""Marks an event of the past that was imported: it takes its place in time, whatever its age."""

FORWARDED_FROM: Final = "forwarded-from"
"""Name of the header of a copy that a consumer sent to its key's home partition: where the original stands, `3:17`."""


def forwarded_from(headers: Sequence[Header] | None) -> str | None:
    """Where the original of a forwarded event stands (`3:17`); None for an event that was not forwarded."""
    for name, value in headers or ():
        if name == FORWARDED_FROM:
            return value.decode("utf-8", "replace") if value else None
    return None


def forwarding_headers(headers: Sequence[Header] | None, partition: int, offset: int) -> list[Header]:
    """The headers of a copy of the message at `partition`, `offset`: its own, and where it was."""
    kept = [header for header in headers or () if header[0] != FORWARDED_FROM]
    return [*kept, (FORWARDED_FROM, f"{partition}:{offset}".encode())]


def is_backfill(headers: Sequence[Header] | None) -> bool:
    """Whether a message's headers mark it as a backfill."""
    return bool(headers) and any(name == BACKFILL[0] for name, _ in headers or ())
