"""What the consumer tells after every write, and who waits for it: look-ups with `after`, and live streams."""

import asyncio
import time

from serving import metrics
from serving.messages import FeatureUpdate


class Watch(asyncio.Event):
    """Set when a user's list may differ. `sure`: the user's features or the release changed, not only the domain."""

    def __init__(self) -> None:
        super().__init__()
        self.sure = True

    def surely(self) -> None:
        """Set it, and be sure."""
        self.sure = True
        self.set()

    def take(self) -> bool:
        """Whether it was sure; from now on it is not set."""
        sure, self.sure = self.sure, False
        self.clear()
        return sure


class Updates:
    """How far each partition (`events/3`) is applied, and who waits for a position or for a user's features to change.

    Everything here runs on the event loop.
    """

    def __init__(self) -> None:
        self.through: dict[str, int] = {}
        self._waiting: dict[str, list[tuple[int, asyncio.Future[None]]]] = {}
        self._watching: dict[tuple[str, str], set[Watch]] = {}

    def hear(self, update: FeatureUpdate) -> None:
        """Take in one message of `feature-updates`."""
        metrics.event_to_recommendation.observe(max(0.0, time.time() - update.logged_at / 1000))
        self.reach(update.partition, update.through)
        if update.users is None:
            self.wake_all()
            return
        for user in update.users:
            for watch in self._watching.get(user, ()):
                watch.surely()

    def reach(self, partition: str, through: int) -> None:
        """Everything of `partition` through `through` is visible to look-ups from now on."""
        if through <= self.through.get(partition, -1):
            return
        self.through[partition] = through
        still: list[tuple[int, asyncio.Future[None]]] = []
        for offset, future in self._waiting.pop(partition, []):
            if offset > through:
                still.append((offset, future))
            elif not future.done():
                future.set_result(None)
        if still:
            self._waiting[partition] = still

    def has(self, partition: str, offset: int) -> bool:
        """Whether `offset` of `partition` is known to be visible to look-ups."""
        return self.through.get(partition, -1) >= offset

    async def reached(self, partition: str, offset: int, within_s: float) -> bool:
        """Whether `offset` of `partition` is visible to look-ups, now or within the time given."""
        if self.has(partition, offset):
            return True
        if within_s <= 0:
            return False
        entry = (offset, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(partition, []).append(entry)
        try:
            await asyncio.wait_for(entry[1], within_s)
        except TimeoutError:
            return False
        finally:
            self._drop(partition, entry)
        return True

    def watch(self, domain: str, user_id: str) -> Watch:
        """What is set whenever the user's list may differ, sure at first; `unwatch` it."""
        watch = Watch()
        self._watching.setdefault((domain, user_id), set()).add(watch)
        metrics.open_streams.inc()
        return watch

    def unwatch(self, domain: str, user_id: str, watch: Watch) -> None:
        """Let go of what `watch` gave."""
        watching = self._watching.get((domain, user_id), set())
        if watch in watching:
            watching.discard(watch)
            metrics.open_streams.dec()
        if not watching:
            self._watching.pop((domain, user_id), None)

    def wake_all(self) -> None:
        """Let every stream look again: a release was swapped, or too many users changed to name them."""
        for watching in self._watching.values():
            for one in watching:
                one.surely()

    def wake(self, domain: str) -> None:
        """Let a domain's streams look whether their lists differ: items or rules changed."""
        for (name, _), watching in self._watching.items():
            if name == domain:
                for one in watching:
                    one.set()

    def watching(self) -> int:
        """How many streams are open."""
        return sum(len(one) for one in self._watching.values())

    def _drop(self, partition: str, entry: tuple[int, asyncio.Future[None]]) -> None:
        waiting = self._waiting.get(partition, [])
        if entry in waiting:
            waiting.remove(entry)
        if not waiting:
            self._waiting.pop(partition, None)
