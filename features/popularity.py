"""Time-decayed popularity per domain and segment, kept once per partition of the log. Pure, like `features.activity`.

One row per partition, with that partition's position: a restart reads the log again from there, and because the rows
of users hold positions of their own, nothing is counted twice. The sum over partitions is what answers use.
"""

from collections.abc import Iterable
from heapq import nlargest
from operator import itemgetter
from typing import Final

import msgspec

from features.activity import Logged, digest
from features.decay import landmark_of, rescale, weight
from stream.events import Interaction

EVERYONE: Final = ""
"""The segment that every user belongs to."""
TOP: Final = "top:"
"""Before a partition's name: the key of its shortened row."""

KIND_WEIGHTS: Final = {
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


class PopularityRules(msgspec.Struct, frozen=True):
    """`half_life_ms` of a count; what an interaction of a kind adds (none where not named); event ids remembered."""

    half_life_ms: int = 7 * 24 * 60 * 60 * 1000
    kinds: dict[str, float] = msgspec.field(default_factory=lambda: dict(KIND_WEIGHTS))
    event_ids: int = 1024


class Popularity(msgspec.Struct):
    """One partition's row. `counts` maps domain to segment to item to a decayed sum at `landmark`.

    `event_ids` holds digests of the newest events of the partition, so that one sent twice counts once. The row decides
    this by itself, without the users' rows: a restart that reads from here again comes to the same sums.
    """

    position: int = -1
    landmark: int = 0
    event_ids: list[int] = []
    counts: dict[str, dict[str, dict[str, float]]] = {}


def apply(row: Popularity | None, log: Iterable[Logged], rules: PopularityRules) -> Popularity:
    """The partition's row after `log` (one partition, in log order). Changes `row` in place and returns it.

    In place, because a row holds every item of the catalogue; the caller owns the one copy.
    """
    row = row if row is not None else Popularity()
    seen = set(row.event_ids)
    for entry in log:
        if entry.offset <= row.position:
            continue
        row.position = entry.offset
        event = entry.event
        identity = digest(event.event_id)
        if identity in seen or not isinstance(event, Interaction) or event.kind not in rules.kinds:
            continue
        _remember(row.event_ids, seen, identity, rules.event_ids)
        _count(row, event, rules)
    return row


def merge(rows: Iterable[Popularity]) -> Popularity:
    """The sum over partitions, at the latest landmark. Its position says nothing and is -1."""
    rows = [row for row in rows if row.counts]
    total = Popularity(landmark=max((row.landmark for row in rows), default=0))
    for row in rows:
        for domain, segments in row.counts.items():
            for segment, items in segments.items():
                into = total.counts.setdefault(domain, {}).setdefault(segment, {})
                for item, count in items.items():
                    into[item] = into.get(item, 0.0) + rescale(count, row.landmark, total.landmark)
    return total


def top(row: Popularity, n: int) -> Popularity:
    """The same row with only the `n` most popular items of each segment: what answers read, and small."""
    short = Popularity(row.position, row.landmark)
    for domain, segments in row.counts.items():
        short.counts[domain] = {
            segment: dict(nlargest(n, items.items(), key=itemgetter(1))) for segment, items in segments.items()
        }
    return short


def _remember(event_ids: list[int], seen: set[int], identity: int, length: int) -> None:
    event_ids.append(identity)
    seen.add(identity)
    if len(event_ids) > length:
        seen.discard(event_ids.pop(0))


def _count(row: Popularity, event: Interaction, rules: PopularityRules) -> None:
    landmark = landmark_of(event.at, rules.half_life_ms)
    if not row.counts:
        row.landmark = landmark
    elif landmark > row.landmark:
        _move_landmark(row, landmark)
    amount = rules.kinds[event.kind] * weight(event.at, row.landmark, rules.half_life_ms)
    segments = row.counts.setdefault(event.domain, {})
    for segment in (EVERYONE, event.segment) if event.segment else (EVERYONE,):
        items = segments.setdefault(segment, {})
        items[event.item_id] = items.get(event.item_id, 0.0) + amount


def _move_landmark(row: Popularity, landmark: int) -> None:
    for segments in row.counts.values():
        for items in segments.values():
            for item, count in items.items():
                items[item] = rescale(count, row.landmark, landmark)
    row.landmark = landmark
