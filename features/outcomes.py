"""What became of lists that were shown: impressions joined with what their users took. Pure: state and events in.

A list is one `Impression`; it is clicked when its user took one of its items within the window, once, however often.
One row per partition, with that partition's position, as popularity has it: a replay changes nothing.
Counts are kept in groups of users (a hash of the user), so that their spread between groups tells how sure they are:
a user's lists are alike, and counting them as independent would promise too much.
"""

from collections import OrderedDict
from collections.abc import Iterable
from sys import intern
from typing import Final
from zlib import crc32

import msgspec

from features.activity import LoggedEvent
from stream.events import Impression, Interaction

GROUPS: Final = 50
CLICK_KINDS: Final = frozenset({"click", "play", "purchase", "read"})
"""Kinds of interaction by which a user takes an item that was shown."""
HOUR_MS: Final = 60 * 60 * 1000
HOURS: Final = 48
RELEASES: Final = 30
"""Releases of a domain that are counted; a new one takes the place of one that was not shown for a day."""
SLACK_MS: Final = 5 * 60 * 1000
"""Events may be this far ahead of their time: a list is kept so much longer than the window."""


class JoinWindow(msgspec.Struct, frozen=True):
    """How long after a list a take counts for it; how many lists a partition keeps (the oldest go first)."""

    ms: int = 30 * 60 * 1000
    lists: int = 20_000


class ImpressionCounts(msgspec.Struct):
    """Lists shown and clicked, by group of users; `hours` maps an hour to the pair. Times are epoch ms."""

    impressions: list[int] = msgspec.field(default_factory=lambda: [0] * GROUPS)
    clicks: list[int] = msgspec.field(default_factory=lambda: [0] * GROUPS)
    hours: dict[int, tuple[int, int]] = {}
    last_at: int = 0


class PartitionOutcomes(msgspec.Struct):
    """One partition's row: counts by domain and release of everything through `position`. `clock` is epoch ms."""

    position: int = -1
    clock: int = 0
    counts: dict[str, dict[str, ImpressionCounts]] = {}


class PendingImpression(msgspec.Struct, gc=False):
    """A list that waits for a take. `key` is the answer's request id, or the event's id."""

    key: str
    user_id: str
    domain: str
    release: str
    items: list[str]
    at: int
    taken: bool = False


class BufferDelta(msgspec.Struct, frozen=True):
    """What changed in the waiting lists through a position: the lists that came, and the keys of those clicked."""

    through: int
    shown: list[PendingImpression]
    taken: list[tuple[str, str, str]]


class JoinBuffer:
    """The lists of one partition that may still be clicked, oldest first; `changes` tells what is new."""

    def __init__(self, window: JoinWindow) -> None:
        self.window = window
        self.forgotten = 0
        self._lists: OrderedDict[tuple[str, str, str], PendingImpression] = OrderedDict()
        self._by_user: dict[tuple[str, str], list[PendingImpression]] = {}
        self._new: list[PendingImpression] = []
        self._taken: list[tuple[str, str, str]] = []

    def __len__(self) -> int:
        return len(self._lists)

    def add(self, shown: PendingImpression) -> bool:
        """Take in a list; False where its key waits already (it was sent twice)."""
        key = (shown.domain, shown.user_id, shown.key)
        if key in self._lists:
            return False
        self._lists[key] = shown
        self._by_user.setdefault((shown.domain, shown.user_id), []).append(shown)
        self._new.append(shown)
        while len(self._lists) > self.window.lists:
            self.forgotten += 1
            self._drop()
        return True

    def take(self, event: Interaction) -> PendingImpression | None:
        """The list that an interaction clicks: the one it names, else the newest that showed the item. Once each."""
        mine = self._by_user.get((event.domain, event.user_id))
        if mine is None:
            return None
        named = event.context.get("request_id")
        for one in reversed(mine):
            fits = event.item_id in one.items and 0 <= event.at - one.at <= self.window.ms
            if fits and (named is None or named == one.key):
                return None if one.taken else self._mark(one)
        return None

    def expire(self, clock: int) -> None:
        """Let go of lists that nothing can click any more."""
        before = clock - self.window.ms - SLACK_MS
        while self._lists and next(iter(self._lists.values())).at < before:
            self._drop()

    def changes(self, through: int, most: int = 2_000) -> list[BufferDelta]:
        """What changed since the last call, cut so that each fits a message."""
        new, taken = self._new, self._taken
        self._new, self._taken = [], []
        starts = range(0, max(len(new), len(taken)), most)
        return [BufferDelta(through, new[at : at + most], taken[at : at + most]) for at in starts]

    def follow(self, delta: BufferDelta) -> None:
        """Take in what `changes` told before a restart."""
        for shown in delta.shown:
            self.add(shown)
        for key in delta.taken:
            if key in self._lists:
                self._lists[key].taken = True
        self._new, self._taken = [], []

    def _mark(self, one: PendingImpression) -> PendingImpression:
        one.taken = True
        self._taken.append((one.domain, one.user_id, one.key))
        return one

    def _drop(self) -> None:
        (domain, user_id, _), oldest = self._lists.popitem(last=False)
        mine = self._by_user[domain, user_id]
        mine.remove(oldest)
        if not mine:
            del self._by_user[domain, user_id]


def apply(row: PartitionOutcomes, waiting: JoinBuffer, log: Iterable[LoggedEvent]) -> None:
    """Fold `log` (one partition, in log order) into a partition's row and its waiting lists, in place."""
    for entry in log:
        if entry.offset <= row.position:
            continue
        row.position = entry.offset
        event = entry.event
        if isinstance(event, Interaction):
            if waiting and event.kind in CLICK_KINDS and (clicked := waiting.take(event)) is not None:
                _count(row, clicked, 0, 1)
        elif isinstance(event, Impression) and event.release is not None:
            key = event.request_id or event.event_id
            items = [intern(item) for item in event.item_ids]  # popular ones stand in many lists
            shown = PendingImpression(key, event.user_id, event.domain, event.release, items, event.at)
            row.clock = max(row.clock, event.at)
            waiting.expire(row.clock)
            if waiting.add(shown):
                _count(row, shown, 1, 0)


def merge(rows: Iterable[PartitionOutcomes]) -> dict[str, dict[str, ImpressionCounts]]:
    """The sum over partitions, by domain and release."""
    total: dict[str, dict[str, ImpressionCounts]] = {}
    for row in rows:
        for domain, releases in row.counts.items():
            for release, counts in releases.items():
                into = total.setdefault(domain, {}).setdefault(release, ImpressionCounts())
                total[domain][release] = add(into, counts)
    return total


def add(one: ImpressionCounts, other: ImpressionCounts, sign: int = 1) -> ImpressionCounts:
    """The sum of two counts, or with sign -1 what came since the other; nothing falls below zero."""
    hours = {
        hour: (
            max(0, one.hours.get(hour, (0, 0))[0] + sign * other.hours.get(hour, (0, 0))[0]),
            max(0, one.hours.get(hour, (0, 0))[1] + sign * other.hours.get(hour, (0, 0))[1]),
        )
        for hour in sorted({*one.hours, *other.hours})
    }
    return ImpressionCounts(
        [max(0, a + sign * b) for a, b in zip(one.impressions, other.impressions, strict=True)],
        [max(0, a + sign * b) for a, b in zip(one.clicks, other.clicks, strict=True)],
        hours,
        max(one.last_at, other.last_at),
    )


def group_of(user_id: str) -> int:
    """The group of users that a user is counted in."""
    return crc32(user_id.encode()) % GROUPS


def _count(row: PartitionOutcomes, shown: PendingImpression, impressions: int, clicks: int) -> None:
    counts = _counts(row, shown)
    if counts is None:
        return
    group, hour = group_of(shown.user_id), shown.at // HOUR_MS * HOUR_MS
    counts.impressions[group] += impressions
    counts.clicks[group] += clicks
    before = counts.hours.get(hour, (0, 0))
    counts.hours[hour] = (before[0] + impressions, before[1] + clicks)
    counts.last_at = max(counts.last_at, shown.at)
    while len(counts.hours) > HOURS:
        del counts.hours[min(counts.hours)]


def _counts(row: PartitionOutcomes, shown: PendingImpression) -> ImpressionCounts | None:
    releases = row.counts.setdefault(shown.domain, {})
    found = releases.get(shown.release)
    if found is None and len(releases) >= RELEASES:
        oldest = min(releases, key=lambda one: releases[one].last_at)
        if releases[oldest].last_at > row.clock - 24 * HOUR_MS:
            return None  # names that a client made up must not push out the releases that serve
        del releases[oldest]
    if found is None:
        found = releases[shown.release] = ImpressionCounts()
    return found
