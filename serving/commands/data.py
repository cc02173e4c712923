"""Data sets and files into Kafka: what `import`, `replay` and `run` share."""

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from serving.commands.progress import counting
from serving.settings import Settings
from stream.cleaning import CleaningOptions, CleaningReport
from stream.errors import ColdstreamError
from stream.replay import ReplayProgress, ReplayReport, replay, shift_to_now
from stream.sources.columns import parse_map
from stream.sources.source import Source


def import_table(
    settings: Settings,
    file: Path,
    mapping: str | None,
    cleaning: CleaningOptions,
    *,
    kind: str | None = None,
    users: Path | None = None,
    items: Path | None = None,
    delimiter: str | None = None,
    time_format: str | None = None,
) -> tuple[CleaningReport, ReplayReport]:
    """Read, clean and send a table of events; the cleaning report and what was sent."""
    from stream.sources.table import KIND, TableOptions, open_table

    form = TableOptions(delimiter=delimiter, time_format=time_format)
    columns = parse_map(mapping) if mapping is not None else None
    source = open_table(file, columns, settings.domain, users, items, kind=kind or KIND, form=form, cleaning=cleaning)
    return source.report, _replay(settings, source, resume=_resume(settings, source, source.fingerprint()))


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
    """Play a data set; what was done."""
    source = open_source(name)
    resume = _resume(settings, source, f"{start}-{until}")
    if restart:
        resume.unlink(missing_ok=True)
    sent = _replay(
        settings,
        source,
        resume=resume,
        speed=speed,
        start=_instant(start),
        until=_instant(until),
        shift_ms=shift_of(settings, source) if shift else 0,
    )
    return dict(msgspec.to_builtins(sent))


def open_source(name: str) -> Source:
    """The data set NAME, or NAME:PATH for one that was downloaded.

    Raises:
        ColdstreamError: a name that is not known.
    """
    from stream.sources.named import open_named

    kind, _, path = name.partition(":")
    return open_named(kind, Path(path) if path else None)


def shift_of(settings: Settings, source: Source) -> int:
    """Whole weeks that bring the end of a data set to about now; decided once, kept in the state folder."""
    file = settings.state_path / "replay" / f"{source.name}.shift.json"
    if file.exists():
        return int(json.loads(file.read_text("utf-8"))["shift_ms"])
    shift = shift_to_now(source.end, int(time.time() * 1000))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"shift_ms": shift}), "utf-8")
    return shift


def play_window(
    settings: Settings, source: Source, window: str, stop: threading.Event, tell: Any = None, **choices: Any
) -> ReplayReport:
    """One named window of a data set, resumable, times shifted; `stop` ends it early."""
    return replay(
        source,
        settings.bootstrap,
        settings.kafka_security,
        resume_file=settings.state_path / "replay" / f"{source.name}.{window}.json",
        shift_ms=shift_of(settings, source),
        progress=tell,
        stop=stop,
        **choices,
    )


def _replay(settings: Settings, source: Source, *, resume: Path, **choices: Any) -> ReplayReport:
    with counting(source.name) as bar:

        def tell(one: ReplayProgress) -> None:
            when = datetime.fromtimestamp(one.at / 1000, UTC).strftime("%Y-%m-%d %H:%M")
            bar(one.sent, one.total, f"{one.phase} {when}")

        return replay(source, settings.bootstrap, settings.kafka_security, resume_file=resume, progress=tell, **choices)


def _resume(settings: Settings, source: Source, window: str) -> Path:
    return settings.state_path / "replay" / f"{source.name}.{window.replace('/', '-').replace(':', '')}.json"


def _instant(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ColdstreamError(
            f"{text!r} is not a date; give RFC 3339, such as 2017-12-01 or 2017-12-01T08:00:00"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
