"""Time-decayed popularity per domain and segment, kept once per partition of the log. Pure, like `features.activity`.

Each domain has settings of its own: counts halve after a week in a shop, after minutes in a news portal.

There is one row per partition, with that partition's position. A restart reads the log again from there; users' rows
hold positions of their own, so nothing is counted twice. Look-ups use the sum over partitions.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from heapq import nlargest
from math import ldexp
from operator import itemgetter
from typing import Final

import msgspec
import numpy as np

from features.activity import LoggedEvent, event_digest, is_repeat
from features.decay import landmark_and_weight, rescale
from stream.events import Interaction

EVERYONE: Final = ""
"""The segment that every user belongs to."""
TOP_PREFIX: Final = "top:"
"""Prefix of a partition's name: the key of its shortened row."""

TOP_ITEMS: Final = 2_000
"""Items of each segment in a shortened row."""

EVENT_IDS: Final = 1024
"""Newest event ids that a partition's row remembers at least; up to twice as many."""

POPULARITY_WEIGHTS: Final = {
    "view": 1.0,
    "click": 1.0,
    "read": 1.0,
    "play": 1.0,
    "cart": 2.0,
    "save": 2.0,
    "like": 2.0,
    "rate": 1.0,
    "purchase": 4.0,
}
"""What an interaction of each kind adds to a popularity count."""


class PopularitySettings(msgspec.Struct, frozen=True):
    """A domain's settings: the half-life of a count, and what an interaction of each kind adds (others add nothing).

    A sum below `least` is dropped when the landmark moves: with a half-life of minutes the row would otherwise keep
    every item that was ever read. 0 keeps everything. `live_ms`: further half-lives that everyone's counts are kept
    with, for the recommenders of live popularity.
    """

    half_life_ms: int = 7 * 24 * 60 * 60 * 1000
    kinds: dict[str, float] = msgspec.field(default_factory=lambda: dict(POPULARITY_WEIGHTS))
    least: float = 0.0
    live_ms: tuple[int, ...] = ()

    def fingerprint(self) -> str:
        """Identifies the settings: counts made with other settings cannot be continued."""
        return blake2b(msgspec.json.encode(self, order="deterministic"), digest_size=6).hexdigest()


DEFAULT_SETTINGS: Final = PopularitySettings()
"""The settings of a domain that has none of its own."""
SettingsByDomain = Mapping[str, PopularitySettings]
"""Settings by domain."""


class LiveCounts(msgspec.Struct):
    """Everyone's decayed sum of each item at `landmark`, with a half-life of its own."""

    landmark: int = 0
    items: dict[str, float] = {}


class DomainPopularity(msgspec.Struct):
    """One domain: segment to item to a decayed sum at `landmark`; `rules` is the fingerprint of the settings.

    `live`: counts with further half-lives (ms).
    """

    rules: str
    landmark: int = 0
    segments: dict[str, dict[str, float]] = {}
    live: dict[int, LiveCounts] = {}


class PartitionPopularity(msgspec.Struct, forbid_unknown_fields=True):
    """One partition's row: what is popular in each domain.

    `event_ids` holds digests of the newest events of the partition, so that one sent twice counts once. The row decides
    this by itself, without the users' rows: a restart that reads from here again comes to the same sums. Backfilled
    events have a list of their own, so that an import does not push out live ones. `forwarded` holds the position of
    each partition from which events were forwarded here.
    """

    position: int = -1
    event_ids: list[int] = []
    backfilled_ids: list[int] = []
    forwarded: dict[str, int] = {}
    domains: dict[str, DomainPopularity] = {}


def apply(
    row: PartitionPopularity | None, log: Iterable[LoggedEvent], settings: SettingsByDomain
) -> PartitionPopularity:
    """The partition's row after `log` (one partition, in log order). Changes `row` in place and returns it.

    In place, because a row holds every item of the catalogue; the caller owns the one copy.
    """
    row = row if row is not None else PartitionPopularity()
    seen = {*row.event_ids, *row.backfilled_ids}
    for entry in log:
        if entry.offset <= row.position:
            continue
        row.position = entry.offset
        if entry.origin is not None and is_repeat(entry.origin, row.forwarded):
            continue
        event = entry.event
        identity = event_digest(f"{event.domain}/{event.user_id}/{event.event_id}")
        if identity in seen or not isinstance(event, Interaction):
            continue
        domain_settings = settings.get(event.domain, DEFAULT_SETTINGS)
        if event.kind in domain_settings.kinds:
            _remember(row.backfilled_ids if entry.backfill else row.event_ids, seen, identity)
            _count(row, event, domain_settings)
    return row


def outdated_domains(row: PartitionPopularity, settings: SettingsByDomain) -> list[str]:
    """The domains that were counted with other settings: such a row must be counted again from the start of the log."""
    return [
        name
        for name, domain in row.domains.items()
        if domain.rules != settings.get(name, DEFAULT_SETTINGS).fingerprint()
    ]


def merge(rows: Iterable[PartitionPopularity]) -> PartitionPopularity:
    """The sum over partitions, each domain at its latest landmark. Its position says nothing and is -1."""
    total = PartitionPopularity()
    domains = [(name, counts) for row in rows for name, counts in row.domains.items()]
    for name, counts in domains:
        into = total.domains.setdefault(name, DomainPopularity(counts.rules, counts.landmark))
        into.landmark = max(into.landmark, counts.landmark)
    for name, counts in domains:
        into = total.domains[name]
        for segment, items in counts.segments.items():
            sums = into.segments.setdefault(segment, {})
            for item, count in items.items():
                sums[item] = sums.get(item, 0.0) + rescale(count, counts.landmark, into.landmark)
        for half_life_ms, live in counts.live.items():
            _merge_live(into.live.setdefault(half_life_ms, LiveCounts(live.landmark)), live)
    return total


def _merge_live(into: LiveCounts, counts: LiveCounts) -> None:
    if counts.landmark > into.landmark:
        _move_live(into, counts.landmark, 0.0)
    for item, count in counts.items.items():
        into.items[item] = into.items.get(item, 0.0) + rescale(count, counts.landmark, into.landmark)


def most_popular(row: PartitionPopularity, n: int = TOP_ITEMS) -> PartitionPopularity:
    """The same row with only the `n` most popular items of each segment: what answers read, and small."""
    short = PartitionPopularity(row.position)
    for name, counts in row.domains.items():
        most = {segment: largest(items, n) for segment, items in counts.segments.items()}
        live = {half: LiveCounts(each.landmark, largest(each.items, n)) for half, each in counts.live.items()}
        short.domains[name] = DomainPopularity(counts.rules, counts.landmark, most, live)
    return short


def largest(counts: dict[str, float], n: int = TOP_ITEMS) -> dict[str, float]:
    """The `n` largest counts, largest first; of equal ones those that were counted first."""
    if len(counts) > n:  # a heap over all of a catalogue takes twice as long as over those that may be among them
        values = np.fromiter(counts.values(), np.float64, len(counts))
        least = float(np.partition(values, len(values) - n)[len(values) - n])
        counts = {item: count for item, count in counts.items() if count >= least}
    return dict(nlargest(n, counts.items(), key=itemgetter(1)))


def _remember(event_ids: list[int], seen: set[int], identity: int) -> None:
    event_ids.append(identity)
    seen.add(identity)
    if len(event_ids) == 2 * EVENT_IDS:  # in one go: taking out the first of a list moves all others
        seen.difference_update(event_ids[:EVENT_IDS])
        del event_ids[:EVENT_IDS]


def _count(row: PartitionPopularity, event: Interaction, settings: PopularitySettings) -> None:
    landmark, amount = landmark_and_weight(event.at, settings.half_life_ms)
    kind_weight, item_id = settings.kinds[event.kind], event.item_id
    counts = row.domains.get(event.domain)
    if counts is None:
        counts = row.domains[event.domain] = DomainPopularity(settings.fingerprint(), landmark)
    elif landmark > counts.landmark:
        _move_landmark(counts, landmark, settings.least)
    if settings.live_ms:
        _count_live(counts, event.at, item_id, kind_weight, settings)
    amount = kind_weight * ldexp(amount, landmark - counts.landmark)
    if amount < settings.least:
        return
    for segment in (EVERYONE, event.segment) if event.segment else (EVERYONE,):
        items = counts.segments.setdefault(segment, {})
        items[item_id] = items.get(item_id, 0.0) + amount


def _count_live(
    counts: DomainPopularity, at: int, item_id: str, kind_weight: float, settings: PopularitySettings
) -> None:
    for half_life_ms in settings.live_ms:
        landmark, amount = landmark_and_weight(at, half_life_ms)
        live = counts.live.get(half_life_ms)
        if live is None:
            live = counts.live[half_life_ms] = LiveCounts(landmark)
        elif landmark > live.landmark:
            _move_live(live, landmark, settings.least)
        amount = kind_weight * ldexp(amount, landmark - live.landmark)
        if amount >= settings.least:
            items = live.items
            items[item_id] = items.get(item_id, 0.0) + amount


def _move_live(live: LiveCounts, landmark: int, least: float) -> None:
    moved = {item: rescale(count, live.landmark, landmark) for item, count in live.items.items()}
    live.items = {item: kept for item, kept in moved.items() if kept >= least} if least else moved
    live.landmark = landmark


def _move_landmark(counts: DomainPopularity, landmark: int, least: float) -> None:
    old, counts.landmark = counts.landmark, landmark
    for segment, items in counts.segments.items():
        moved = {item: rescale(count, old, landmark) for item, count in items.items()}
        counts.segments[segment] = {item: kept for item, kept in moved.items() if kept >= least} if least else moved
