"""Look-ups in their own thread: read the features, rank, write the answer. What waits is served together.

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
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from features.activity import Activity
from features.errors import StoreError
from models.data.profiles import Attributes, attributes_of
from serving import metrics
from serving.catalogue.domain import Aligned, Domain
from serving.recommend.pipeline import Answer, Ask, Query, answer, best, personal, query, score
from serving.rollout.arms import Beside

if TYPE_CHECKING:  # importing Feast takes seconds; the store comes when it is open
    from features.store import OnlineStore
    from serving.recommend.shadow import Shadow

BATCH: Final = 32
LABELLED: Final = 100
NOT_OPEN: Final = "the online store is still being opened; try again in a moment"

T = TypeVar("T")
log = logging.getLogger("coldstream.api")
_encode = msgspec.json.Encoder().encode
_stages = {stage: metrics.lookup_seconds.labels(stage) for stage in ("read", "encode", "rank", "total")}


class Found(msgspec.Struct, frozen=True):
    """An answer, and its JSON."""

    answer: Answer
    body: bytes


class Lookup:
    """One look-up on its way. `state` is given for a visitor whose events came with the request.

    `home` is its domain as the release that answers sees it.
    """

    __slots__ = (
        "ask",
        "failed",
        "future",
        "home",
        "profile",
        "query",
        "ranked",
        "request_id",
        "started",
        "state",
        "user_id",
    )
    home: Domain

    def __init__(self, ask: Ask, user_id: str | None, state: Activity | None, future: asyncio.Future[Found]) -> None:
        self.ask = ask
        self.user_id = user_id
        self.state = state
        self.profile: Attributes | None = None
        self.future = future
        self.started = time.perf_counter()
        self.request_id = f"{getrandbits(64):016x}"
        self.query: Query | None = None
        self.ranked: list[tuple[str, float]] = []
        self.failed: Exception | None = None


class Call:
    """Anything else that wants the store: run in the same thread, in turn."""

    __slots__ = ("call", "future")

    def __init__(self, call: Callable[["OnlineStore"], Any], future: asyncio.Future[Any]) -> None:
        self.call = call
        self.future = future


class Lookups:
    """Answers look-ups from the domains' current state and the store. `start` and `stop` on the event loop."""

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self.store: OnlineStore | None = None
        self.shadow: Shadow | None = None
        self._domains = domains
        self._labelled: set[str] = set()
        self._queue: SimpleQueue[Lookup | Call | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="lookups", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """Answer what waits, then end."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def of_user(self, user_id: str, ask: Ask) -> Found:
        """A user's list, from the features of this moment. Raises StoreError."""
        return await self._ask(Lookup(ask, user_id, None, self._loop.create_future()))

    async def of_state(self, state: Activity, ask: Ask, profile: Attributes | None = None) -> Found:
        """The list for a state, and a profile, that are already in hand."""
        lookup = Lookup(ask, None, state, self._loop.create_future())
        lookup.profile = profile
        return await self._ask(lookup)

    async def call(self, call: Callable[["OnlineStore"], T]) -> T:
        """What `call` makes of the store. Raises StoreError."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(Call(call, future))
        return await future

    async def _ask(self, lookup: Lookup) -> Found:
        self._queue.put(lookup)
        return await lookup.future

    def _work(self) -> None:
        while True:
            waiting, ended = self._waiting()
            lookups = [one for one in waiting if isinstance(one, Lookup)]
            if lookups:
                self._serve(lookups)
            for one in waiting:
                if isinstance(one, Call):
                    self._run(one)
            if ended:
                return

    def _waiting(self) -> tuple[list[Lookup | Call], bool]:
        """Whatever waits, at least one, at most a batch; and whether `stop` was called."""
        found: list[Lookup | Call] = []
        one = self._queue.get()
        while one is not None:
            found.append(one)
            if len(found) == BATCH:
                return found, False
            try:
                one = self._queue.get_nowait()
            except Empty:
                return found, False
        return found, True

    def _run(self, one: Call) -> None:
        try:
            result, error = one.call(self._opened()), None
        except Exception as raised:  # it belongs to the one who called
            result, error = None, raised
        self._settle([(one.future, result, error)])

    def _serve(self, lookups: list[Lookup]) -> None:
        self._read([one for one in lookups if one.user_id is not None])
        now_ms = int(time.time() * 1000)
        by_release: dict[int, tuple[Aligned, list[Lookup]]] = {}
        for one in lookups:
            home = one.home = self._home(one)
            segment = home.segments.get(one.user_id) if one.user_id is not None else None
            who = one.user_id or one.request_id
            known: dict[str, Any] = {"segment": segment, "who": who, "profile": one.profile}
            one.query = query(one.state, one.ask, home.habits, now_ms, **known)
            aligned = home.aligned
            if aligned is not None and one.failed is None and personal(aligned, one.query):
                by_release.setdefault(id(aligned), (aligned, []))[1].append(one)
        for aligned, group in by_release.values():
            _rank(aligned, group)
        results = [(one.future, *self._answer(one)) for one in lookups]
        self._settle(results)
        if self.shadow is not None:
            for one, (_, found, _) in zip(lookups, results, strict=True):
                if found is not None and (trial := one.home.trial) is not None and trial.shadow is not None:
                    asked_at = int(1000 * (time.time() - time.perf_counter() + one.started))
                    self.shadow.offer(trial.shadow, found.answer, asked_at, partial(_computed, one, trial.shadow.home))

    def _home(self, one: Lookup) -> Domain:
        """The domain, as the release that answers this user sees it."""
        domain = self._domains[one.ask.domain]
        if domain.trial is None:
            return domain
        return domain.trial.home_of(one.user_id) or domain

    def _read(self, lookups: Sequence[Lookup]) -> None:
        started = time.perf_counter()
        try:
            store = self._opened() if lookups else None
            found = store.read_activities({(one.ask.domain, one.user_id or "") for one in lookups}) if store else {}
            asked = {
                (one.ask.domain, one.user_id or "") for one in lookups if self._domains[one.ask.domain].reads_profiles
            }
            people = store.read_profiles(asked) if store and asked else {}
        except Exception as error:
            metrics.store_errors.labels("read").inc()
            for one in lookups:
                one.failed = error
            return
        for one in lookups:
            one.state = found.get((one.ask.domain, one.user_id or ""))
            person = people.get((one.ask.domain, one.user_id or ""))
            one.profile = attributes_of(person) if person is not None else None
        _stages["read"].observe(time.perf_counter() - started)

    def _opened(self) -> "OnlineStore":
        if self.store is None:
            raise StoreError(NOT_OPEN)
        return self.store

    def _answer(self, one: Lookup) -> tuple[Found | None, Exception | None]:
        if one.failed is not None:
            return None, one.failed
        try:
            made = _made(one)
        except Exception as error:
            if not isinstance(one.home, Beside):  # it belongs to this look-up; the others of the batch are answered
                return None, error
            _leave(one, error)
            _rank_again([one])
            return self._answer(one)
        if (trial := one.home.trial) is not None:
            trial.answered(one.home, 1)
        metrics.answers.labels(made.reason, made.domain).inc()
        if not one.ask.plain or made.applied:
            self._count(made)
        _stages["total"].observe(time.perf_counter() - one.started)
        return Found(made, _encode(made)), None

    def _count(self, made: Answer) -> None:
        """What rules, exploration and floors did. Labels are bounded: rules after the first hundred are one."""
        for rule in made.applied:
            if rule not in self._labelled and len(self._labelled) < LABELLED:
                self._labelled.add(rule)
            metrics.rules_applied.labels(rule if rule in self._labelled else "other").inc()
        metrics.explored.labels(made.domain).inc(sum(one.reason == "explored" for one in made.items))
        for floor in made.unmet:
            metrics.unmet.labels(made.domain, floor).inc()

    def _settle(self, results: list[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
        try:
            self._loop.call_soon_threadsafe(_resolve, results)
        except RuntimeError:  # the loop has closed: nobody waits any more
            log.debug("%d answers came after the end", len(results))


def _made(one: Lookup) -> Answer:
    assert one.query is not None
    return answer(
        one.home,
        one.query,
        one.ranked,
        request_id=one.request_id,
        user_id=one.user_id,
        state=one.state if one.user_id is not None else None,
        segment=one.query.segment,
    )


def _rank(aligned: Aligned, group: list[Lookup]) -> None:
    home = group[0].home
    try:
        encoded, ranked = _ranked(aligned, group)
    except Exception as error:
        if isinstance(home, Beside):  # a canary that fails costs time, never an answer
            for one in group:
                _leave(one, error)
            _rank_again(group)
            return
        if home.trial is not None:
            home.trial.failed(home, len(group))
        for one in group:
            one.failed = error
        return
    if home.trial is not None:
        home.trial.ranked(home, encoded + ranked)
    _stages["encode"].observe(encoded)
    _stages["rank"].observe(ranked)


def _ranked(aligned: Aligned, group: list[Lookup]) -> tuple[float, float]:
    """Rank a group by one release; the seconds that encoding and ranking took."""
    started = time.perf_counter()
    queries = [one.query for one in group if one.query is not None]
    scores = score(aligned, queries)
    scored = time.perf_counter()
    for one, ranked in zip(group, best(aligned, queries, scores), strict=True):
        one.ranked = ranked
    return scored - started, time.perf_counter() - scored


def _leave(one: Lookup, error: Exception) -> None:
    """Give a look-up back to the serving release, and hold it against the canary."""
    assert isinstance(one.home, Beside)
    trial = one.home.trial
    if trial is not None and trial.canary is not None:
        if not trial.canary.figures.errors:  # the first says it, the metric counts them
            log.warning("%s: the canary fails (%s); the serving release answers", one.ask.domain, error)
        trial.failed(one.home, 1)
    one.home, one.ranked = one.home.domain, []


def _rank_again(group: list[Lookup]) -> None:
    aligned = group[0].home.aligned
    known = [one for one in group if aligned is not None and one.query is not None and personal(aligned, one.query)]
    if aligned is not None and known:
        _rank(aligned, known)


def _computed(one: Lookup, home: Domain) -> Answer:
    """What another release of the domain would have answered. Runs in the shadow's thread."""
    other = Lookup(one.ask, one.user_id, one.state, one.future)
    other.home, other.query, other.request_id = home, one.query, one.request_id
    if home.aligned is not None and one.query is not None and personal(home.aligned, one.query):
        _ranked(home.aligned, [other])
    return _made(other)


def _resolve(results: list[tuple[asyncio.Future[Any], Any, Exception | None]]) -> None:
    for future, result, error in results:
        if future.done():  # the client has gone away
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
