"""What stands behind the HTTP routes: the store, the catalogue, the releases, and the tasks that keep them current."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import msgspec

from features import popularity
from features.activity import Activity, Rules
from features.errors import StoreError
from models import releases
from models.errors import ReleaseError
from serving import metrics
from serving.catalogue import Aligned, Domain
from serving.recommender import Answer, Ask, Query, answer, query, rank
from serving.settings import Settings
from serving.updates import Follower, Updates, read_item, read_update
from stream import topics
from stream.admin import partitions_of
from stream.errors import BrokerError
from stream.events import TimeLimits, User
from stream.producer import Producer

POPULAR_EVERY_S: Final = 2.0
RELEASES_EVERY_S: Final = 1.0
BATCH: Final = 32

log = logging.getLogger("coldstream.api")


class Refused(msgspec.Struct, frozen=True):
    """A release that the API would not load."""

    release: str
    reason: str
    detail: str


class Service:
    """One API process. `start` begins everything and returns at once; `ready` says what is still missing."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.limits = TimeLimits(max_future_ms=settings.max_future_ms)
        self.rules = Rules(history_length=settings.history_length, late_ms=settings.late_ms)
        self.domains = {name: Domain() for name in settings.domain_names}
        self.updates = Updates()
        self.producer = Producer(settings.bootstrap, settings.kafka_security)
        self.store: Any = None
        self.refused: dict[str, Refused] = {}
        self.missing: dict[str, str] = {"store": "opening", "broker": "connecting", "catalogue": "reading"}
        self._waiting: asyncio.Queue[tuple[Aligned, Query, asyncio.Future[list[tuple[str, float]]]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "rank")
        self._background = ThreadPoolExecutor(2, "background")
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def root(self) -> Any:
        return self.settings.state_path / "releases"

    async def start(self) -> None:
        """Begin the background tasks."""
        work: list[Coroutine[Any, Any, None]] = [
            self._open_store(),
            self._connect(),
            self._follow_items(),
            self._follow_updates(),
            self._watch_releases(),
            self._watch_popularity(),
            self._rank_waiting(),
        ]
        self._tasks = [asyncio.create_task(one) for one in work]

    async def stop(self) -> None:
        """End the background tasks; what was accepted is sent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.producer.stop()
        self._thread.shutdown()
        self._background.shutdown()
        if self.store is not None:
            self.store.close()

    async def recommend(self, user_id: str, ask: Ask) -> Answer:
        """A user's list from the features of this moment. Raises StoreError where the store is away."""
        started = time.perf_counter()
        state = self.read_activity(ask.domain, user_id)
        profile = self.read_profile(ask.domain, user_id) if state is None or not state.recent.items else None
        metrics.lookup_seconds.labels("read").observe(time.perf_counter() - started)
        found = await self.answer(user_id, ask, state, profile)
        metrics.lookup_seconds.labels("total").observe(time.perf_counter() - started)
        return found

    async def answer(self, user_id: str | None, ask: Ask, state: Activity | None, profile: User | None) -> Answer:
        """The list for a state that is already in hand."""
        domain = self.domains[ask.domain]
        one = query(state, ask)
        ranked: list[tuple[str, float]] = []
        if domain.aligned is not None and one.recent.items:
            started = time.perf_counter()
            future: asyncio.Future[list[tuple[str, float]]] = asyncio.get_running_loop().create_future()
            self._waiting.put_nowait((domain.aligned, one, future))
            ranked = await future
            metrics.lookup_seconds.labels("rank").observe(time.perf_counter() - started)
        found = answer(domain, one, ranked, user_id=user_id, state=state, profile=profile)
        metrics.answers.labels(found.reason, ask.domain).inc()
        return found

    def read_activity(self, domain: str, user_id: str) -> Activity | None:
        """The user's features; None for one who has none. Raises StoreError."""
        if self.store is None:
            raise StoreError("the online store is still being opened; try again in a moment")
        try:
            state: Activity | None = self.store.read_activity(domain, user_id)
        except StoreError:
            metrics.store_errors.labels("read").inc()
            raise
        return state

    def read_profile(self, domain: str, user_id: str) -> User | None:
        """The user's profile. Raises StoreError."""
        if self.store is None:
            raise StoreError("the online store is still being opened; try again in a moment")
        profile: User | None = self.store.read_profile(domain, user_id)
        return profile

    async def _rank_waiting(self) -> None:
        """Rank whatever waits, together: one pass over the item matrix serves a whole batch. Nothing waits for a batch."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            groups: dict[int, list[Any]] = {}
            for one in batch:
                groups.setdefault(id(one[0]), []).append(one)
            for group in groups.values():
                queries = [one[1] for one in group]
                try:
                    ranked = await loop.run_in_executor(self._thread, rank, group[0][0], queries)
                except Exception as error:  # whatever went wrong belongs to these look-ups, not to this task
                    for _, _, future in group:
                        if not future.done():
                            future.set_exception(error)
                    continue
                for (_, _, future), found in zip(group, ranked, strict=True):
                    if not future.done():
                        future.set_result(found)

    async def _open_store(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                self.store = await loop.run_in_executor(self._background, self._open)
            except StoreError as error:
                self.missing["store"] = str(error)
                await asyncio.sleep(0.5)
            else:
                self.missing.pop("store", None)
                return

    def _open(self) -> Any:
        from features.store import open_store  # Feast takes seconds to import: the rest starts meanwhile

        return open_store(self.settings.state_path / "feast", self.settings.store, self.settings.domain_names)

    async def _connect(self) -> None:
        while True:
            try:
                await self.producer.start()
            except BrokerError as error:
                self.missing["broker"] = str(error)
                await asyncio.sleep(0.5)
            else:
                self.missing.pop("broker", None)
                return

    async def _follow_items(self) -> None:
        follower = self._follower(topics.ITEMS, self._take_item, from_start=True)
        task = asyncio.create_task(follower.run())
        try:
            await follower.caught_up.wait()
            self.missing.pop("catalogue", None)
            await task
        finally:
            task.cancel()

    async def _follow_updates(self) -> None:
        await self._follower(topics.FEATURE_UPDATES, self._take_update, from_start=False).run()

    def _follower(self, topic: str, take: Any, *, from_start: bool) -> Follower:
        return Follower(self.settings.bootstrap, self.settings.kafka_security, topic, take, from_start=from_start)

    def _take_item(self, key: bytes | None, value: bytes | None) -> None:
        if value is None:
            name, _, item_id = (key or b"").decode("utf-8", "replace").partition("/")
            if name in self.domains:
                self.domains[name].remove(item_id)
            return
        item = read_item(value)
        if item is not None and item.domain in self.domains:
            self.domains[item.domain].put([item])

    def _take_update(self, _key: bytes | None, value: bytes | None) -> None:
        update = read_update(value)
        if update is not None:
            self.updates.hear(update)

    async def _watch_releases(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for name, domain in self.domains.items():
                try:
                    wanted = releases.current_id(self.root, name)
                    serving = domain.aligned.release.id if domain.aligned is not None else None
                    if wanted is not None and wanted != serving and wanted not in self.refused:
                        loaded = await loop.run_in_executor(self._background, releases.load, self.root / name / wanted)
                        domain.align(loaded)
                        self._tell(name, loaded)
                except ReleaseError as error:
                    self._refuse(name, releases.current_id(self.root, name) or "?", error)
            await asyncio.sleep(RELEASES_EVERY_S)

    def _tell(self, name: str, loaded: releases.Release) -> None:
        manifest = loaded.manifest
        log.info("%s: release %s (%s) serves %d items", name, loaded.id, manifest.recommender, manifest.items)
        for labels in list(metrics.release_info._metrics):
            if labels[0] == name:
                metrics.release_info.remove(*labels)
        metrics.release_info.labels(name, loaded.id).set(1)
        metrics.release_created.labels(name).set(manifest.created_at / 1000)
        for metric, value in manifest.metrics.items():
            metrics.release_quality.labels(name, metric).set(value)

    def _refuse(self, name: str, release: str, error: ReleaseError) -> None:
        if release not in self.refused:
            log.error("%s: release %s is refused (%s): %s", name, release, error.reason, error.detail)
            metrics.release_refused.labels(error.reason).inc()
            self.refused[release] = Refused(release, error.reason, error.detail)

    async def _watch_popularity(self) -> None:
        loop = asyncio.get_running_loop()
        partitions = 0
        while True:
            await asyncio.sleep(0.1 if self.store is None else POPULAR_EVERY_S)
            try:
                if not partitions:
                    partitions = await loop.run_in_executor(self._background, self._partitions)
                if self.store is not None and partitions:
                    names = [f"{popularity.TOP}{topics.EVENTS}/{one}" for one in range(partitions)]
                    rows = await loop.run_in_executor(self._background, self.store.read_popularity, names)
                    total = popularity.merge(rows.values())
                    for name, domain in self.domains.items():
                        domain.set_popular(total, name)
            except (StoreError, BrokerError) as error:
                log.warning("popularity is not refreshed: %s", error)

    def _partitions(self) -> int:
        return partitions_of(self.settings.bootstrap, self.settings.kafka_security, topics.EVENTS)
