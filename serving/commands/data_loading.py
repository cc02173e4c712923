"""Sources sent to Kafka, for the commands import, replay and run."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from serving.commands.options import check_domain
from serving.commands.output import REPORT
from serving.commands.progress import counting
from serving.settings import Settings
from stream.cleaning import CleaningOptions
from stream.errors import ColdstreamError
from stream.events import TimeLimits
from stream.files import try_lock
from stream.replay import ReplayOptions, ReplayProgress, ReplayReport, replay, shift_to_now
from stream.sources.source import Source

if TYPE_CHECKING:
    import polars as pl

    from features.log_comparison import LogComparison


def compare(settings: Settings, source: Source) -> "LogComparison":
    """Which of a source's events the log has already.

    Raises:
        ArchiveError: an archived part is damaged. BrokerError: Kafka does not answer.
    """
    from features.log_comparison import compare_with_log, log_behind

    archive = settings.state_path / "archive"
    limits = TimeLimits(max_future_ms=settings.max_future_ms)
    behind = log_behind(archive, settings.bootstrap, settings.kafka_security, limits)
    return compare_with_log(source.events, source.domain, archive, behind)


def send(
    settings: Settings,
    source: Source,
    options: ReplayOptions,
    *,
    logged: "Callable[[Source], pl.Series]",
    resume_file: Path | None = None,
) -> ReplayReport:
    """Send a source with a progress bar, without the events that `logged` says the log has."""
    with counting(source.name) as bar:

        def report(progress: ReplayProgress) -> None:
            when = datetime.fromtimestamp(progress.at / 1000, UTC).strftime("%Y-%m-%d %H:%M")
            bar(progress.sent, progress.total, f"{progress.phase} {when}")

        return replay(
            source,
            settings.bootstrap,
            settings.kafka_security,
            options,
            resume_file=resume_file,
            logged=logged,
            progress=report,
        )


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
    """Replay a data set; returns the figures of the run, and the cleaning report under `report`."""
    source = open_source(name)
    check_domain(settings, source.domain)
    typer.echo(source.report.table(), err=True)
    resume_file = _resume_file(settings, source, f"{start}-{until}")
    lock = try_lock(resume_file.with_suffix(".lock"))
    if lock is None:
        raise ColdstreamError(f"another replay of {source.name} is running; stop it, or wait until it has ended")
    options = ReplayOptions(
        speed=speed,
        start=_epoch_ms(start),
        until=_epoch_ms(until),
        shift_ms=shift_of(settings, source) if shift else 0,
        backfill=speed is None,
    )
    try:
        if restart:
            resume_file.unlink(missing_ok=True)
        logged = partial(_logged, settings)
        sent = send(settings, source, options, logged=logged, resume_file=resume_file)
        of = {"source": source.name, "domain": source.domain, "compared": compared_with(settings)}
        return {**of, **msgspec.to_builtins(sent), REPORT: msgspec.to_builtins(source.report)}
    finally:
        lock.release()


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
    settings: Settings,
    source: Source,
    window: str,
    options: ReplayOptions,
    stop: threading.Event,
    report: Callable[[ReplayProgress], None] | None = None,
) -> ReplayReport:
    """Replay a named part of a data set with shifted times; resumable, and `stop` ends it early."""
    return replay(
        source,
        settings.bootstrap,
        settings.kafka_security,
        msgspec.structs.replace(options, shift_ms=shift_of(settings, source)),
        resume_file=settings.state_path / "replay" / f"{source.name}.{window}.json",
        logged=partial(_logged, settings),
        progress=report,
        stop=stop,
    )


def compared_with(settings: Settings) -> str:
    """What the events of a source are compared with, so that only new ones are sent."""
    return f"the log at {settings.bootstrap} and the archive {settings.state_path / 'archive'}"


def _logged(settings: Settings, source: Source) -> "pl.Series":
    return compare(settings, source).logged


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
