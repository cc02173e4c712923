"""Shadow answers: what another release would have said, computed after the real answer, in a thread of low priority.

A bounded queue stands between: where it is full a look-up is passed over and counted, and no visitor waits. Every
shadow answer is a line of `<state>/shadow/<domain>.jsonl`; once its window has passed the user's features say whether
the user took an item of it, and of the list that was shown.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any, Final

import msgspec

from features.activity import Activity
from features.outcomes import CLICK_KINDS
from models.releases.arms import assignment
from serving import metrics
from serving.recommend.pipeline import Answer
from serving.rollout.arms import Tried
from stream.events import KIND_CODES

WAITING: Final = 64
JUDGED_LATER: Final = 10_000
"""Shadow answers that wait for their window to pass; the oldest go first."""
COMPARED: Final = 10
FILE_BYTES: Final = 16 * 1024 * 1024
"""A log that grows past this becomes `.1`, in the place of the one before it."""
NICE: Final = 15
LOOK_S: Final = 0.5
SETTLE_MS: Final = 5_000
"""After the window so much is left for events on their way into the features."""
BATCH: Final = 200

log = logging.getLogger("coldstream.api")
_encode = msgspec.json.Encoder().encode
_taken = frozenset(KIND_CODES[kind] for kind in CLICK_KINDS)


class Compared(msgspec.Struct, frozen=True):
    """A line of the log. `overlap` is over the first ten items; `seconds` of the shadow's answer; `at` epoch ms."""

    at: int
    domain: str
    user_id: str | None
    request_id: str
    serving: str | None
    shadow: str
    shown: list[str]
    items: list[str]
    overlap: float
    seconds: float


Compute = Callable[[], Answer]
Read = Callable[[set[tuple[str, str]]], Any]
"""Awaitable: the rows of (domain, user) pairs."""


class Shadow:
    """Answers in the background. `offer` from the look-ups' thread; `start`, `stop` and `judge` on the event loop."""

    def __init__(self, folder: Path, window_ms: int) -> None:
        self._folder = folder
        self._window_ms = window_ms
        self._queue: Queue[tuple[Tried, Answer, int, Compute]] = Queue(WAITING)
        self._later: deque[tuple[Tried, Compared]] = deque(maxlen=JUDGED_LATER)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def stop(self) -> None:
        """End; what waits is let go."""
        self._ended.set()
        await asyncio.to_thread(self._thread.join)

    def offer(self, tried: Tried, given: Answer, asked_at: int, compute: Compute) -> None:
        """A look-up of `asked_at` (epoch ms) that was answered: a share of them is answered again by the shadow."""
        if assignment(given.request_id, tried.arm.salt) >= tried.arm.share:
            return
        try:
            self._queue.put_nowait((tried, given, asked_at, compute))
        except Full:
            tried.figures.dropped += 1
            metrics.shadow_dropped.labels(given.domain).inc()

    async def judge(self, read: Read) -> None:
        """Look, again and again, at what users took of the lists whose window has passed."""
        while True:
            due = self._due(int(time.time() * 1000) - self._window_ms - SETTLE_MS)
            if due:
                rows = await read({(one.domain, one.user_id) for _, one in due if one.user_id is not None})
                for tried, one in due:
                    self._hit(tried, one, rows.get((one.domain, one.user_id)))
            await asyncio.sleep(0 if len(due) == BATCH else LOOK_S)

    def _due(self, before: int) -> list[tuple[Tried, Compared]]:
        found: list[tuple[Tried, Compared]] = []
        while self._later and self._later[0][1].at <= before and len(found) < BATCH:
            found.append(self._later.popleft())
        return found

    def _hit(self, tried: Tried, one: Compared, row: Activity | None) -> None:
        recent = row.recent if row is not None else None
        events = zip(recent.items, recent.kinds, recent.times, strict=True) if recent is not None else ()
        until = one.at + self._window_ms
        took = {item for item, kind, at in events if kind in _taken and one.at <= at <= until}
        tried.figures.judged += 1
        metrics.shadow_judged.labels(one.domain).inc()
        for arm, items in (("shadow", one.items), ("serving", one.shown)):
            if not took.isdisjoint(items):
                metrics.shadow_hits.labels(one.domain, arm).inc()
                tried.figures.hits += arm == "shadow"
                tried.figures.shown_hits += arm == "serving"

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while not self._ended.is_set():
            try:
                tried, given, asked_at, compute = self._queue.get(timeout=LOOK_S)
            except Empty:
                continue
            self._compare(tried, given, asked_at, compute)

    def _compare(self, tried: Tried, given: Answer, asked_at: int, compute: Compute) -> None:
        figures, started = tried.figures, time.perf_counter()
        figures.answers += 1
        try:
            made = compute()
        except Exception as error:  # whatever the release raises, it is the shadow's alone
            figures.errors += 1
            metrics.arm_errors.labels(given.domain, "shadow").inc()
            log.warning("%s: the shadow %s fails: %s", given.domain, tried.arm.release, error)
            return
        seconds = time.perf_counter() - started
        compared = _compared(tried, given, made, asked_at, seconds)
        figures.took(seconds)
        figures.overlap += compared.overlap
        metrics.arm_answers.labels(given.domain, "shadow").inc()
        metrics.arm_seconds.labels(given.domain, "shadow").observe(seconds)
        metrics.shadow_overlap.labels(given.domain).observe(compared.overlap)
        if given.user_id is not None:
            self._later.append((tried, compared))
        try:
            self._write(compared)
        except OSError as error:
            log.warning("a shadow answer is not logged: %s", error)

    def _write(self, one: Compared) -> None:
        path = self._folder / f"{one.domain}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > FILE_BYTES:
            path.replace(path.with_suffix(".jsonl.1"))
        with path.open("ab") as file:
            file.write(_encode(one) + b"\n")


def overlap(one: list[str], other: list[str], k: int = COMPARED) -> float:
    """The share of the first `k` items that two lists have in common, of the longer one; 1 for two empty lists."""
    ours, theirs = set(one[:k]), set(other[:k])
    longest = max(len(ours), len(theirs))
    return len(ours & theirs) / longest if longest else 1.0


def _compared(tried: Tried, given: Answer, made: Answer, at: int, seconds: float) -> Compared:
    shown, items = [one.item_id for one in given.items], [one.item_id for one in made.items]
    who = (given.domain, given.user_id, given.request_id, given.release, tried.arm.release)
    return Compared(at, *who, shown, items, overlap(shown, items), seconds)
