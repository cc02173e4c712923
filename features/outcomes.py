"""Impressions joined with clicks: click counts per release. Pure: state and events in, state out.

An impression is one recommended list. It counts as clicked, once, if its user clicks one of its items within the
window. There is one row per partition, with that partition's position, as for popularity: a replay changes nothing.
Counts are kept in groups of users (a hash of the user), so that the spread between groups gives the confidence
interval: impressions of one user are correlated, and treating them as independent would make it too narrow.
"""

from collections import OrderedDict
from collections.abc import Iterable
from sys import intern
from typing import Final
from zlib import crc32

import msgspec

from features.activity import LoggedEvent, is_repeat
from stream.events import Impression, Interaction

GROUPS: Final = 50
CLICK_KINDS: Final = frozenset({"click", "play", "purchase", "read"})
"""Kinds of interaction that count as a click on an impression."""
HOUR_MS: Final = 60 * 60 * 1000
HOURS: Final = 48
RELEASES: Final = 30
"""Releases counted per domain; a new one replaces one without impressions for a day."""
ROW_BYTES: Final = 512 * 1024
"""Largest row: stock brokers take messages of 1 MiB."""
SLACK_MS: Final = 5 * 60 * 1000
"""Events may be this far ahead of their time: an impression stays in the buffer so much longer than the window."""


class JoinWindow(msgspec.Struct, frozen=True):
    """How long after an impression a click counts (ms); how many impressions a partition buffers, the newest."""

    ms: int = 30 * 60 * 1000
    lists: int = 20_000


class ImpressionCounts(msgspec.Struct):
    """Impressions and clicks by group of users; `hours` maps an hour to (impressions, clicks). Times are epoch ms."""

    impressions: list[int] = msgspec.field(default_factory=lambda: [0] * GROUPS)
    clicks: list[int] = msgspec.field(default_factory=lambda: [0] * GROUPS)
    hours: dict[int, tuple[int, int]] = {}
    last_at: int = 0


class PartitionOutcomes(msgspec.Struct):
    """One partition's row: counts by domain and release of everything through `position`. `clock` is epoch ms.

    `forwarded` holds the position of each partition from which events were forwarded here.
    """

    position: int = -1
    clock: int = 0
    counts: dict[str, dict[str, ImpressionCounts]] = {}
    forwarded: dict[str, int] = {}


class PendingImpression(msgspec.Struct, gc=False):
    """An impression that may still be clicked. `key` is the response's request id, or the event's id."""

    key: str
    user_id: str
    domain: str
    release: str
    items: list[str]
    at: int
    taken: bool = False


class BufferDelta(msgspec.Struct, frozen=True):
    """Changes of a buffer up to a log position: new impressions (`shown`), and the keys of clicked ones (`taken`).

    `partition` (`events/3`) says whose buffer it is.
    """

    through: int
    shown: list[PendingImpression]
    taken: list[tuple[str, str, str]]
    partition: str = ""


class JoinBuffer:
    """The impressions of one partition that may still be clicked, oldest first; `changes` returns what is new."""

    def __init__(self, window: JoinWindow) -> None:
        self.window = window
        self.forgotten = 0
        self._lists: OrderedDict[tuple[str, str, str], PendingImpression] = OrderedDict()
        self._by_user: dict[tuple[str, str], list[PendingImpression]] = {}
        self._new: list[PendingImpression] = []
        self._taken: list[tuple[str, str, str]] = []

    def __len__(self) -> int:
        return len(self._lists)

    def add(self, impression: PendingImpression) -> bool:
        """Add an impression; False if its key is in the buffer already (it was sent twice)."""
        key = (impression.domain, impression.user_id, impression.key)
        if key in self._lists:
            return False
        self._lists[key] = impression
        self._by_user.setdefault((impression.domain, impression.user_id), []).append(impression)
        self._new.append(impression)
        while len(self._lists) > self.window.lists:
            self.forgotten += 1
            self._drop()
        return True

    def take(self, event: Interaction) -> PendingImpression | None:
        """The impression that an interaction clicks: the named one, else the newest with the item. Once each."""
        impressions = self._by_user.get((event.domain, event.user_id))
        if impressions is None:
            return None
        request_id = event.context.get("request_id")
        for impression in reversed(impressions):
            matches = event.item_id in impression.items and 0 <= event.at - impression.at <= self.window.ms
            if matches and (request_id is None or request_id == impression.key):
                return None if impression.taken else self._mark(impression)
        return None

    def expire(self, clock: int) -> None:
        """Drop impressions that can no longer be clicked."""
        before = clock - self.window.ms - SLACK_MS
        while self._lists and next(iter(self._lists.values())).at < before:
            self._drop()

    def changes(self, through: int, partition: str = "") -> list[BufferDelta]:
        """The changes since the last call: none, or one."""
        new, taken = self._new, self._taken
        self._new, self._taken = [], []
        return [BufferDelta(through, new, taken, partition)] if new or taken else []

    def follow(self, delta: BufferDelta) -> None:
        """Apply a change that `changes` returned before a restart."""
        for impression in delta.shown:
            self.add(impression)
        for key in delta.taken:
            if key in self._lists:
                self._lists[key].taken = True
        self._new, self._taken = [], []

    def _mark(self, impression: PendingImpression) -> PendingImpression:
        impression.taken = True
        self._taken.append((impression.domain, impression.user_id, impression.key))
        return impression

    def _drop(self) -> None:
        (domain, user_id, _), oldest = self._lists.popitem(last=False)
        impressions = self._by_user[domain, user_id]
        impressions.remove(oldest)
        if not impressions:
            del self._by_user[domain, user_id]


def apply(row: PartitionOutcomes, buffer: JoinBuffer, log: Iterable[LoggedEvent]) -> None:
    """Fold `log` (one partition, in log order) into a partition's row and its buffer, in place."""
    for entry in log:
        if entry.offset <= row.position:
            continue
        row.position = entry.offset
        if entry.origin is not None and is_repeat(entry.origin, row.forwarded):
            continue
        event = entry.event
        if isinstance(event, Interaction):
            if buffer and event.kind in CLICK_KINDS and (clicked := buffer.take(event)) is not None:
                _count(row, clicked, 0, 1)
        elif isinstance(event, Impression) and event.release is not None:
            key = event.request_id or event.event_id
            items = [intern(item) for item in event.item_ids]  # popular ones stand in many lists
            impression = PendingImpression(key, event.user_id, event.domain, event.release, items, event.at)
            row.clock = max(row.clock, event.at)
            buffer.expire(row.clock)
            if buffer.add(impression):
                _count(row, impression, 1, 0)


def merge(rows: Iterable[PartitionOutcomes]) -> dict[str, dict[str, ImpressionCounts]]:
    """The sum over partitions, by domain and release."""
    total: dict[str, dict[str, ImpressionCounts]] = {}
    for row in rows:
        for domain, releases in row.counts.items():
            for release, counts in releases.items():
                into = total.setdefault(domain, {}).setdefault(release, ImpressionCounts())
                total[domain][release] = add(into, counts)
    return total


def add(counts: ImpressionCounts, other: ImpressionCounts, sign: int = 1) -> ImpressionCounts:
    """The sum of two counts, or with sign -1 their difference; nothing falls below zero."""
    hours = {
        hour: (
            max(0, counts.hours.get(hour, (0, 0))[0] + sign * other.hours.get(hour, (0, 0))[0]),
            max(0, counts.hours.get(hour, (0, 0))[1] + sign * other.hours.get(hour, (0, 0))[1]),
        )
        for hour in sorted({*counts.hours, *other.hours})
    }
    return ImpressionCounts(
        [max(0, a + sign * b) for a, b in zip(counts.impressions, other.impressions, strict=True)],
        [max(0, a + sign * b) for a, b in zip(counts.clicks, other.clicks, strict=True)],
        hours,
        max(counts.last_at, other.last_at),
    )


def encoded(row: PartitionOutcomes, most_bytes: int = ROW_BYTES) -> bytes:
    """A row as JSON of at most `most_bytes`: the releases that were shown longest ago leave the row until it fits."""
    value = msgspec.json.encode(row)
    while len(value) > most_bytes and any(row.counts.values()):
        places = [(counts.last_at, domain, name) for domain, by in row.counts.items() for name, counts in by.items()]
        _, domain, release = min(places)
        del row.counts[domain][release]
        value = msgspec.json.encode(row)
    return value


def group_of(user_id: str) -> int:
    """The group (0 to 49) that a user is counted in."""
    return crc32(user_id.encode()) % GROUPS


def _count(row: PartitionOutcomes, impression: PendingImpression, impressions: int, clicks: int) -> None:
    counts = _counts_of(row, impression)
    if counts is None:
        return
    group, hour = group_of(impression.user_id), impression.at // HOUR_MS * HOUR_MS
    counts.impressions[group] += impressions
    counts.clicks[group] += clicks
    before = counts.hours.get(hour, (0, 0))
    counts.hours[hour] = (before[0] + impressions, before[1] + clicks)
    counts.last_at = max(counts.last_at, impression.at)
    while len(counts.hours) > HOURS:
        del counts.hours[min(counts.hours)]


def _counts_of(row: PartitionOutcomes, impression: PendingImpression) -> ImpressionCounts | None:
    releases = row.counts.setdefault(impression.domain, {})
    counts = releases.get(impression.release)
    if counts is None and len(releases) >= RELEASES:
        oldest = min(releases, key=lambda name: releases[name].last_at)
        if releases[oldest].last_at > row.clock - 24 * HOUR_MS:
            return None  # invented release names from clients must not displace the releases that serve
        del releases[oldest]
    if counts is None:
        counts = releases[impression.release] = ImpressionCounts()
    return counts
