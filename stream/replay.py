"""Replay: a source into Kafka, at a multiple of its own pace or as fast as it goes, resumable.

After kill -9 a replay with the same resume file goes on behind the last event that is known to be acknowledged. What
follows may be in the log as well: `logged` tells, and such events are not sent again.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

import msgspec
import polars as pl

from stream import topics
from stream.bulk import BulkProducer
from stream.errors import StreamError
from stream.files import write_atomically
from stream.headers import BACKFILL
from stream.sources.source import Source

CHUNK: Final = 5_000
TICK_S: Final = 0.05
SAVE_EVERY_S: Final = 1.0
WEEK_MS: Final = 7 * 24 * 60 * 60 * 1000


class ReplayProgress(msgspec.Struct, frozen=True):
    """How far a replay is: `phase` is items, users or events; `at` is the dataset's own time, epoch ms."""

    phase: str
    sent: int
    total: int
    at: int


class ReplayReport(msgspec.Struct, frozen=True):
    """What a replay did. `events` were sent now, the log had `before`; `finished` is false after a stop."""

    items: int
    users: int
    events: int
    before: int
    total: int
    seconds: float
    shift_ms: int
    finished: bool


class ResumePoint(msgspec.Struct, frozen=True):
    """What a resume file holds. All events of one replay are moved by one `shift_ms`."""

    fingerprint: str
    sent: int
    shift_ms: int
    known: bool
    """Whether catalogue and profiles were sent."""


class ReplayOptions(msgspec.Struct, frozen=True):
    """What of a source is sent, and how. Times are epoch ms.

    `speed` is dataset seconds per second; None is as fast as it goes. `longest_wait_s` cuts quiet stretches short.
    Events with start <= at < until (dataset time) are sent, moved by `shift_ms`; a `backfill` is marked as such.
    `catalogue`: whether items and users are sent, too, stamped `known_at` (the source's first event by default) and
    `valid_from`.
    """

    speed: float | None = None
    longest_wait_s: float | None = None
    start: int | None = None
    until: int | None = None
    shift_ms: int = 0
    backfill: bool = False
    catalogue: bool = True
    known_at: int | None = None
    valid_from: int | None = None


class StopSignal(Protocol):
    """A `threading.Event` is one."""

    def is_set(self) -> bool:
        """Whether to stop."""


def shift_to_now(end_at: int, now_ms: int) -> int:
    """Whole weeks, in ms, that bring `end_at` up to, and not past, `now_ms`: weekday and hour stay."""
    return (now_ms - end_at) // WEEK_MS * WEEK_MS


def read_resume_point(file: Path) -> ResumePoint | None:
    """The place in a resume file; None where there is no file.

    Raises:
        StreamError: the file is not a resume file.
    """
    try:
        return msgspec.json.decode(file.read_bytes(), type=ResumePoint)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        raise StreamError(f"{file}: is not a resume file ({error}); delete it to begin anew, or name another") from None


def replay(
    source: Source,
    bootstrap: str,
    security: Mapping[str, str] | None = None,
    options: ReplayOptions | None = None,
    *,
    resume_file: Path | None = None,
    logged: Callable[[Source], pl.Series] | None = None,
    progress: Callable[[ReplayProgress], None] | None = None,
    stop: StopSignal | None = None,
) -> ReplayReport:
    """Send catalogue and profiles, then the events of the window that the log does not have.

    `logged` says of the events of a window (Boolean, by event) which those are; without it, none. `resume_file` holds
    the place up to which everything is acknowledged, and the shift: a resumed replay keeps the one that it began with.
    Blocks; `stop` ends it early, with everything that was handed over acknowledged and noted.

    Raises:
        BrokerError: the broker does not acknowledge. StreamError: the resume file is of another source or window.
    """
    options = options or ReplayOptions()
    if options.speed is not None and not options.speed > 0:
        raise StreamError(f"speed={options.speed} is not above 0; 1 is real time, leave it out for as fast as it goes")
    return asyncio.run(_replay(source, BulkProducer(bootstrap, security), options, resume_file, logged, progress, stop))


async def _replay(
    source: Source,
    producer: BulkProducer,
    options: ReplayOptions,
    resume_file: Path | None,
    logged: Callable[[Source], pl.Series] | None,
    progress: Callable[[ReplayProgress], None] | None,
    stop: StopSignal | None,
) -> ReplayReport:
    began = time.monotonic()
    window = source.window(options.start, options.until)
    place = _open_place(window, resume_file, options.shift_ms)
    await producer.start()
    run = _Run(source, window, producer, place, options, resume_file=resume_file)
    run.listen(progress, stop)
    try:
        if logged is not None and place.sent < len(window):
            run.skip(await asyncio.to_thread(logged, window))
        items = users = 0
        if options.catalogue and not place.known:
            items, users = await run.send_known()
        await run.send_events(_Clock(window, options.speed, options.longest_wait_s))
    finally:
        run.save()
        await producer.stop()
    missing = run.missing(place.sent, len(window))
    return ReplayReport(
        items,
        users,
        run.missing(place.sent, run.acknowledged),
        len(window) - missing,
        len(window),
        time.monotonic() - began,
        place.shift_ms,
        run.acknowledged == len(window),
    )


class _Clock:
    """Says how many events of the window are due."""

    def __init__(self, window: Source, speed: float | None, longest_wait_s: float | None) -> None:
        self._at = window.events["at"]
        self._speed = speed
        self._longest_wait_s = longest_wait_s
        self._began_s = 0.0
        self._began_at = 0

    def begin(self, sent: int) -> None:
        if sent < len(self._at):
            self._began_s, self._began_at = time.monotonic(), int(self._at[sent])

    def due(self, sent: int) -> int:
        """How many of all events are due now, `sent` having been sent."""
        if self._speed is None:
            return len(self._at)
        if self._longest_wait_s is not None and self._wait_s(sent) > self._longest_wait_s:
            self._began_s -= self._wait_s(sent) - self._longest_wait_s
        passed_ms = (time.monotonic() - self._began_s) * 1000 * self._speed
        return int(self._at.search_sorted(self._began_at + int(passed_ms), "right"))

    def _wait_s(self, sent: int) -> float:
        assert self._speed is not None
        return (int(self._at[sent]) - self._began_at) / 1000 / self._speed - (time.monotonic() - self._began_s)


class _Run:
    """One replay under way: what was handed over, what is acknowledged, and what is noted."""

    def __init__(
        self,
        source: Source,
        window: Source,
        producer: BulkProducer,
        place: ResumePoint,
        options: ReplayOptions,
        *,
        resume_file: Path | None,
    ) -> None:
        self.source, self.window, self.producer, self.options = source, window, producer, options
        self.acknowledged = place.sent
        self._place, self._file = place, resume_file
        self._logged: pl.Series | None = None
        self._progress: Callable[[ReplayProgress], None] | None = None
        self._stop: StopSignal | None = None
        self._waiting: deque[tuple[int, Awaitable[None]]] = deque()
        self._saved_s = 0.0

    def listen(self, progress: Callable[[ReplayProgress], None] | None, stop: StopSignal | None) -> None:
        """Report progress, and end early where `stop` is set."""
        self._progress, self._stop = progress, stop

    def missing(self, first: int, until: int) -> int:
        """How many events of the window from number `first` to before `until` the log did not have."""
        if self._logged is None:
            return until - first
        return int((~self._logged.slice(first, until - first)).sum())

    def skip(self, logged: pl.Series) -> None:
        """Do not send the events that are logged; what comes before the first of the others is done."""
        self._logged = logged
        missing = (~logged).slice(self.acknowledged).arg_true()
        self.acknowledged = self.acknowledged + int(missing[0]) if len(missing) else len(logged)

    async def send_known(self) -> tuple[int, int]:
        """Catalogue, then profiles; how many of each."""
        source, options, shift_ms = self.source, self.options, self._place.shift_ms
        at, valid_from = options.known_at, options.valid_from
        items = source.encoded_items(CHUNK, at=at, valid_from=valid_from, shift_ms=shift_ms)
        users = source.encoded_users(CHUNK, at=at, valid_from=valid_from, shift_ms=shift_ms)
        for phase, topic, total, batches in (
            ("items", topics.ITEMS, source.described, items),
            ("users", topics.USERS, source.users.height, users),
        ):
            sent = 0
            for messages in batches:
                if self._stopped():
                    return 0, 0
                await (await self.producer.send(topic, messages))
                sent += len(messages)
                self._report(phase, sent, total, source.start if len(source) else at or 0)
        self._place = msgspec.structs.replace(self._place, known=True)
        return source.described, source.users.height

    async def send_events(self, clock: _Clock) -> None:
        handed_over, total = self.acknowledged, len(self.window)
        headers = [BACKFILL] if self.options.backfill else []
        clock.begin(handed_over)
        while handed_over < total and not self._stopped():
            ready = min(clock.due(handed_over) - handed_over, CHUNK)
            if ready > 0:
                shift_ms = self._place.shift_ms
                messages = self.window.messages(handed_over, ready, shift_ms=shift_ms, without=self._logged)
                handed_over += ready
                self._waiting.append((handed_over, await self.producer.send(topics.EVENTS, messages, headers)))
                await self._settle(keep=1)  # one chunk is made while the one before is on its way
            else:
                await self._settle(keep=0)
                await asyncio.sleep(TICK_S)
        await self._settle(keep=0)

    def save(self) -> None:
        """Store the place."""
        if self._file is None:
            return
        self._saved_s = time.monotonic()
        write_atomically(self._file, msgspec.json.encode(msgspec.structs.replace(self._place, sent=self.acknowledged)))

    async def _settle(self, keep: int) -> None:
        while len(self._waiting) > keep:
            through, answer = self._waiting.popleft()
            await answer
            self.acknowledged = through
            self._report("events", through, len(self.window), int(self.window.events["at"][through - 1]))
            if time.monotonic() - self._saved_s >= SAVE_EVERY_S:
                self.save()

    def _stopped(self) -> bool:
        return self._stop is not None and self._stop.is_set()

    def _report(self, phase: str, sent: int, total: int, at: int) -> None:
        if self._progress is not None:
            self._progress(ReplayProgress(phase, sent, total, at))


def _open_place(window: Source, file: Path | None, shift_ms: int) -> ResumePoint:
    if file is None:
        return ResumePoint("", 0, shift_ms, known=False)
    fingerprint = window.fingerprint()
    place = read_resume_point(file)
    if place is None:
        return ResumePoint(fingerprint, 0, shift_ms, known=False)
    if place.fingerprint != fingerprint or place.sent > len(window):
        raise StreamError(
            f"{file}: is of another data set, window or cleaning than {window.name}; "
            "name another resume file, or delete this one to begin anew"
        )
    return place
