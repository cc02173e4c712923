"""Which events the log has already, by the archive and the log behind it: an import sends only the others."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from features.activity import LoggedEvent
from features.archive import missing_ranges, parts
from features.dataset import scan_topic
from features.errors import ArchiveError
from features.event_log import read_log
from stream import log_epochs
from stream.admin import log_begins, partitions_of
from stream.events import DEFAULT_LIMITS, TimeLimits
from stream.topics import EVENTS

IDENTITY: Final = ["user_id", "event_id"]
"""What identifies an event of a domain."""
SCHEMA: Final = {"user_id": pl.String, "event_id": pl.String, "at": pl.Int64}
COLUMNS: Final = [*SCHEMA]
BATCH: Final = 100_000


class LogComparison(msgspec.Struct, frozen=True):
    """By event, Boolean: whether the log has it, and whether its user has a newer event in the log."""

    logged: pl.Series
    older: pl.Series


def compare_with_log(
    events: pl.DataFrame, domain: str, archive: Path, behind: Iterable[LoggedEvent] = ()
) -> LogComparison:
    """Look for `events` (user_id, event_id, at) of a domain in the archive, and in what `log_behind` reads.

    Raises:
        ArchiveError: an archived part is damaged.
    """
    matches = list(_archive_matches(events, domain, archive))
    matches += [_matches(events, lines.lazy()) for lines in _frames(domain, behind)]
    ids = _concat(IDENTITY, [ids for ids, _ in matches]).unique()
    newest = _concat(["user_id", "at"], [times for _, times in matches]).group_by("user_id").agg(pl.col("at").max())
    compared = (
        events.select(COLUMNS)
        .join(ids.with_columns(logged=True), IDENTITY, "left", maintain_order="left")
        .join(newest.rename({"at": "newest"}), "user_id", "left", maintain_order="left")
        .select(pl.col("logged").fill_null(False), older=(pl.col("at") < pl.col("newest")).fill_null(False))
    )
    return LogComparison(compared["logged"], compared["older"])


def log_behind(
    archive: Path, bootstrap: str, security: Mapping[str, str] | None, limits: TimeLimits = DEFAULT_LIMITS
) -> Iterator[LoggedEvent]:
    """The events of the log that the archive does not hold; where it has gaps, those of the gaps, too.

    What to read is decided by this call, so make it before the archive is read: it only grows.

    Raises:
        BrokerError: the cluster does not answer.
    """
    partitions = range(partitions_of(bootstrap, security, EVENTS))
    epochs = log_epochs.read(bootstrap, security)
    ranges = [(number, *gap) for number in partitions for gap in missing_ranges(archive, EVENTS, number)]
    return (
        entry
        for number, start, until in ranges
        for entry in read_log(bootstrap, security, number, start, limits, until, epochs)
    )


def gone_offsets(archive: Path, bootstrap: str, security: Mapping[str, str] | None) -> int:
    """How many offsets of the topic of events neither the log nor the archive holds: nobody can compare with them.

    Raises:
        BrokerError: the cluster does not answer.
    """
    return sum(
        max(0, min(begin, begin if until is None else until) - start)
        for number, begin in enumerate(log_begins(bootstrap, security, EVENTS))
        for start, until in missing_ranges(archive, EVENTS, number)
    )


def _archive_matches(events: pl.DataFrame, domain: str, archive: Path) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    if parts(archive, EVENTS):
        try:
            yield _matches(events, scan_topic(archive, EVENTS).filter(pl.col("domain") == domain).select(COLUMNS))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise ArchiveError(
                f"{archive}: a part is damaged ({error}); delete it and the archive is written again from the log "
                "when it starts"
            ) from error


def _matches(events: pl.DataFrame, lines: pl.LazyFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The ids in `lines` that `events` have, and the newest time in `lines` of each user of `events`."""
    of_users = lines.join(events.lazy().select("user_id").unique(), "user_id", "semi")
    ids = lines.select(IDENTITY).join(events.lazy(), IDENTITY, "semi")
    newest = of_users.group_by("user_id").agg(pl.col("at").max())
    ids_in_log, times = pl.collect_all([ids, newest], engine="streaming")
    return ids_in_log, times


def _frames(domain: str, log: Iterable[LoggedEvent]) -> Iterator[pl.DataFrame]:
    events = (entry.event for entry in log)
    lines = ((event.user_id, event.event_id, event.at) for event in events if event.domain == domain)
    while batch := list(islice(lines, BATCH)):
        yield pl.DataFrame(batch, SCHEMA, orient="row")


def _concat(columns: list[str], frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=SCHEMA).select(columns), *frames])
