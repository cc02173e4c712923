"""The live view of `coldstream run`: figures of the running system, and one user's recommendations as they change."""

import asyncio
import sys
import time
from collections import deque
from typing import Any, Final

import httpx
from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from serving.plain_text import one_line
from serving.process.scrape import Samples, quantile, scrape, total
from serving.settings import Settings
from stream.replay import ReplayProgress

REFRESH_S: Final = 1.0
PLAIN_EVERY_S: Final = 5.0
LOG_LINES: Final = 8
SHOWN_ITEMS: Final = 8
NO_RELEASE: Final = "none yet"


class LiveView:
    """What the live view shows, refreshed once a second."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.url = settings.api_url
        self.phase = "starting"
        self.user: str | None = None
        self.lines: deque[str] = deque(maxlen=LOG_LINES)
        self.recommendations: dict[str, Any] = {}
        self.changes = 0
        self.lag: float | None = None
        self.figures: dict[str, str] = {}
        self._last_scrape: tuple[float, float, Samples | None] = (time.monotonic(), 0.0, None)

    def log(self, name: str, line: str) -> None:
        """Show a line of a process's log."""
        line = one_line(line)
        self.lines.append(f"{name:>8} | {line}")
        if not sys.stdout.isatty():
            sys.stdout.write(f"{name:>8} | {line}\n")
            sys.stdout.flush()

    def report(self, phase: str, progress: ReplayProgress) -> None:
        """Show the progress of a replay."""
        when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(progress.at / 1000))
        self.phase = f"{phase}: {progress.phase} {progress.sent:,} of {progress.total:,} (data set time {when})"

    async def refresh(self) -> None:
        """Scrape API and consumer, and look up the followed user."""
        consumer, api = await asyncio.gather(
            asyncio.to_thread(scrape, self.settings, "consumer"), asyncio.to_thread(scrape, self.settings, "api")
        )
        now, events = time.monotonic(), total(consumer, "coldstream_events_applied_total")
        then, events_then, samples = self._last_scrape
        self._last_scrape = (now, events, consumer)
        latency = "coldstream_event_to_feature_seconds"
        releases = [labels["release"] for labels, value in (api or {}).get("coldstream_release_info", []) if value]
        has_lag = "coldstream_consumer_lag" in (consumer or {})
        self.lag = total(consumer, "coldstream_consumer_lag") if has_lag else None
        self.figures = {
            "events/s": f"{max(0.0, events - events_then) / max(now - then, 1e-3):,.0f}",
            "events applied": f"{events:,.0f}",
            "lag": "-" if self.lag is None else f"{self.lag:,.0f}",
            "freshness p50": _milliseconds(quantile(consumer, latency, 0.5, samples)),
            "freshness p99": _milliseconds(quantile(consumer, latency, 0.99, samples)),
            "release": releases[0] if releases else NO_RELEASE,
        }
        if self.user is not None:
            await self._look_up()

    async def _look_up(self) -> None:
        try:
            async with httpx.AsyncClient() as client:
                response = await client.get(
                    f"{self.url}/v1/users/recommendations", params={"user_id": self.user, "n": SHOWN_ITEMS}, timeout=2
                )
        except httpx.HTTPError:
            return
        if response.status_code == 200:
            before, self.recommendations = self.recommendations, response.json()
            self.changes += bool(before) and _ids(before) != _ids(self.recommendations)

    def render(self) -> Group:
        """The view for a terminal."""
        table = Table.grid(padding=(0, 3))
        table.add_row(*(f"[dim]{name}[/]" for name in self.figures))
        table.add_row(*(f"[bold]{value}[/]" for value in self.figures.values()))
        items = Table.grid(padding=(0, 2))
        for rank, item in enumerate(self.recommendations.get("items", []), 1):
            about = (item.get("title") or "", item.get("category") or "")
            items.add_row(*(Text(one_line(text)) for text in (str(rank), item["item_id"], item["reason"], *about)))
        reason = self.recommendations.get("reason", "-")
        title = Text(f"user {one_line(str(self.user))}: {reason}; the list changed {self.changes} times")
        return Group(
            Panel(table, title=f"Coldstream  {self.url}  docs {self.url}/docs", subtitle=self.phase),
            Panel(items, title=title),
            Panel(Text("\n".join(self.lines)), title="log"),
        )

    def line(self) -> str:
        """The view as one line, for output that is not a terminal."""
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        top, reason = _ids(self.recommendations)[:3], self.recommendations.get("reason")
        followed = f"; user {self.user} ({reason}) {top}, changed {self.changes} times" if self.user else ""
        return f"{self.phase}; {figures}{followed}"


async def show(view: LiveView) -> None:
    """Refresh and show the view until cancelled: live on a terminal, otherwise a line every few seconds."""
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
        view.log("run", view.line())


def _ids(recommendations: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in recommendations.get("items", [])]


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"<= {1000 * seconds:,.0f} ms"
