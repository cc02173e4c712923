"""What stands behind the HTTP routes: the store, the catalogue, the releases, and the tasks that keep them current."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from features import popularity
from features.activity import Activity, FoldSettings
from features.errors import StoreError
from models.errors import ReleaseError
from serving import metrics
from serving.catalogue.domain import Domain, DomainPolicy
from serving.catalogue.domain_state import DomainState
from serving.catalogue.rules_feed import RuleRegistry
from serving.domain_presets import preset_for
from serving.errors import MessageError
from serving.http.follower import Follower
from serving.http.read_your_writes import Updates
from serving.messages import decode_update, encode, release_announcement
from serving.process import memory
from serving.recommend.request import LookupRequest
from serving.recommend.shadow import Shadow
from serving.recommend.worker import NOT_OPEN, EncodedAnswer, Lookups
from serving.rollout.canary import CanaryController, LatestOutcomes, canary_bounds
from serving.rollout.loader import ReleaseLoader
from serving.settings import Settings
from stream import topics
from stream.admin import partitions_of
from stream.errors import BrokerError, EventError
from stream.events import Item, Record, TimeLimits, User, decode
from stream.producer import Producer

if TYPE_CHECKING:
    from features.store import OnlineStore

POPULAR_EVERY_S: Final = 1.0
POPULAR_SHARE: Final = 0.01
"""At most this share of the time goes into reading popularity: decoding holds up look-ups."""
RETRY_S: Final = 0.5
PROBE_S: Final = 1.0

log = logging.getLogger("coldstream.api")


class Service:
    """One API process. `start` begins everything and returns at once; `missing` says what is not there yet."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limits = TimeLimits(max_future_ms=settings.max_future_ms)
        self.rules = FoldSettings(history_length=settings.history_length, late_ms=settings.late_ms)
        self.domains = {
            name: DomainState(Domain(DomainPolicy.of(preset_for(settings, name)), name=name))
            for name in settings.domain_names
        }
        self.updates = Updates()
        self.producer = Producer(settings.bootstrap, settings.kafka_security)
        self.closing = asyncio.Event()
        self._background = ThreadPoolExecutor(2, "background")
        self.current = ReleaseLoader(settings.state_path / "releases", self.domains, self._background, self._swapped)
        self.lookups = Lookups(self.domains, self.current.rollouts)
        file = Path(settings.rules) if settings.rules else None
        self.standing = RuleRegistry(file, self.domains, self._background, self.updates.reach, self.updates.wake)
        catalogue = {
            topics.ITEMS: self._take_item,
            topics.USERS: self._take_user,
            topics.RELEASES: self.current.on_message,
        }
        catalogue[topics.RULES] = self.standing.on_message
        where = (settings.bootstrap, settings.kafka_security)
        self.catalogue = Follower(*where, catalogue, from_start=True, after=self._heard)
        self.written = Follower(*where, {topics.FEATURE_UPDATES: self._take_update}, from_start=False)
        self.told = LatestOutcomes()
        self.outcomes = Follower(*where, {topics.OUTCOMES: self.told.on_message}, from_start=True)
        auto = settings.canary_promote == "auto"
        self.decider = CanaryController(
            self.current.root,
            self.current.rollouts,
            self.told,
            canary_bounds(settings),
            auto=auto,
            on_end=self._ended,
        )
        self.lookups.shadow = self.shadow = Shadow(settings.state_path / "shadow", settings.click_window_ms)
        self._connected = False
        self._popular_at: dict[str, int] = {}
        self._popular_by: dict[str, dict[str, str]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin the background tasks."""
        self.lookups.start()
        self.shadow.start()
        work = {
            "opening the store": self._open_store,
            "connecting to Kafka": self._connect,
            "following the catalogue": self.catalogue.run,
            "following feature updates": self.written.run,
            "watching releases": self.current.run,
            "following the rules": lambda: self.standing.run(self.catalogue.caught_up),
            "keeping time": self.standing.keep_time,
            "following outcomes": self.outcomes.run,
            "judging canaries": lambda: self.decider.run(self.outcomes.caught_up),
            "judging shadows": lambda: self.shadow.judge(self._activities),
            "reading popularity": self._watch_popularity,
        }
        self._tasks = [asyncio.create_task(_keep(name, one)) for name, one in work.items()]

    async def stop(self) -> None:
        """End streams and background tasks; what was accepted is sent, what was asked is answered."""
        self.close_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.producer.stop()
        await self.lookups.stop()
        await self.shadow.stop()
        self._background.shutdown()
        if self.lookups.store is not None:
            self.lookups.store.close()

    def close_streams(self) -> None:
        """Let every live stream end: the server waits for its connections when it stops."""
        self.closing.set()
        self.updates.wake_all()

    def _swapped(self) -> None:
        memory.look_again()
        self.updates.wake_all()

    async def recommend(self, user_id: str, ask: LookupRequest) -> EncodedAnswer:
        """A user's list from the features of this moment. Raises StoreError where the store is away."""
        return await self.lookups.of_user(user_id, ask)

    async def activity(self, domain: str, user_id: str) -> Activity | None:
        """The user's features; None for one who has none. Raises StoreError."""
        return await self.lookups.call(lambda store: store.read_activity(domain, user_id))

    async def _activities(self, keys: set[tuple[str, str]]) -> dict[tuple[str, str], Activity]:
        return await self.lookups.call(lambda store: store.read_activities(keys))

    async def _ended(self, name: str, action: str) -> None:
        """A canary ended: look at once, and say so to the other processes."""
        self.current.check_now()
        try:
            await self.producer.send_raw([encode(release_announcement(self.current.root, name, action))])
        except (BrokerError, ReleaseError) as error:
            log.warning("%s: the canary's end is not announced (%s); the folder has it", name, error)

    async def missing(self) -> dict[str, str]:
        """What keeps the process from serving now, part by part, with the cure; empty when it can."""
        found: dict[str, str] = {}
        store = await self._store_trouble()
        if store:
            found["store"] = store
        where = self.settings.bootstrap
        if not self._connected or not await self.catalogue.answers(PROBE_S):
            found["broker"] = f"no Kafka answers at {where}; is the broker running, and is the address right?"
        if not self.catalogue.caught_up.is_set():
            found["catalogue"] = f"the topics {topics.ITEMS} and {topics.USERS} are still being read; wait"
        elif not self.standing.ready.is_set():
            found["rules"] = "the rules are being readied; wait"
        if not self.written.caught_up.is_set():
            found["updates"] = f"the topic {topics.FEATURE_UPDATES} is not followed yet; wait"
        return found

    async def _store_trouble(self) -> str | None:
        if self.lookups.store is None:
            return NOT_OPEN
        try:
            await asyncio.wait_for(self.lookups.call(_ping), PROBE_S)
        except StoreError as error:
            return str(error)
        except TimeoutError:
            return f"the online store does not answer within {PROBE_S:g} s"
        return None

    async def _open_store(self) -> None:
        opened = await asyncio.get_running_loop().run_in_executor(self._background, self._open)
        self.lookups.store = opened
        log.info("the online store is open")

    def _open(self) -> "OnlineStore":
        from features.store import open_store  # Feast takes seconds to import: the rest starts meanwhile

        return open_store(self.settings.state_path / "feast", self.settings.store, self.settings.domain_names)

    async def _connect(self) -> None:
        await self.producer.start()
        self._connected = True

    def _heard(self, partition: str, offset: int) -> None:
        """What was taken from a topic is seen by look-ups at once; rules, once they are readied."""
        (self.standing.on_progress if partition.startswith(f"{topics.RULES}/") else self.updates.reach)(
            partition, offset
        )

    def _take_item(self, key: bytes | None, value: bytes | None) -> None:
        if value is None:
            domain, item_id = self._named(key)
            if domain is not None:
                domain.remove_item(item_id)
            return
        item = _record(topics.ITEMS, value)
        if isinstance(item, Item) and item.domain in self.domains:
            self.domains[item.domain].put_items([item])

    def _take_user(self, key: bytes | None, value: bytes | None) -> None:
        if value is None:
            domain, user_id = self._named(key)
            if domain is not None:
                domain.remove_user(user_id)
            return
        user = _record(topics.USERS, value)
        if isinstance(user, User) and user.domain in self.domains:
            self.domains[user.domain].put_user(user)

    def _named(self, key: bytes | None) -> tuple[DomainState | None, str]:
        name, _, identity = (key or b"").decode("utf-8", "replace").partition("/")
        return self.domains.get(name), identity

    def _take_update(self, _key: bytes | None, value: bytes | None) -> None:
        try:
            self.updates.hear(decode_update(value))
        except MessageError as error:
            log.warning("%s", error)

    async def _watch_popularity(self) -> None:
        loop = asyncio.get_running_loop()
        where = (self.settings.bootstrap, self.settings.kafka_security, topics.EVENTS)
        partitions = 0
        while not partitions:
            partitions = await loop.run_in_executor(self._background, partitions_of, *where)
            await asyncio.sleep(RETRY_S)
        names = [f"{popularity.TOP_PREFIX}{topics.EVENTS}/{one}" for one in range(partitions)]
        while True:
            took_s = await loop.run_in_executor(self._background, self._read_popularity, names)
            for name, position in self._popular_at.items():  # user rows are written before popularity rows
                self.updates.reach(name.removeprefix(popularity.TOP_PREFIX), position)
            for domain in self.domains.values():
                domain.refresh_popularity()
            await asyncio.sleep(max(POPULAR_EVERY_S, took_s / POPULAR_SHARE))

    def _read_popularity(self, names: list[str]) -> float:
        """In another thread: swap in what is popular now, where it changed; the seconds it took."""
        started = time.thread_time()
        try:
            rows = self.lookups.store.read_popularity(names) if self.lookups.store is not None else {}
        except StoreError as error:
            metrics.store_errors.labels("read").inc()
            log.warning("popularity is not refreshed: %s", error)
            return 0.0
        at = {name: row.position for name, row in rows.items()}
        by = {name: {domain: one.rules for domain, one in row.domains.items()} for name, row in rows.items()}
        if (at, by) != (self._popular_at, self._popular_by):  # counted anew by other rules, a row may end where it was
            total = popularity.merge(rows.values())
            for name, state in self.domains.items():
                found = total.domains.get(name)
                state.domain.set_popular(found.segments if found is not None else {})
            self._popular_at, self._popular_by = at, by
        return time.thread_time() - started


async def _keep(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` until it returns; begin again where it fails, for a task that died unseen would be worse."""
    said = ""
    while True:
        try:
            await work()
        except (StoreError, BrokerError) as error:
            if str(error) != said:
                log.warning("%s: %s; trying again", name, error)
            said = str(error)
        except Exception:
            log.exception("%s failed; beginning again", name)
        else:
            return
        await asyncio.sleep(RETRY_S)


def _ping(store: "OnlineStore") -> None:
    store.ping()


def _record(topic: str, value: bytes) -> Record | None:
    try:
        return decode(value, 2**53)
    except EventError as error:
        log.warning("a message on %s is passed over: %s", topic, error.detail)
        return None
