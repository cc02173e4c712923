"""Data sets and files sent to Kafka, for the commands import, replay and run."""

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from serving.commands.progress import counting
from serving.settings import Settings
from stream.cleaning import CleaningOptions
from stream.cleaning_report import CleaningReport
from stream.errors import ColdstreamError
from stream.replay import ReplayProgress, ReplayReport, replay, shift_to_now
from stream.sources.source import Source
from stream.sources.table_options import TableOptions


def import_table(settings: Settings, file: Path, table: TableOptions) -> tuple[CleaningReport, ReplayReport]:
    """Read, clean and send a table of events; returns the cleaning report and what was sent."""
    from stream.sources.table import open_table

    source = open_table(file, table, domain=settings.domain)
    return source.report, _replay(settings, source, resume=_resume_file(settings, source, source.fingerprint()))


def replay_source(
    settings: Settings,
    name: str,
    *,
    speed: float | None,
    start: str | None,
    until: str | None,
    restart: bool,
    shift: bool,
) -> dict[str, Any]:
    """Replay a data set; returns the figures of the run."""
    source = open_source(name)
    resume_file = _resume_file(settings, source, f"{start}-{until}")
    if restart:
        resume_file.unlink(missing_ok=True)
    sent = _replay(
        settings,
        source,
        resume=resume_file,
        speed=speed,
        start=_epoch_ms(start),
        until=_epoch_ms(until),
        shift_ms=shift_of(settings, source) if shift else 0,
    )
    return dict(msgspec.to_builtins(sent))


def open_source(name: str, cleaning: CleaningOptions | None = None) -> Source:
    """The data set NAME, or NAME:PATH for a downloaded one.

    Raises:
        ColdstreamError: the name is unknown.
    """
    from stream.sources.named import open_named

    kind, _, path = name.partition(":")
    return open_named(kind, Path(path) if path else None, cleaning=cleaning)


def shift_of(settings: Settings, source: Source) -> int:
    """The shift (ms, whole weeks) that moves a data set's end to about now; stored in the state folder."""
    file = settings.state_path / "replay" / f"{source.name}.shift.json"
    if file.exists():
        return int(json.loads(file.read_text("utf-8"))["shift_ms"])
    shift = shift_to_now(source.end, int(time.time() * 1000))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"shift_ms": shift}), "utf-8")
    return shift


def play_window(
    settings: Settings, source: Source, window: str, stop: threading.Event, report: Any = None, **choices: Any
) -> ReplayReport:
    """Replay a named part of a data set with shifted times; resumable, and `stop` ends it early."""
    return replay(
        source,
        settings.bootstrap,
        settings.kafka_security,
        resume_file=settings.state_path / "replay" / f"{source.name}.{window}.json",
        shift_ms=shift_of(settings, source),
        progress=report,
        stop=stop,
        **choices,
    )


def _replay(settings: Settings, source: Source, *, resume: Path, **choices: Any) -> ReplayReport:
    with counting(source.name) as bar:

        def report(progress: ReplayProgress) -> None:
            when = datetime.fromtimestamp(progress.at / 1000, UTC).strftime("%Y-%m-%d %H:%M")
            bar(progress.sent, progress.total, f"{progress.phase} {when}")

        return replay(
            source, settings.bootstrap, settings.kafka_security, resume_file=resume, progress=report, **choices
        )


def _resume_file(settings: Settings, source: Source, window: str) -> Path:
    return settings.state_path / "replay" / f"{source.name}.{window.replace('/', '-').replace(':', '')}.json"


def _epoch_ms(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        raise ColdstreamError(
            f"{text!r} is not a date; give RFC 3339, such as 2017-12-01 or 2017-12-01T08:00:00"
        ) from None
    return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1000)
