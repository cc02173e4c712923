"""Events under steady load through our producer, and the time from sending each to its place in the online store."""

import asyncio
import random
import statistics
import time
from collections import Counter, defaultdict, deque
from typing import Final
from uuid import uuid4

from features.store import OnlineStore
from stream.errors import BrokerError
from stream.events import Interaction
from stream.producer import Producer

BATCH: Final = 20
BATCHES_PER_SECOND: Final = 20
READ_EVERY_S: Final = 0.05
SLOW_S: Final = 1.0


class FreshnessLoad:
    """Sends batches of events of `users`, each until it is acknowledged, and follows them in the store.

    `samples` holds (when it was first sent, seconds until the store had it) of each applied event, by the clock
    `time.monotonic`.
    """

    def __init__(self, bootstrap: str, store: OnlineStore, users: int = 60) -> None:
        self.acknowledged: Counter[str] = Counter()
        self.retries = 0
        self.samples: list[tuple[float, float]] = []
        self.stopping = asyncio.Event()
        self._bootstrap = bootstrap
        self._store = store
        self._users = [f"{uuid4().hex[:8]}-{number}" for number in range(users)]
        self._waiting: defaultdict[str, deque[float]] = defaultdict(deque)
        self._rng = random.Random(16)

    @property
    def unapplied(self) -> int:
        """Acknowledged events that the store lacks."""
        return sum(len(sent) for sent in self._waiting.values())

    async def write(self) -> None:
        """Send until `stopping` is set."""
        producer = Producer(self._bootstrap)
        await producer.start()
        try:
            while not self.stopping.is_set():
                await self._send(producer, [self._event() for _ in range(BATCH)])
                await asyncio.sleep(1 / BATCHES_PER_SECOND)
        finally:
            await producer.stop()

    async def watch(self) -> None:
        """Read the store until `stopping` is set and it has everything."""
        while not self.stopping.is_set() or self.unapplied:
            applied = self.applied()
            now = time.monotonic()
            for user, sent in self._waiting.items():
                before = self.acknowledged[user] - len(sent)
                for _ in range(min(applied[user] - before, len(sent))):
                    at = sent.popleft()
                    self.samples.append((at, now - at))
            await asyncio.sleep(READ_EVERY_S)

    def applied(self) -> Counter[str]:
        """What the store counts for each user."""
        rows = self._store.read_activities([("shop", user) for user in self._users])
        return Counter({user: sum(row.summary.totals.values()) for (_, user), row in rows.items()})

    def recovered_after(self, at: float, until: float) -> float:
        """Seconds from `at` until the store had the last event of that span that took more than a second; 0: none did.

        Events count that were sent, or still on their way, between `at` and `until`.
        """
        slow = [sent + took for sent, took in self.samples if took > SLOW_S and sent < until and sent + took > at]
        return max(slow, default=at) - at

    def median(self, since: float, until: float) -> float:
        """Of the events that were sent in this span half took less, in seconds."""
        return statistics.median(took for sent, took in self.samples if since <= sent < until)

    async def _send(self, producer: Producer, events: list[Interaction]) -> None:
        started = time.monotonic()
        while True:
            try:
                await producer.send_many(events)
                break
            except BrokerError:
                self.retries += 1
                await asyncio.sleep(0.05)
        for event in events:
            self.acknowledged[event.user_id] += 1
            self._waiting[event.user_id].append(started)

    def _event(self) -> Interaction:
        user, item = self._rng.choice(self._users), f"i{self._rng.randrange(200)}"
        return Interaction(uuid4().hex, user, item, "view", int(time.time() * 1000))
