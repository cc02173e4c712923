"""Views that a system acknowledged, and the steps of tests in which its log is lost or restored from a backup."""

from collections import Counter
from typing import Final

import httpx

from serving.settings import EXIT_MISCONFIGURED, Settings, read
from stream import topics
from stream.admin import create_topics
from testing.api import post_actions
from testing.delivery import archived_events
from testing.system import System
from testing.waiting import wait_until

PARTS: Final = ("api", "consumer", "archiver")
CURES: Final = ("coldstream features rebuild", "coldstream new-epoch")


class LoggedViews:
    """Posts views to a system, and knows how many of each user were acknowledged."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.acknowledged: Counter[str] = Counter()

    def post(self, *users: str) -> None:
        """Post a view of each user, one after the other, and wait until look-ups see it."""
        with httpx.Client(base_url=self.system.url, timeout=20) as client:
            for user in users:
                token = post_actions(client, user, ("view", "i1"))
                client.get(f"/v1/users/{user}/recommendations", params={"after": token}).raise_for_status()
                self.acknowledged[user] += 1

    def applied(self) -> Counter[str]:
        """How many views of each user the online store holds."""
        store = self.system.open_store()
        rows = store.read_activities(("shop", user) for user in self.acknowledged)
        store.close()
        return Counter({user: row.summary.totals["view"] for (_, user), row in rows.items()})

    def wait_archived(self) -> None:
        """Return once everything acknowledged is archived."""
        total = self.acknowledged.total()
        wait_until(lambda: archived_events(self.system.state / "archive") == total, 60, f"{total} events are archived")


def settings_of(system: System) -> Settings:
    """The settings of a system's processes."""
    return read(environment=system.environment)


def start(system: System) -> None:
    """Start every part but the broker, and wait until they are ready."""
    for part in PARTS:
        system.start(part)
    system.wait_ready()


def stop(system: System, *, broker: bool = True) -> None:
    """Stop every part."""
    for part in PARTS:
        system.stop(part)
    if broker:
        system.broker.stop()


def start_broker(system: System) -> None:
    """Start the broker, and create the topics that it lacks."""
    system.start("broker")
    create_topics(system.broker.bootstrap, None, topics.topics(4))


def assert_refused(system: System, why: str) -> None:
    """Consumer and archive end with the reason and both cures."""
    seen = {part: (system.state / f"{part}.log").stat().st_size for part in ("consumer", "archiver")}
    for part in seen:
        system.start(part)
    for part, size in seen.items():
        assert system.processes.pop(part).wait(90) == EXIT_MISCONFIGURED
        message = (system.state / f"{part}.log").read_text()[size:]
        assert all(words in message for words in (why, *CURES)), message
