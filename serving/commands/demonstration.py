"""The demonstration: start the system, load the history, replay the last weeks live, follow one user."""

import asyncio
import threading
from typing import Final

from serving.commands.data_loading import open_source, play_window
from serving.commands.live_view import NO_RELEASE, LiveView, show
from serving.commands.options import check_domain
from serving.process.supervisor import Supervisor, parts_of
from serving.settings import Settings
from stream.replay import ReplayOptions, ReplayReport
from stream.sources.source import Source

WEEK_MS: Final = 7 * 24 * 60 * 60 * 1000
STOP_WITHIN_S: Final = 15.0


async def demonstrate(settings: Settings, *, speed: float, weeks: float, user: str | None) -> int:
    """Run until Ctrl-C; returns 0, or the exit code of a process that failed."""
    view = LiveView(settings)
    supervisor = Supervisor(settings, parts_of(settings), view.log)
    stop = threading.Event()
    ready = asyncio.Event()
    replay = Replay(settings, view, ready, stop, speed=speed, weeks=weeks, user=user)
    replaying = asyncio.create_task(replay.run())
    showing = asyncio.create_task(show(view))

    async def end_replay() -> None:
        stop.set()
        await asyncio.wait({replaying}, timeout=STOP_WITHIN_S)

    running = asyncio.create_task(supervisor.up(ready.set, end_replay))
    try:
        done, _ = await asyncio.wait({running, replaying}, return_when=asyncio.FIRST_COMPLETED)
        if replaying in done:
            replaying.result()
        return await running
    finally:
        stop.set()
        showing.cancel()
        if not running.done():
            supervisor.stop()
            await running
        await asyncio.gather(showing, replaying, return_exceptions=True)


class Replay:
    """The data set in two parts: everything but the last weeks at once, then these at `speed` times real time."""

    def __init__(
        self,
        settings: Settings,
        view: LiveView,
        ready: asyncio.Event,
        stop: threading.Event,
        *,
        speed: float,
        weeks: float,
        user: str | None,
    ) -> None:
        self._settings = settings
        self._view = view
        self._ready = ready
        self._stop = stop
        self._speed = speed
        self._weeks = weeks
        self._user = user

    async def run(self) -> None:
        """Replay both parts, or end early where `stop` is set."""
        source = await asyncio.to_thread(open_source, "complete-journey")
        check_domain(self._settings, source.domain)
        cut = source.end - int(self._weeks * WEEK_MS)
        view = self._view
        view.user = self._user or busiest(source, cut)
        await self._ready.wait()
        view.log("run", f"API {view.url} with docs at {view.url}/docs; following user {view.user}")
        await self._replay(source, "history", "history", ReplayOptions(until=cut, backfill=True))
        await self._wait_for_release()
        if self._stop.is_set():
            return
        options = ReplayOptions(speed=self._speed, longest_wait_s=5.0, start=cut, catalogue=False)
        live = await self._replay(source.since(cut), "live", f"live at {self._speed:g}x", options)
        if live.finished:
            view.phase = "the replay is complete; the system keeps running (Ctrl-C stops it)"

    async def _replay(self, source: Source, window: str, phase: str, options: ReplayOptions) -> ReplayReport:
        view = self._view
        replayed = await asyncio.to_thread(
            play_window,
            self._settings,
            source,
            window,
            options,
            self._stop,
            lambda progress: view.report(phase, progress),
        )
        sent = f"{replayed.events:,} events sent in {replayed.seconds:.0f} s"
        view.log("run", f"{window}: {sent}, {replayed.before:,} before, of {replayed.total:,}")
        return replayed

    async def _wait_for_release(self) -> None:
        """The live part begins when the features hold the history and a first release is live."""
        view = self._view
        view.phase = "the history is in the log; features catch up, and the first release is trained"
        while not self._stop.is_set() and (view.lag != 0 or view.figures.get("release") == NO_RELEASE):
            await asyncio.sleep(0.2)


def busiest(source: Source, since: int) -> str:
    """The user with the most events from `since` (epoch ms) on, whose list changes most."""
    return str(source.window(start=since).events["user_id"].mode().sort()[0])
