"""Kafka headers of messages: what the sender says about a message, besides the record in it."""

from collections.abc import Sequence
from typing import Final

Header = tuple[str, bytes]
"""A header's name and value."""

BACKFILL: Final[Header] = ("backfill", b"1")
"""Marks an event of the past that was imported: it takes its place in time, whatever its age."""


def is_backfill(headers: Sequence[Header] | None) -> bool:
    """Whether a message's headers mark it as a backfill."""
    return bool(headers) and any(name == BACKFILL[0] for name, _ in headers or ())
