"""A user's state in one domain, and how events change it. Pure: state and events in, state out.

The fold is sequential in log order, event by event, so other batches of the same log give the same bytes. An event is
idempotent: one at or before the last applied position of its partition changes nothing, and one whose id is among the
recent ids changes the position only.

A backfilled event (an import of the past) takes its place in time whatever its age: it enters the counts, weighted by
its age, and the history, if it is among the newest. Sessions and the limit on late events are about live events.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from features.decay import landmark_of, rescale, weight
from stream.events import KIND_CODES, KINDS, Event, Impression, Interaction, Search
from stream.log_epochs import FIRST_EPOCH, LogEpochs

DAY_MS: Final = 24 * 60 * 60 * 1000
NEGATIVE_KINDS: Final = frozenset({"dislike", "hide"})
"""After an event of one of these kinds the item is no longer recommended."""
POSITIVE_KINDS: Final = frozenset({"view", "click", "cart", "purchase", "play", "rate", "like", "read", "save"})
"""A later event of one of these kinds makes an unwanted item eligible again."""


class FoldSettings(msgspec.Struct, frozen=True):
    """How much a state keeps, and for how long it counts. A change requires `coldstream features rebuild`.

    `late_ms`: a live event older than the user's newest by more than this enters neither the history nor the counts.
    """

    history_length: int = 50
    event_ids: int = 64
    half_life_ms: int = 14 * DAY_MS
    session_gap_ms: int = 30 * 60 * 1000
    late_ms: int = 30 * DAY_MS
    categories: int = 32
    queries: int = 10
    unwanted: int = 200


class History(msgspec.Struct):
    """The newest interactions, oldest first: four columns of one length, at most `history_length`."""

    items: list[str] = []
    kinds: list[int] = []
    times: list[int] = []
    values: list[float | None] = []


class Session(msgspec.Struct):
    """The current session; times are epoch ms."""

    id: str | None = None
    started_at: int = 0
    last_at: int = 0
    events: int = 0


class ActivitySummary(msgspec.Struct):
    """Counts and times. `kinds` and `categories` are decayed sums at `landmark` (see `features.decay`)."""

    first_seen: int = 0
    last_seen: int = 0
    landmark: int = 0
    kinds: dict[str, float] = {}
    categories: dict[str, float] = {}
    totals: dict[str, int] = {}
    session: Session = msgspec.field(default_factory=Session)
    queries: list[str] = []
    late: int = 0


class Deduplication(msgspec.Struct):
    """What makes events idempotent: the last position by partition, and 64-bit digests of recent event ids.

    Ids of backfilled events have a list of their own: a long import must not push out the ids of live events, which
    may be sent again.
    """

    positions: dict[str, int] = {}
    event_ids: list[int] = []
    backfilled_ids: list[int] = []

    def add(self, event_id: str, most: int, *, backfill: bool) -> bool:
        """Remember an event's id, with the newest `most` of its kind; False if it is remembered already."""
        digest = event_digest(event_id)
        if digest in self.event_ids or digest in self.backfilled_ids:
            return False
        digests = self.backfilled_ids if backfill else self.event_ids
        digests.append(digest)
        if len(digests) > most:
            del digests[0]
        return True


class Activity(msgspec.Struct):
    """One user's row: what the feature `state` holds, as JSON.

    `unwanted` maps items that were disliked or hidden, without a positive event since, to the time of that event (epoch
    ms): the newest `FoldSettings.unwanted` of them, including those whose event is no longer in `recent`.
    """

    recent: History = msgspec.field(default_factory=History)
    summary: ActivitySummary = msgspec.field(default_factory=ActivitySummary)
    applied: Deduplication = msgspec.field(default_factory=Deduplication)
    unwanted: dict[str, int] = {}


class LoggedEvent(msgspec.Struct, frozen=True):
    """An event with its position in the log. `partition` is written as topic/partition, such as `events/3`.

    `backfill`: an import sent it (`stream.headers`). `origin`: partition and offset of the original, if a consumer
    forwarded it to its home partition. `logged_at` is the broker's time (epoch ms), where a reader needs it.
    """

    event: Event
    partition: str
    offset: int
    backfill: bool = False
    origin: tuple[str, int] | None = None
    logged_at: int = 0


def apply(state: Activity | None, log: Iterable[LoggedEvent], settings: FoldSettings) -> Activity:
    """The user's state after `log` (one user, one domain, in log order). The given state does not change."""
    after = _copy(state) if state is not None else Activity()
    for entry in log:
        _apply_event(after, entry, settings)
    return after


def apply_batch(
    states: dict[tuple[str, str], Activity],
    log: Sequence[LoggedEvent],
    settings: FoldSettings,
    *,
    in_place: bool = False,
    late: dict[str, int] | None = None,
) -> dict[tuple[str, str], Activity]:
    """The new state of every (domain, user) that has an event in `log`; `states` holds the earlier ones.

    With `in_place` the given states themselves change, which saves copies. Late events are added to `late`, by domain.
    """
    after: dict[tuple[str, str], Activity] = {}
    for entry in log:
        key = (entry.event.domain, entry.event.user_id)
        state = after.get(key)
        if state is None:
            before = states.get(key)
            state = Activity() if before is None else before if in_place else _copy(before)
            after[key] = state
        if _apply_event(state, entry, settings) and late is not None:
            late[key[0]] = late.get(key[0], 0) + 1
    return after


def erased(state: Activity | None, partition: str, offset: int) -> Activity:
    """The state of a user who is deleted by what stands at `offset` of a partition: nothing but positions.

    The positions stay, so that an event from before that is read again still changes nothing. A state that contains
    the position, or a later one, does not change.
    """
    positions = {} if state is None else state.applied.positions
    if state is not None and offset <= positions.get(partition, -1):
        return state
    return Activity(applied=Deduplication(positions=positions | {partition: offset}))


def origin_of(partition: str, forwarded_from: str | None, epochs: LogEpochs = FIRST_EPOCH) -> tuple[str, int] | None:
    """The `origin` of an event in `partition` (`events/1`), of what says where its original stands (`3:17`).

    `epochs`: for the header of a record, which holds an offset.
    """
    if forwarded_from is None:
        return None
    number, _, offset = forwarded_from.partition(":")
    if not (number.isascii() and number.isdigit() and offset.isascii() and offset.isdigit()):
        return None  # not from a consumer of ours
    origin = f"{partition.partition('/')[0]}/{int(number)}"
    return origin, epochs.position(origin, int(offset))


def is_repeat(origin: tuple[str, int], positions: dict[str, int]) -> bool:
    """Whether a forwarded event is in already; if not, its origin becomes the newest position of that partition.

    A consumer forwards a partition in its order, and after a crash again from an earlier offset on.
    """
    partition, offset = origin
    if offset <= positions.get(partition, -1):
        return True
    positions[partition] = offset
    return False


def event_digest(event_id: str) -> int:
    """The 64-bit digest (signed) under which an event id is remembered."""
    return int.from_bytes(blake2b(event_id.encode(), digest_size=8).digest(), "little", signed=True)


def _copy(state: Activity) -> Activity:
    recent, summary, applied = state.recent, state.summary, state.applied
    session = summary.session
    return Activity(
        History(recent.items[:], recent.kinds[:], recent.times[:], recent.values[:]),
        ActivitySummary(
            summary.first_seen,
            summary.last_seen,
            summary.landmark,
            summary.kinds.copy(),
            summary.categories.copy(),
            summary.totals.copy(),
            Session(session.id, session.started_at, session.last_at, session.events),
            summary.queries[:],
            summary.late,
        ),
        Deduplication(applied.positions.copy(), applied.event_ids[:], applied.backfilled_ids[:]),
        state.unwanted.copy(),
    )


def _apply_event(state: Activity, entry: LoggedEvent, settings: FoldSettings) -> bool:
    """Apply one event; True if it was too late."""
    applied = state.applied
    if entry.offset <= applied.positions.get(entry.partition, -1):
        return False
    applied.positions[entry.partition] = entry.offset
    if entry.origin is not None and is_repeat(entry.origin, applied.positions):
        return False
    event = entry.event
    if not applied.add(event.event_id, settings.event_ids, backfill=entry.backfill):
        return False
    summary = state.summary
    if not entry.backfill and summary.totals and event.at < summary.last_seen - settings.late_ms:
        summary.late += 1
        return True
    _count(summary, event, settings)
    if isinstance(event, Interaction):
        if event.kind in NEGATIVE_KINDS or event.item_id in state.unwanted:
            _update_unwanted(state, event, settings.unwanted)
        _insert(state.recent, event, settings.history_length)
    elif isinstance(event, Search):
        summary.queries.append(event.query)
        del summary.queries[: -settings.queries]
    return False


def _count(summary: ActivitySummary, event: Event, settings: FoldSettings) -> None:
    kind = _kind(event)
    if summary.totals:
        summary.first_seen = min(summary.first_seen, event.at)
        summary.last_seen = max(summary.last_seen, event.at)
    else:
        summary.first_seen = summary.last_seen = event.at
    summary.totals[kind] = summary.totals.get(kind, 0) + 1
    _move_landmark(summary, landmark_of(summary.last_seen, settings.half_life_ms))
    added = weight(event.at, summary.landmark, settings.half_life_ms)
    summary.kinds[kind] = summary.kinds.get(kind, 0.0) + added
    if isinstance(event, Interaction) and event.category:
        summary.categories[event.category] = summary.categories.get(event.category, 0.0) + added
        if len(summary.categories) > settings.categories:
            del summary.categories[min(summary.categories, key=lambda name: (summary.categories[name], name))]
    _extend_session(summary.session, event, settings.session_gap_ms)


def _kind(event: Event) -> str:
    if isinstance(event, Interaction):
        return event.kind
    return "impression" if isinstance(event, Impression) else "search"


def _move_landmark(summary: ActivitySummary, landmark: int) -> None:
    old = summary.landmark
    if landmark == old:
        return
    summary.landmark = landmark
    for sums in (summary.kinds, summary.categories):
        for key, total in sums.items():
            sums[key] = rescale(total, old, landmark)


def _extend_session(session: Session, event: Event, gap_ms: int) -> None:
    if event.at < session.started_at:
        return
    named = event.session_id is not None
    same = event.session_id == session.id if named else event.at - session.last_at <= gap_ms
    if session.events and same:
        session.last_at = max(session.last_at, event.at)
        session.events += 1
        return
    if session.events and event.at < session.last_at:
        return
    session.id, session.started_at, session.last_at, session.events = event.session_id, event.at, event.at, 1


def _update_unwanted(state: Activity, event: Interaction, length: int) -> None:
    """Mark an item as unwanted, or no longer so; the newest event by time decides."""
    unwanted = state.unwanted
    if event.kind in POSITIVE_KINDS:
        if event.at >= unwanted[event.item_id]:
            del unwanted[event.item_id]
        return
    if event.kind not in NEGATIVE_KINDS or _has_later_positive(state.recent, event):
        return
    unwanted[event.item_id] = max(event.at, unwanted.get(event.item_id, event.at))
    if len(unwanted) > length:
        del unwanted[min(unwanted, key=lambda item: (unwanted[item], item))]


def _has_later_positive(recent: History, event: Interaction) -> bool:
    rows = zip(recent.items, recent.kinds, recent.times, strict=True)
    return any(item == event.item_id and at > event.at and KINDS[kind] in POSITIVE_KINDS for item, kind, at in rows)


def _insert(recent: History, event: Interaction, length: int) -> None:
    times = recent.times
    place = len(times)
    while place and times[place - 1] > event.at:
        place -= 1
    if place == 0 and len(times) >= length:
        return
    times.insert(place, event.at)
    recent.items.insert(place, event.item_id)
    recent.kinds.insert(place, KIND_CODES[event.kind])
    recent.values.insert(place, event.value)
    if len(times) > length:
        del times[0], recent.items[0], recent.kinds[0], recent.values[0]
