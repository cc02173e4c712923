"""What `make run` shows: everything up, the history in, the last weeks live, and one user's list changing."""

import asyncio
import sys
import threading
import time
from collections import deque
from typing import Any, Final

import httpx
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table

from serving.commands.data import open_source, play_window
from serving.commands.status import Samples, quantile, scrape, total
from serving.process.supervisor import Supervisor, parts_of
from serving.settings import Settings
from stream.replay import ReplayProgress, ReplayReport
from stream.sources.source import Source

WEEK_MS: Final = 7 * 24 * 60 * 60 * 1000
REFRESH_S: Final = 1.0
PLAIN_EVERY_S: Final = 5.0
LINES: Final = 8
SHOWN: Final = 8
STOP_WITHIN_S: Final = 15.0
NO_RELEASE: Final = "none yet"


class View:
    """Everything that the live view shows, brought up to date once a second."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = f"http://{settings.host}:{settings.port}"
        self.phase = "starting"
        self.user: str | None = None
        self.lines: deque[str] = deque(maxlen=LINES)
        self.answer: dict[str, Any] = {}
        self.changes = 0
        self.lag: float | None = None
        self.figures: dict[str, str] = {}
        self._before: tuple[float, float, Samples | None] = (time.monotonic(), 0.0, None)

    def say(self, name: str, line: str) -> None:
        """A line of a part's log."""
        self.lines.append(f"{name:>8} | {line}")
        if not sys.stdout.isatty():
            sys.stdout.write(f"{name:>8} | {line}\n")
            sys.stdout.flush()

    def tell(self, phase: str, one: ReplayProgress) -> None:
        """How far a replay is."""
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(one.at / 1000))
        self.phase = f"{phase}: {one.phase} {one.sent:,} of {one.total:,} (data set time {when})"

    async def refresh(self) -> None:
        """Ask the parts how they are, and the API for the followed user's list."""
        consumer, api = await asyncio.gather(
            asyncio.to_thread(scrape, self.settings, "consumer"), asyncio.to_thread(scrape, self.settings, "api")
        )
        now, events = time.monotonic(), total(consumer, "coldstream_events_total")
        then, before, samples = self._before
        self._before = (now, events, consumer)
        name = "coldstream_event_to_feature_seconds"
        releases = [labels["release"] for labels, value in (api or {}).get("coldstream_release", []) if value]
        known = "coldstream_consumer_lag" in (consumer or {})
        self.lag = total(consumer, "coldstream_consumer_lag") if known else None
        self.figures = {
            "events/s": f"{max(0.0, events - before) / max(now - then, 1e-3):,.0f}",
            "events applied": f"{events:,.0f}",
            "lag": "-" if self.lag is None else f"{self.lag:,.0f}",
            "freshness p50": _milliseconds(quantile(consumer, name, 0.5, samples)),
            "freshness p99": _milliseconds(quantile(consumer, name, 0.99, samples)),
            "release": releases[0] if releases else NO_RELEASE,
        }
        if self.user is not None:
            await self._follow()

    async def _follow(self) -> None:
        try:
            async with httpx.AsyncClient() as client:
                answer = await client.get(
                    f"{self.url}/v1/users/{self.user}/recommendations", params={"n": SHOWN}, timeout=2
                )
        except httpx.HTTPError:
            return
        if answer.status_code == 200:
            found = answer.json()
            ids = [one["item_id"] for one in found["items"]]
            if self.answer and ids != [one["item_id"] for one in self.answer["items"]]:
                self.changes += 1
            self.answer = found

    def render(self) -> Group:
        """The view for a terminal."""
        table = Table.grid(padding=(0, 3))
        table.add_row(*(f"[dim]{name}[/]" for name in self.figures))
        table.add_row(*(f"[bold]{value}[/]" for value in self.figures.values()))
        items = Table.grid(padding=(0, 2))
        for place, one in enumerate(self.answer.get("items", []), 1):
            items.add_row(str(place), one["item_id"], one["reason"], one.get("title") or "", one.get("category") or "")
        title = f"user {self.user}: {self.answer.get('reason', '-')}; the list changed {self.changes} times"
        return Group(
            Panel(table, title=f"Coldstream  {self.url}  docs {self.url}/docs", subtitle=self.phase),
            Panel(items, title=title),
            Panel("\n".join(self.lines), title="log"),
        )

    def line(self) -> str:
        """The view where there is no terminal."""
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        top = [one["item_id"] for one in self.answer.get("items", [])[:3]]
        followed = (
            f"; user {self.user} ({self.answer.get('reason')}) {top}, changed {self.changes} times" if self.user else ""
        )
        return f"{self.phase}; {figures}{followed}"


async def demonstrate(settings: Settings, *, speed: float, weeks: float, user: str | None) -> int:
    """Run until Ctrl-C; 0, or the exit code of a part that could not work."""
    view = View(settings)
    supervisor = Supervisor(settings, parts_of(settings), view.say)
    stop = threading.Event()
    ready = asyncio.Event()
    playing = asyncio.create_task(_play(settings, view, ready, stop, speed, weeks, user))
    watching = asyncio.create_task(_watch(view))

    async def end_replay() -> None:
        stop.set()
        await asyncio.wait({playing}, timeout=STOP_WITHIN_S)

    running = asyncio.create_task(supervisor.up(ready.set, end_replay))
    try:
        done, _ = await asyncio.wait({running, playing}, return_when=asyncio.FIRST_COMPLETED)
        if playing in done:
            playing.result()
        return await running
    finally:
        stop.set()
        watching.cancel()
        if not running.done():
            supervisor.stop()
            await running
        await asyncio.gather(watching, playing, return_exceptions=True)


async def _play(
    settings: Settings,
    view: View,
    ready: asyncio.Event,
    stop: threading.Event,
    speed: float,
    weeks: float,
    user: str | None,
) -> None:
    source = await asyncio.to_thread(open_source, "complete-journey")
    cut = source.end - int(weeks * WEEK_MS)
    view.user = user or busiest(source, cut)
    await ready.wait()
    view.say("run", f"API {view.url} with docs at {view.url}/docs; following user {view.user}")
    history = await asyncio.to_thread(
        play_window, settings, source, "history", stop, lambda one: view.tell("history", one), until=cut
    )
    _say_done(view, "history", history)
    source = source.since(cut)
    await _caught_up(view, stop)
    if not stop.is_set():
        live = await asyncio.to_thread(
            play_window,
            settings,
            source,
            "live",
            stop,
            lambda one: view.tell(f"live at {speed:g}x", one),
            start=cut,
            speed=speed,
            catalogue=False,
            longest_wait_s=5.0,
        )
        _say_done(view, "live", live)
        if live.finished:
            view.phase = "everything is replayed; the system goes on running (Ctrl-C ends it)"


async def _caught_up(view: View, stop: threading.Event) -> None:
    """Live events begin when the history is in the features and a first release serves."""
    view.phase = "the history is in the log; features catch up, and a first release is made"
    while not stop.is_set() and (view.lag != 0 or view.figures.get("release") == NO_RELEASE):
        await asyncio.sleep(0.2)


def busiest(source: Source, since: int) -> str:
    """The user with the most events from `since` on: the one whose list changes most."""
    return str(source.window(start=since).events["user_id"].mode().sort()[0])


def _say_done(view: View, name: str, done: ReplayReport) -> None:
    view.say(
        "run", f"{name}: {done.events:,} events sent in {done.seconds:.0f} s, {done.before:,} before, of {done.total:,}"
    )


async def _watch(view: View) -> None:
    if sys.stdout.isatty():
        with Live(view.render(), refresh_per_second=4, screen=False) as live:
            while True:
                await view.refresh()
                live.update(view.render())
                await asyncio.sleep(REFRESH_S)
    while True:
        for _ in range(int(PLAIN_EVERY_S / REFRESH_S)):
            await asyncio.sleep(REFRESH_S)
            await view.refresh()
        view.say("run", view.line())


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"<= {1000 * seconds:,.0f} ms"
