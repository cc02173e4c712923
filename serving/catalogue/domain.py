"""A domain's catalogue in memory, from its compacted topics: items, users' segments, and what is popular."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from heapq import heappop, heappush, nlargest
from operator import itemgetter
from typing import Final

import msgspec

from features.catalogue import CatalogueEntry, UserProfile
from features.popularity import EVERYONE
from models.domains.preset import DomainPreset, milliseconds
from serving.catalogue.items import NEWEST, CatalogueItem
from serving.catalogue.live_popularity import FreshnessPolicy
from stream.events import KIND_CODES

PUBLISHED_AT: Final = "published_at"
"""The attribute that says when an item was published, epoch ms."""
MAX_TIME: Final = 2**53
"""Greater numbers are no times."""

CatalogueChanges = dict[str, CatalogueItem]
"""Changed items by id."""


class DomainPolicy(msgspec.Struct, frozen=True):
    """What a domain's preset says to look-ups.

    `kind_weights`: by event code, how much an event counts for its item. After a kind of `unwanted_kinds` (codes) an
    item is no longer recommended. Items of the last `seen_ms` are not recommended again; None: no item of the history.
    `popularity_half_life_ms`: of the counts by segment.
    """

    kind_weights: tuple[float, ...]
    unwanted_kinds: frozenset[int]
    seen_ms: int | None
    freshness: FreshnessPolicy | None = None
    popularity_half_life_ms: int = 7 * 24 * 60 * 60 * 1000

    @classmethod
    def of(cls, preset: DomainPreset) -> "DomainPolicy":
        """The policy of a preset."""
        unwanted = frozenset(KIND_CODES[kind] for kind in preset.filters.unwanted)
        fresh = preset.freshness
        freshness = FreshnessPolicy(milliseconds(fresh.half_life), fresh.live) if fresh is not None else None
        half_life_ms = milliseconds(preset.popularity.half_life)
        return cls(preset.weights, unwanted, preset.seen_ms, freshness, half_life_ms)


DEFAULT_POLICY: Final = DomainPolicy.of(DomainPreset())
"""The policy of a domain that has no preset."""


class Domain:
    """One domain: its catalogue, the segments of its users, and what is popular in it.

    Changed on the event loop only (`set_popular` swaps whole lists, from any thread); read from any thread. `clock`
    gives epoch ms. Methods that change items return the changes, for whoever keeps arrays of them.
    """

    def __init__(
        self,
        policy: DomainPolicy = DEFAULT_POLICY,
        *,
        name: str = "shop",
        clock: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self.policy = policy
        self.name = name
        self.clock = clock
        self.items: dict[str, CatalogueItem] = {}
        self.published_at: dict[str, int] = {}
        self.category_codes: dict[str, int] = {}
        self.category_names: dict[str, str] = {}
        self.items_by_category: dict[str, dict[str, None]] = {}
        self.segments: dict[str, str] = {}
        self.popular: dict[str, list[tuple[str, float]]] = {}
        self.popular_by_category: dict[str, list[str]] = {}
        self.live_counts: Mapping[int, Mapping[str, float]] = {}
        self._expiring: list[tuple[int, str]] = []

    def put_items(self, items: Sequence[CatalogueEntry]) -> CatalogueChanges:
        """Add or replace items."""
        changes = {item.item_id: self._catalogue_item(item) for item in items}
        self._apply(changes)
        if self.policy.freshness is not None:
            self._keep_published_at(items)
        return changes

    def remove_item(self, item_id: str) -> CatalogueChanges:
        """Hide an item that left the catalogue (a tombstone)."""
        item = self.items.get(item_id)
        if item is None:
            return {}
        return self.put_items([CatalogueEntry(item_id=item_id, at=0, available=False, category=item.category)])

    def expire_items(self) -> CatalogueChanges:
        """Hide items whose time has passed."""
        now = self.clock()
        expired: CatalogueChanges = {}
        while self._expiring and self._expiring[0][0] <= now:
            _, item_id = heappop(self._expiring)
            item = self.items[item_id]
            if item.available and item.expires_at is not None and item.expires_at <= now:
                expired[item_id] = msgspec.structs.replace(item, available=False)
        self._apply(expired)
        return expired

    def put_user(self, user: UserProfile) -> None:
        """Set a user's segment."""
        if user.segment:
            self.segments[user.user_id] = sys.intern(user.segment)
        else:
            self.segments.pop(user.user_id, None)

    def remove_user(self, user_id: str) -> None:
        """Forget a user's segment."""
        self.segments.pop(user_id, None)

    def set_popular(
        self, segments: dict[str, dict[str, float]], live: Mapping[int, Mapping[str, float]] | None = None
    ) -> None:
        """Replace what is popular: counts by segment and item; in `live` everyone's with further half-lives (ms)."""
        popular = {
            segment: sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
            for segment, counts in segments.items()
        }
        by_category: dict[str, list[str]] = {}
        for item_id, _ in popular.get(EVERYONE, ()):
            category = self.category_of(item_id)
            if category:
                by_category.setdefault(category, []).append(item_id)
        self.popular, self.popular_by_category = popular, by_category
        self.live_counts = {self.policy.popularity_half_life_ms: segments.get(EVERYONE, {}), **(live or {})}

    def is_available(self, item_id: str) -> bool:
        """Whether an item may be shown: items that are not in the catalogue may."""
        item = self.items.get(item_id)
        return item is None or item.available

    def category_of(self, item_id: str) -> str | None:
        """The category of an item, if the catalogue names one."""
        item = self.items.get(item_id)
        return item.category if item is not None else None

    def title_of(self, item_id: str) -> str | None:
        """The title of an item, if the catalogue names one."""
        item = self.items.get(item_id)
        return item.title if item is not None else None

    def _keep_published_at(self, items: Sequence[CatalogueEntry]) -> None:
        for item in items:
            at = item.attributes.get(PUBLISHED_AT)
            if isinstance(at, int | float) and 0 <= at <= MAX_TIME:
                self.published_at[item.item_id] = int(at)
            else:
                self.published_at.pop(item.item_id, None)
        if len(self.published_at) > 2 * NEWEST:
            self.published_at = dict(nlargest(NEWEST, self.published_at.items(), key=itemgetter(1)))

    def _catalogue_item(self, item: CatalogueEntry) -> CatalogueItem:
        category = sys.intern(item.category) if item.category else None
        if category is not None:
            self.category_codes.setdefault(category, len(self.category_codes))
            self.category_names.setdefault(category.casefold(), category)
        before = self.items.get(item.item_id)
        scheduled = before is not None and before.available and before.expires_at == item.expires_at
        if item.expires_at is not None and item.available and not scheduled:
            heappush(self._expiring, (item.expires_at, item.item_id))
        available = item.available and (item.expires_at is None or item.expires_at > self.clock())
        return CatalogueItem(category, available, item.title, item.attributes, item.expires_at)

    def _apply(self, changes: CatalogueChanges) -> None:
        for item_id, item in changes.items():
            before = self.items.get(item_id)
            self.items[item_id] = item
            if before is not None and before.category == item.category:
                continue
            if before is not None and before.category:
                self.items_by_category[before.category].pop(item_id, None)
            if item.category:
                self.items_by_category.setdefault(item.category, {})[item_id] = None
