"""Shadow answers: what another release would have answered, computed after the real answer by a low-priority thread.

Look-ups reach it through a bounded queue; when it is full, a look-up is skipped and counted, and no visitor waits.
Every shadow answer is a line of `<state>/shadow/<domain>.jsonl`; once its window has passed, the user's features show
whether the user clicked an item of it, and of the list that was shown.
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
from typing import Any, Final, NamedTuple

import msgspec

from features.activity import Activity
from features.outcomes import CLICK_KINDS
from models.releases.arms import assignment
from serving import metrics
from serving.recommend.answer import Answer
from serving.rollout.arms import LoadedArm
from stream.events import KIND_CODES

QUEUE_SIZE: Final = 64
MAX_UNJUDGED: Final = 10_000
"""Shadow answers whose window has not passed yet; the oldest are dropped first."""
OVERLAP_AT: Final = 10
FILE_BYTES: Final = 16 * 1024 * 1024
"""A log that grows past this becomes `.1`, and replaces the previous one."""
NICENESS: Final = 15
POLL_S: Final = 0.5
SETTLE_MS: Final = 5_000
"""How long after the window events may still be on their way into the features."""
BATCH: Final = 200

log = logging.getLogger("coldstream.api")
_encode = msgspec.json.Encoder().encode
_click_kinds = frozenset(KIND_CODES[kind] for kind in CLICK_KINDS)


class ShadowRecord(msgspec.Struct, frozen=True):
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


ComputeAnswer = Callable[[], Answer]
ReadActivities = Callable[[set[tuple[str, str]]], Any]
"""Awaitable: the rows of (domain, user) pairs."""


class OfferedLookup(NamedTuple):
    """A look-up that was answered at `at` (epoch ms), for the shadow to answer again."""

    arm: LoadedArm
    shown: Answer
    at: int
    compute: ComputeAnswer


class Shadow:
    """Answers in the background. `offer` from the look-ups' thread; `start`, `stop` and `judge` on the event loop."""

    def __init__(self, folder: Path, window_ms: int) -> None:
        self._folder = folder
        self._window_ms = window_ms
        self._queue: Queue[OfferedLookup] = Queue(QUEUE_SIZE)
        self._unjudged: deque[tuple[LoadedArm, ShadowRecord]] = deque(maxlen=MAX_UNJUDGED)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    async def stop(self) -> None:
        """End the thread; queued look-ups are dropped."""
        self._ended.set()
        await asyncio.to_thread(self._thread.join)

    def offer(self, arm: LoadedArm, shown: Answer, at: int, compute: ComputeAnswer) -> None:
        """Queue an answered look-up of `at` (epoch ms), if it is in the share that the shadow answers."""
        if assignment(shown.request_id, arm.arm.salt) >= arm.arm.share:
            return
        try:
            self._queue.put_nowait(OfferedLookup(arm, shown, at, compute))
        except Full:
            arm.counters.dropped += 1
            metrics.shadow_dropped.labels(shown.domain).inc()

    async def judge(self, read: ReadActivities) -> None:
        """Count, again and again, the clicks on lists whose window has passed."""
        while True:
            due = self._due(int(time.time() * 1000) - self._window_ms - SETTLE_MS)
            if due:
                rows = await read({(record.domain, record.user_id) for _, record in due if record.user_id is not None})
                for arm, record in due:
                    self._count_hits(arm, record, rows.get((record.domain, record.user_id)))
            await asyncio.sleep(0 if len(due) == BATCH else POLL_S)

    def _due(self, before: int) -> list[tuple[LoadedArm, ShadowRecord]]:
        due: list[tuple[LoadedArm, ShadowRecord]] = []
        while self._unjudged and self._unjudged[0][1].at <= before and len(due) < BATCH:
            due.append(self._unjudged.popleft())
        return due

    def _count_hits(self, arm: LoadedArm, record: ShadowRecord, activity: Activity | None) -> None:
        history = activity.recent if activity is not None else None
        events = zip(history.items, history.kinds, history.times, strict=True) if history is not None else ()
        until = record.at + self._window_ms
        clicked = {item for item, kind, at in events if kind in _click_kinds and record.at <= at <= until}
        arm.counters.judged += 1
        metrics.shadow_evaluated.labels(record.domain).inc()
        for role, items in (("shadow", record.items), ("serving", record.shown)):
            if not clicked.isdisjoint(items):
                metrics.shadow_hits.labels(record.domain, role).inc()
                arm.counters.hits += role == "shadow"
                arm.counters.serving_hits += role == "serving"

    def _work(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        while not self._ended.is_set():
            try:
                lookup = self._queue.get(timeout=POLL_S)
            except Empty:
                continue
            self._compare(lookup)

    def _compare(self, lookup: OfferedLookup) -> None:
        arm, domain, started = lookup.arm, lookup.shown.domain, time.perf_counter()
        try:
            computed = lookup.compute()
        except Exception as error:  # whatever the release raises, only the shadow fails
            arm.counters.count_errors(1)
            log.warning("%s: the shadow %s fails: %s", domain, arm.arm.release, error)
            return
        seconds = time.perf_counter() - started
        record = _record(lookup, computed, seconds)
        arm.counters.count_answers(1)
        arm.counters.observe(seconds)
        arm.counters.overlap += record.overlap
        metrics.shadow_overlap.labels(domain).observe(record.overlap)
        if record.user_id is not None:
            self._unjudged.append((arm, record))
        try:
            self._write(record)
        except OSError as error:
            log.warning("cannot log a shadow answer: %s", error)

    def _write(self, record: ShadowRecord) -> None:
        path = self._folder / f"{record.domain}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > FILE_BYTES:
            path.replace(path.with_suffix(".jsonl.1"))
        with path.open("ab") as file:
            file.write(_encode(record) + b"\n")


def overlap(items: list[str], others: list[str], k: int = OVERLAP_AT) -> float:
    """The share of the first `k` items that two lists have in common, of the longer one; 1 for two empty lists."""
    first, second = set(items[:k]), set(others[:k])
    longest = max(len(first), len(second))
    return len(first & second) / longest if longest else 1.0


def _record(lookup: OfferedLookup, computed: Answer, seconds: float) -> ShadowRecord:
    shown, items = [item.item_id for item in lookup.shown.items], [item.item_id for item in computed.items]
    return ShadowRecord(
        at=lookup.at,
        domain=lookup.shown.domain,
        user_id=lookup.shown.user_id,
        request_id=lookup.shown.request_id,
        serving=lookup.shown.release,
        shadow=lookup.arm.arm.release,
        shown=shown,
        items=items,
        overlap=overlap(shown, items),
        seconds=seconds,
    )
