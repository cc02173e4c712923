"""One API process: the state behind the HTTP routes, and the background tasks that keep it current."""

import asyncio
import logging
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from features.activity import Activity, FoldSettings
from features.errors import StoreError
from serving import metrics
from serving.catalogue.domain import Domain, DomainPolicy
from serving.catalogue.domain_state import DomainState
from serving.catalogue.rules_feed import RuleRegistry
from serving.consume.log_guard import LogGuard
from serving.domain_presets import preset_for
from serving.http.background import keep_running
from serving.http.catalogue_feed import CatalogueFeed
from serving.http.consumer_reports import ConsumerReports
from serving.http.live_streams import LiveStreams, StreamLimits
from serving.http.log_check import LogCheck
from serving.http.log_ends import LogEnds
from serving.http.popularity_refresh import PopularityRefresh
from serving.http.problems import Problem
from serving.http.read_your_writes import AppliedOffsets, parse_tokens, wait_until_applied
from serving.http.topic_follower import TopicFollower
from serving.messages import decode_update, encode, release_announcement
from serving.process import memory
from serving.recommend.request import LookupRequest
from serving.recommend.shadow import Shadow
from serving.recommend.worker import EncodedAnswer, Lookups
from serving.rollout.canary import CanaryController, LatestOutcomes, canary_thresholds
from serving.rollout.loader import ReleaseLoader
from serving.settings import Settings
from stream import log_epochs, topics
from stream.errors import BrokerError
from stream.events import TimeLimits
from stream.login_check import check_login
from stream.producer import Position, Producer

if TYPE_CHECKING:
    from features.store import OnlineStore

log = logging.getLogger("coldstream.api")


class Service:
    """The parts of an API process. `start` returns at once: `serving.http.readiness` says when all of it is there."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.time_limits = TimeLimits(max_future_ms=settings.max_future_ms)
        self.fold_settings = FoldSettings(history_length=settings.history_length, late_ms=settings.late_ms)
        self.domains = {
            name: DomainState(Domain(DomainPolicy.of(preset_for(settings, name)), name=name))
            for name in settings.domain_names
        }
        self.applied = AppliedOffsets()
        self.log_guard = LogGuard(settings.bootstrap, settings.kafka_security)
        self.log_ends = LogEnds(settings.bootstrap, settings.kafka_security, self.log_guard)
        self._sent: dict[str, int] = {}
        self.consumers = ConsumerReports()
        self.streams = LiveStreams(
            StreamLimits(settings.max_streams, settings.max_streams_per_address, settings.max_streams_per_user)
        )
        self.closing = asyncio.Event()
        self.connected = False
        self.producer = Producer(settings.bootstrap, settings.kafka_security)
        self._executor = ThreadPoolExecutor(2, "background")
        self.releases = ReleaseLoader(settings.state_path / "releases", self.domains, self._executor, self._on_swap)
        self.lookups = Lookups(self.domains, self.releases.rollouts)
        self.log_check = LogCheck(settings, self.log_guard, self.lookups, self._executor)
        self.lookups.shadow = self.shadow = Shadow(settings.state_path / "shadow", settings.click_window_ms)
        rules_file = Path(settings.rules) if settings.rules else None
        self.rules = RuleRegistry(
            rules_file, self.domains, self._executor, self.applied.advance, self.streams.on_catalogue
        )
        self.outcomes = LatestOutcomes()
        self.canaries = CanaryController(
            self.releases.root,
            self.releases.rollouts,
            self.outcomes,
            canary_thresholds(settings),
            auto=settings.canary_promote == "auto",
            on_end=self._announce_canary_end,
        )
        self.popularity = PopularityRefresh(settings, self.domains, self.lookups, self.applied, self._executor)
        self._follow_topics()
        self._tasks: list[asyncio.Task[None]] = []

    def _follow_topics(self) -> None:
        kafka = (self.settings.bootstrap, self.settings.kafka_security)
        feed = CatalogueFeed(self.domains, self.applied.advance)
        handlers = {
            topics.CATALOGUE: feed.on_item,
            topics.PROFILES: feed.on_user,
            topics.RELEASES: self.releases.on_message,
            topics.RULES: self.rules.on_message,
        }
        self.catalogue_follower = TopicFollower(*kafka, handlers, from_start=True, on_progress=self._on_progress)
        updates = {topics.FEATURE_UPDATES: self._on_feature_update}
        self.updates_follower = TopicFollower(*kafka, updates, from_start=False)
        self.outcomes_follower = TopicFollower(*kafka, {topics.OUTCOMES: self.outcomes.on_message}, from_start=True)

    async def start(self) -> None:
        """Start the look-up threads and the background tasks."""
        self.lookups.start()
        self.shadow.start()
        tasks = {
            "opening the online store": self._open_store,
            "connecting to Kafka": self._connect,
            "checking the log": self.log_check.run,
            "following the catalogue": self.catalogue_follower.run,
            "following feature updates": self.updates_follower.run,
            "loading releases": self.releases.run,
            "applying rules": lambda: self.rules.run(self.catalogue_follower.caught_up),
            "expiring items and rules": self.rules.keep_time,
            "following outcomes": self.outcomes_follower.run,
            "judging canaries": lambda: self.canaries.run(self.outcomes_follower.caught_up),
            "judging shadows": lambda: self.shadow.judge(self._activities),
            "refreshing popularity": self.popularity.run,
        }
        self._tasks = [asyncio.create_task(keep_running(name, work)) for name, work in tasks.items()]

    async def stop(self) -> None:
        """End live streams and background tasks; accepted records are sent, and pending look-ups answered."""
        self.close_streams()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.producer.stop()
        await asyncio.to_thread(self.log_ends.close)
        await asyncio.to_thread(self.log_check.close)
        await self.lookups.stop()
        await self.shadow.stop()
        self._executor.shutdown()
        if self.lookups.store is not None:
            self.lookups.store.close()

    def close_streams(self) -> None:
        """End every live stream: the server waits for its connections when it stops."""
        self.closing.set()
        self.streams.on_release()

    async def recommend(self, user_id: str, request: LookupRequest) -> EncodedAnswer:
        """A user's recommendations from the features of this moment. Raises StoreError."""
        return await self.lookups.of_user(user_id, request)

    async def activity(self, domain: str, user_id: str) -> Activity | None:
        """The user's features; None for an unknown user. Raises StoreError."""
        return await self.lookups.call(lambda store: store.read_activity(domain, user_id))

    async def wait_for_token(self, domain: str, user_id: str, token: str) -> None:
        """Wait until look-ups of this user see what `token` names. Raises Problem, StoreError."""

        async def read_positions() -> dict[str, int]:
            activity = await self.activity(domain, user_id)
            return activity.applied.positions if activity is not None else {}

        unknown = [entry for entry in parse_tokens(token) if not self._is_known(*entry)]
        waiting = wait_until_applied(token, self.applied, read_positions, self.settings.after_timeout_ms)
        if not unknown:
            await waiting
            return
        tasks = [asyncio.ensure_future(waiting), asyncio.ensure_future(self.log_ends.check(unknown))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        applied, checked = tasks
        if not applied.done() and checked.exception() is not None:
            applied.cancel()
            checked.result()
        checked.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody waits for it any more
        await applied

    def check_log(self) -> None:
        """Raise Problem if the log is not the one that the features were made from: what is sent would not count."""
        if self.log_guard.problem:
            raise Problem(503, "log-replaced", self.log_guard.problem)

    def on_sent(self, topic: str, sent: Iterable[Position]) -> list[Position]:
        """The positions of records that this process sent at these offsets: their tokens need no check."""
        positions = []
        for place in sent:
            name = f"{topic}/{place.partition}"
            position = self.log_guard.epochs.position(name, place.offset)
            self._sent[name] = max(position, self._sent.get(name, -1))
            positions.append(Position(place.partition, position))
        return positions

    def _is_known(self, partition: str, offset: int) -> bool:
        return self.applied.contains(partition, offset) or self._sent.get(partition, -1) >= offset

    async def _activities(self, keys: set[tuple[str, str]]) -> dict[tuple[str, str], Activity]:
        return await self.lookups.call(lambda store: store.read_activities(keys))

    async def _announce_canary_end(self, domain: str, action: str) -> None:
        """A canary ended: load the release that now serves, and announce it to the other processes."""
        self.releases.check_now()
        try:
            await self.producer.send_raw([encode(release_announcement(self.releases.root, domain, action))])
        except BrokerError as error:
            log.warning("%s: the end of the canary was not announced (%s); it is in the folder", domain, error)

    async def _open_store(self) -> None:
        try:
            self.lookups.store = await asyncio.get_running_loop().run_in_executor(self._executor, self._opened_store)
        except StoreError as error:
            self.lookups.not_open = str(error)
            raise
        log.info("the online store is open")

    def _opened_store(self) -> "OnlineStore":
        from features.store import open_store  # importing Feast takes seconds: the rest starts meanwhile

        return open_store(self.settings.state_path / "feast", self.settings.store, self.settings.domain_names)

    async def _connect(self) -> None:
        kafka = (self.settings.bootstrap, self.settings.kafka_security)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._executor, check_login, *kafka)
        self.log_guard.epochs = await loop.run_in_executor(self._executor, log_epochs.read, *kafka)
        await self.producer.start()
        self.connected = True

    def _on_swap(self) -> None:
        memory.unfreeze()
        self.streams.on_release()

    def _on_progress(self, partition: str, offset: int) -> None:
        """Rules are visible to look-ups once they are compiled; the catalogue says itself what it contains."""
        if partition.startswith(f"{topics.RULES}/"):
            self.rules.on_progress(partition, offset)
        else:
            self.applied.advance(partition, offset)

    def _on_feature_update(self, _key: bytes | None, value: bytes | None) -> None:
        update = decode_update(value)
        self.consumers.on_update(update)
        if update.logged_at:
            metrics.event_to_recommendation.observe(max(0.0, time.time() - update.logged_at / 1000))
        self.applied.advance_with(update.partition, update.through, update.behind)
        self.streams.on_features(update.users)
