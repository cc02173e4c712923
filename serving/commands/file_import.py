"""A file of events, items or users sent to Kafka: only what the log does not have yet."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import polars as pl

from features.log_comparison import gone_offsets
from serving.commands.data_loading import compare, compared_with, send
from serving.settings import Settings
from stream.errors import ColdstreamError
from stream.files import try_lock
from stream.replay import ReplayOptions
from stream.sources.source import Source

SAMPLE_ROWS: Final = 10
MAX_WIDTH: Final = 40
"""Characters of a value in a printed sample."""


class ImportReport(msgspec.Struct, frozen=True):
    """What an import did. Of the file's `total` events, the log had `before`, and `events` were sent now.

    Of these, `older` are older than the newest event that the log had of their user. `items` and `users` are sent at
    every import. Sent once more, a stopped import (`finished` is false) continues. `compared` names the log and the
    archive that the events were compared with; `gone` offsets of the log are in neither.
    """

    items: int
    users: int
    events: int
    before: int
    older: int
    total: int
    seconds: float
    finished: bool
    compared: str
    gone: int = 0

    def lines(self) -> Iterator[str]:
        """The report as text."""
        yield f"events sent              {self.events:>13,}"
        if self.older:
            yield f"  of these, older than their user's newest event: {self.older:,}"
        yield f"events in the log before {self.before:>13,}"
        yield f"compared with {self.compared}"
        if self.gone:
            yield (
                f"warning: {self.gone:,} offsets of the log are deleted and not in this archive, so events among them "
                "were sent again if the file has them; import with the state folder whose archive has them"
            )
        yield f"items updated            {self.items:>13,}"
        yield f"users updated            {self.users:>13,}"
        yield f"{'finished' if self.finished else 'stopped'} after {self.seconds:.1f} s"


def import_source(settings: Settings, source: Source) -> ImportReport:
    """Send items, users, and the events that the log does not have, marked as a backfill.

    Raises:
        ColdstreamError: another import of the domain is running. BrokerError: Kafka does not answer.
    """
    lock = try_lock(settings.state_path / f"import-{source.domain}.lock")
    if lock is None:
        raise ColdstreamError(
            f"another import into {source.domain} is running with the state folder {settings.state_path}; "
            "wait until it has ended, then import again: only what is missing is sent"
        )
    older = gone = 0
    archive = settings.state_path / "archive"

    def logged(events: Source) -> pl.Series:
        nonlocal older, gone
        gone = gone_offsets(archive, settings.bootstrap, settings.kafka_security)
        comparison = compare(settings, events)
        older = int((comparison.older & ~comparison.logged).sum())
        return comparison.logged

    options = ReplayOptions(
        backfill=True, known_at=int(time.time() * 1000), valid_from=source.start if len(source) else None
    )
    try:
        sent = send(settings, source, options, logged=logged)
    finally:
        lock.release()
    return ImportReport(
        sent.items,
        sent.users,
        sent.events,
        sent.before,
        older,
        sent.total,
        sent.seconds,
        sent.finished,
        compared_with(settings),
        gone,
    )


def sample(source: Source) -> dict[str, list[dict[str, Any]]]:
    """The first rows of events, items and users as they were read; kinds of records without rows are left out."""
    frames = {"events": source.events, "items": source.items.head(source.described), "users": source.users}
    return {name: frame.head(SAMPLE_ROWS).to_dicts() for name, frame in frames.items() if frame.height}


def sample_lines(rows: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """A sample as text: a table for each kind of record, without columns that are empty."""
    for name, records in rows.items():
        yield f"{name}: the first {len(records)} as they are read"
        columns = [column for column in records[0] if any(record[column] is not None for record in records)]
        cells = [columns, *([_cell(column, record[column]) for column in columns] for record in records)]
        widths = [max(len(row[number]) for row in cells) for number in range(len(columns))]
        for row in cells:
            yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column in {"at", "expires_at"}:
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, dict):
        value = ", ".join(f"{name}={entry}" for name, entry in value.items() if entry is not None)
    text = str(value)
    return text if len(text) <= MAX_WIDTH else text[: MAX_WIDTH - 3] + "..."
