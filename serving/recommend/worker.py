"""Look-ups in their own thread: read the features, rank, write the answer. Waiting look-ups are served in one batch.

One thread does all of it, so a store that is slow or away never stops the event loop, and the look-ups that came in
while one batch was computed share the next pass over the item matrix. Nothing waits for a batch to fill.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from random import getrandbits
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

from features.activity import Activity
from features.errors import StoreError
from models.data.profiles import Profile, profile_of
from serving import metrics
from serving.catalogue.domain_state import DomainState
from serving.catalogue.release_view import ReleaseView
from serving.recommend.answer import Answer
from serving.recommend.pipeline import answer
from serving.recommend.request import LookupRequest, Prepared, Ranked, prepare
from serving.recommend.scoring import can_personalize, score_items, top_candidates
from serving.rollout.arms import ActiveRollout, ArmCounters, LoadedArm
from serving.store_health import StoreHealth

if TYPE_CHECKING:  # importing Feast takes seconds; the store comes when it is open
    from features.store import OnlineStore
    from serving.recommend.shadow import Shadow

MAX_BATCH: Final = 32
MAX_RULE_LABELS: Final = 100
NOT_OPEN: Final = "the online store is still being opened; try again in a moment"

T = TypeVar("T")
Outcome = tuple[asyncio.Future[Any], Any, Exception | None]
"""A future with its result, or with its error."""

log = logging.getLogger("coldstream.api")
_encode = msgspec.json.Encoder().encode
_stages = {stage: metrics.lookup_seconds.labels(stage) for stage in ("read", "encode", "rank", "total")}


class EncodedAnswer(msgspec.Struct, frozen=True):
    """An answer, and its JSON."""

    answer: Answer
    body: bytes


class LookupFeatures(NamedTuple):
    """What is known of a user, or of a visitor whose events came with the request."""

    activity: Activity | None = None
    profile: Profile | None = None


class Pending:
    """A look-up that waits for its answer. `features` are given for a visitor, and read from the store for a user."""

    __slots__ = ("features", "future", "request", "request_id", "started", "user_id")

    def __init__(
        self,
        request: LookupRequest,
        future: asyncio.Future[EncodedAnswer],
        user_id: str | None = None,
        features: LookupFeatures | None = None,
    ) -> None:
        self.request = request
        self.future = future
        self.user_id = user_id
        self.features = features
        self.started = time.perf_counter()
        self.request_id = f"{getrandbits(64):016x}"

    @property
    def key(self) -> tuple[str, str]:
        """The domain and the user."""
        return self.request.domain, self.user_id or ""


class StoreCall:
    """Any other call that needs the store: it runs in the same thread, in turn."""

    __slots__ = ("call", "future")

    def __init__(self, call: Callable[["OnlineStore"], Any], future: asyncio.Future[Any]) -> None:
        self.call = call
        self.future = future


class Lookups:
    """Answers look-ups from the domains' current state and the store. `start` and `stop` on the event loop.

    `rollouts` are those in memory, by domain.
    """

    def __init__(self, domains: Mapping[str, DomainState], rollouts: Mapping[str, ActiveRollout] | None = None) -> None:
        self.store: OnlineStore | None = None
        self.not_open = NOT_OPEN
        self.store_health = StoreHealth()
        self.shadow: Shadow | None = None
        self._domains = domains
        self._rollouts = rollouts if rollouts is not None else {}
        self._labelled: set[str] = set()
        self._queue: SimpleQueue[Pending | StoreCall | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="lookups", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Answer what waits, then end the thread."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def of_user(self, user_id: str, request: LookupRequest) -> EncodedAnswer:
        """A user's list, from the features of this moment. Raises StoreError."""
        return await self._submit(Pending(request, self._loop.create_future(), user_id))

    async def of_visitor(
        self, activity: Activity, request: LookupRequest, profile: Profile | None = None
    ) -> EncodedAnswer:
        """The list for features that came with the request."""
        features = LookupFeatures(activity, profile)
        return await self._submit(Pending(request, self._loop.create_future(), None, features))

    async def call(self, call: Callable[["OnlineStore"], T]) -> T:
        """The result of `call` on the store. Raises StoreError."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(StoreCall(call, future))
        return await future

    async def _submit(self, lookup: Pending) -> EncodedAnswer:
        self._queue.put(lookup)
        return await lookup.future

    def _work(self) -> None:
        while True:
            waiting, ended = self._next_batch()
            lookups = [entry for entry in waiting if isinstance(entry, Pending)]
            if lookups:
                self._serve(lookups)
            for entry in waiting:
                if isinstance(entry, StoreCall):
                    self._run(entry)
            if ended:
                return

    def _next_batch(self) -> tuple[list[Pending | StoreCall], bool]:
        """Whatever waits, at least one entry, at most a batch; and whether `stop` was called."""
        batch: list[Pending | StoreCall] = []
        entry = self._queue.get()
        while entry is not None:
            batch.append(entry)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _run(self, entry: StoreCall) -> None:
        try:
            result, error = entry.call(self._opened()), None
        except Exception as raised:  # it belongs to the caller
            result, error = None, raised
            if self.store is not None and isinstance(raised, StoreError):
                self.store_health.count_error(raised, "read")
        self._resolve([(entry.future, result, error)])

    def _serve(self, lookups: list[Pending]) -> None:
        read, failure = self._read([lookup for lookup in lookups if lookup.features is None])
        now_ms = int(time.time() * 1000)
        prepared: list[Prepared | Exception] = []
        for lookup in lookups:
            features = lookup.features if lookup.features is not None else read.get(lookup.key, LookupFeatures())
            failed = failure if lookup.features is None else None
            prepared.append(failed or self._prepare(lookup, features, now_ms))
        ranked = self._rank(prepared)
        outcomes = [(lookup.future, *self._answer(lookup, each)) for lookup, each in zip(lookups, ranked, strict=True)]
        self._resolve(outcomes)
        if self.shadow is not None and self._rollouts:
            for lookup, each, (_, encoded, _) in zip(lookups, prepared, outcomes, strict=True):
                if encoded is not None and isinstance(each, Prepared):
                    self._offer(self.shadow, lookup, each, encoded.answer)

    def _prepare(self, lookup: Pending, features: LookupFeatures, now_ms: int) -> Prepared:
        """The look-up with its features, and the view of the release that answers this user."""
        name, user_id = lookup.request.domain, lookup.user_id
        state, rollout = self._domains[name], self._rollouts.get(name)
        canary = rollout.canary_for(user_id) if rollout is not None else None
        return prepare(
            lookup.request,
            canary.view if canary is not None else state.view,
            features.activity,
            now_ms=now_ms,
            user_id=user_id,
            request_id=lookup.request_id,
            segment=state.domain.segments.get(user_id) if user_id is not None else None,
            profile=features.profile,
            arm="canary" if canary is not None else "serving",
        )

    def _read(self, lookups: Sequence[Pending]) -> tuple[dict[tuple[str, str], LookupFeatures], Exception | None]:
        """The features of users by domain and user, or why they cannot be read."""
        started = time.perf_counter()
        keys = {lookup.key for lookup in lookups}
        try:
            store = self._opened() if lookups else None
            activities = store.read_activities(keys) if store else {}
            with_profiles = {key for key in keys if self._domains[key[0]].reads_profiles}
            profiles = store.read_profiles(with_profiles) if store and with_profiles else {}
        except Exception as error:
            if self.store is not None and isinstance(error, StoreError):
                self.store_health.count_error(error, "read")
            return {}, error
        self.store_health.count_calls()
        attributes = {key: profile_of(user) for key, user in profiles.items()}
        _stages["read"].observe(time.perf_counter() - started)
        return {key: LookupFeatures(activities.get(key), attributes.get(key)) for key in keys}, None

    def _opened(self) -> "OnlineStore":
        if self.store is None:
            raise StoreError(self.not_open)
        return self.store

    def _rank(self, lookups: Sequence[Prepared | Exception]) -> list[Ranked | Exception]:
        """Candidates of those look-ups that a release knows something of, ranked together by view."""
        ranked = [each if isinstance(each, Exception) else Ranked(each) for each in lookups]
        groups: dict[int, list[int]] = {}
        for number, each in enumerate(lookups):
            if isinstance(each, Prepared) and can_personalize(each):
                groups.setdefault(id(each.view), []).append(number)
        for numbers in groups.values():
            group = [each for number in numbers if isinstance(each := lookups[number], Prepared)]
            for number, outcome in zip(numbers, self._rank_group(group), strict=True):
                ranked[number] = outcome
        return ranked

    def _rank_group(self, group: list[Prepared]) -> Sequence[Ranked | Exception]:
        """Rank look-ups of one view. A canary that fails costs time, never an answer."""
        counters = self._counters(group[0])
        try:
            ranked, encoding_s, ranking_s = _ranked(group)
        except Exception as error:
            if group[0].arm == "canary":
                return self._rank([self._give_up_canary(lookup, error) for lookup in group])
            if counters is not None:
                counters.count_errors(len(group))
            return [error] * len(group)
        if counters is not None:
            counters.observe(encoding_s + ranking_s)
        _stages["encode"].observe(encoding_s)
        _stages["rank"].observe(ranking_s)
        return ranked

    def _answer(self, lookup: Pending, ranked: Ranked | Exception) -> tuple[EncodedAnswer | None, Exception | None]:
        if isinstance(ranked, Exception):
            return None, ranked
        try:
            whole = answer(ranked)
        except Exception as error:
            if ranked.prepared.arm != "canary":  # the other look-ups of the batch are answered
                return None, error
            (again,) = self._rank([self._give_up_canary(ranked.prepared, error)])
            return self._answer(lookup, again)
        counters = self._counters(ranked.prepared)
        if counters is not None:
            counters.count_answers(1)
        metrics.recommendations.labels(whole.reason, whole.domain).inc()
        if not lookup.request.plain or whole.applied:
            self._count(whole)
        _stages["total"].observe(time.perf_counter() - lookup.started)
        return EncodedAnswer(whole, _encode(whole)), None

    def _counters(self, lookup: Prepared) -> ArmCounters | None:
        """Where the look-up's answer counts, if its domain has a rollout."""
        rollout = self._rollouts.get(lookup.request.domain)
        return rollout.counters_of(lookup.arm) if rollout is not None else None

    def _give_up_canary(self, lookup: Prepared, error: Exception) -> Prepared:
        """Move a look-up to the serving release, and count the canary's error."""
        name = lookup.request.domain
        rollout = self._rollouts.get(name)
        if rollout is not None and rollout.canary is not None:
            if not rollout.canary.counters.errors:  # the first is logged, the metric counts them
                log.warning("%s: the canary fails (%s); the serving release answers", name, error)
            rollout.canary.counters.count_errors(1)
        return msgspec.structs.replace(lookup, view=self._domains[name].view, arm="serving")

    def _offer(self, shadow: "Shadow", lookup: Pending, prepared: Prepared, shown: Answer) -> None:
        rollout = self._rollouts.get(lookup.request.domain)
        if rollout is not None and rollout.shadow is not None:
            requested_at = int(1000 * (time.time() - time.perf_counter() + lookup.started))
            shadow.offer(rollout.shadow, shown, requested_at, partial(_shadow_answer, prepared, rollout.shadow))

    def _count(self, whole: Answer) -> None:
        """Count the effects of rules, exploration and limits. Labels are bounded: later rules share one."""
        for rule in whole.applied:
            if rule not in self._labelled and len(self._labelled) < MAX_RULE_LABELS:
                self._labelled.add(rule)
            metrics.rules_applied.labels(rule if rule in self._labelled else "other").inc()
        metrics.explored_items.labels(whole.domain).inc(sum(item.reason == "explored" for item in whole.items))
        for limit in whole.unmet:
            metrics.category_floor_unmet.labels(whole.domain, limit).inc()

    def _resolve(self, outcomes: list[Outcome]) -> None:
        try:
            self._loop.call_soon_threadsafe(_resolve, outcomes)
        except RuntimeError:  # the loop has closed: nobody waits any more
            log.debug("%d answers came after the end", len(outcomes))


def _ranked(group: Sequence[Prepared]) -> tuple[list[Ranked], float, float]:
    """Look-ups of one release's view, ranked; the seconds that encoding and ranking took."""
    view = group[0].view
    assert isinstance(view, ReleaseView), "only a release personalizes"
    started = time.perf_counter()
    scores = score_items(view, group)
    scored = time.perf_counter()
    candidates = top_candidates(view, group, scores)
    ranked = [Ranked(*pair) for pair in zip(group, candidates, strict=True)]
    return ranked, scored - started, time.perf_counter() - scored


def _shadow_answer(prepared: Prepared, arm: LoadedArm) -> Answer:
    """The answer that the shadow's release would have given. Runs in the shadow's thread."""
    lookup = msgspec.structs.replace(prepared, view=arm.view, arm="shadow")
    ranked = Ranked(lookup)
    if can_personalize(lookup):
        ((ranked,), _, _) = _ranked([lookup])
    return answer(ranked)


def _resolve(outcomes: list[Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():  # the client has disconnected
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
