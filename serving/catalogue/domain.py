"""The catalogue in memory: items and users' segments as their compacted topics tell, and what is popular."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush, nlargest
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Final
from weakref import ref

import msgspec
import numpy as np

from features.popularity import EVERYONE
from models.arrays import Int32, Int64
from models.domains.preset import DomainPreset, milliseconds
from models.recommenders.onnx_scorer import ENCODED
from models.releases.release import Release
from serving.catalogue.live_popularity import NEWEST, Freshness, Now, OpenRelease, now, opened
from serving.rules.compiled import Compiled
from serving.rules.rule import Rule, Value, applies
from stream.events import KIND_CODES, Item, User

PUBLISHED: Final = "published_at"
"""The attribute that says when an item was published, epoch ms."""

if TYPE_CHECKING:
    from serving.rollout.arms import Trial


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What look-ups and rules need of an item; the whole record stays in the store.

    `available` also follows the time: it turns false when the item expires.
    """

    category: str | None
    available: bool
    title: str | None
    attributes: dict[str, Value] = {}
    expires_at: int | None = None

    def value_of(self, name: str) -> Value:
        """What the catalogue says by a name: category, title, or an attribute; None where it says nothing."""
        if name == "category":
            return self.category
        return self.title if name == "title" else self.attributes.get(name)


class Habits(msgspec.Struct, frozen=True):
    """What a domain's preset says to look-ups.

    `weights`: by event code, how much an event speaks for its item. After a kind of `unwanted` (codes) an item does not
    come back. What was taken within `seen_ms` is no answer; None: nothing that was taken.
    """

    weights: tuple[float, ...]
    unwanted: frozenset[int]
    seen_ms: int | None
    freshness: Freshness | None = None

    @classmethod
    def of(cls, preset: DomainPreset) -> "Habits":
        unwanted = frozenset(KIND_CODES[kind] for kind in preset.filters.unwanted)
        fresh = preset.freshness
        aging = Freshness(milliseconds(fresh.half_life), fresh.live) if fresh is not None else None
        return cls(preset.weights, unwanted, preset.seen_ms, aging)


USUAL: Final = Habits.of(DomainPreset())
"""The habits of a domain that has no preset."""


class Aligned:
    """Availability and category of a release's items, in the release's order, so that filters are array operations.

    `hidden` holds the indices of items that are not available, `category` int32 [items] a code for each item. `rules`
    are the rules over these items, None where there are none. `newest` are items that may be shown and that the release
    does not know, newest first. `logits`: the release's scores are logarithms of shares.
    """

    def __init__(self, release: Release, entries: dict[str, Entry], codes: dict[str, int]) -> None:
        self.release = release
        self.codes = codes
        self.now: Now | None = None
        found = [entries.get(item) for item in release.item_ids]
        self._available = np.array([one is None or one.available for one in found], np.bool_)
        self.hidden: Int64 = np.flatnonzero(~self._available)
        self.category: Int32 = np.array([_code(one, codes) for one in found], np.int32)
        self.rules: Compiled | None = None
        self._encoded = release.manifest.recommender in ENCODED
        self.scratch: Int32 = np.full(len(found) + 1, -1, np.int32)
        index = release.index
        self._unknown = dict.fromkeys(item for item, one in entries.items() if one.available and item not in index)
        self._keep_newest()

    @property
    def logits(self) -> bool:
        """Whether scores are logarithms of shares; what is mixed with live popularity are shares."""
        return self._encoded and self.now is None

    def code_of(self, category: str) -> int:
        """The code of a category; -2, which no item has, for one that is not known."""
        return self.codes.get(category, -2)

    def change(self, items: Iterable[tuple[str, Entry]]) -> None:
        """Follow the newest words on items."""
        moved = False
        for item_id, entry in items:
            place = self.release.index.get(item_id)
            if place is None:
                self._unknown.pop(item_id, None)
                if entry.available:
                    self._unknown[item_id] = None
                continue
            self._unknown.pop(item_id, None)
            if self.rules is not None:
                self.rules.change(item_id, entry)
            moved |= bool(self._available[place]) != entry.available
            self._available[place] = entry.available
            self.category[place] = _code(entry, self.codes)
        if moved:
            self.hidden = np.flatnonzero(~self._available)
        self._keep_newest()

    def _keep_newest(self) -> None:
        self.newest = tuple(islice(reversed(self._unknown), NEWEST))


class Domain:
    """One domain: its items, the segments of its users, its release, and what is popular in it.

    Changed on the event loop only; read from any thread. `clock` gives epoch ms. `moved` turns true when an item or a
    rule changes, begins or ends, so that lists may differ; whoever tells of it turns it back.
    """

    def __init__(
        self,
        habits: Habits = USUAL,
        *,
        name: str = "shop",
        clock: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self.habits = habits
        self.published: dict[str, int] = {}
        self.name = name
        self.clock = clock
        self.rules: tuple[Rule, ...] = ()
        self.bare: Compiled | None = None
        self.named: dict[str, str] = {}
        self.entries: dict[str, Entry] = {}
        self.segments: dict[str, str] = {}
        self.codes: dict[str, int] = {}
        self.members: dict[str, dict[str, None]] = {}
        self.popular: dict[str, list[tuple[str, float]]] = {}
        self.by_category: dict[str, list[str]] = {}
        self.moved = False
        self.aligned: Aligned | None = None
        self.beside: tuple[Aligned, ...] = ()
        self.trial: Trial | None = None
        self._changed_meanwhile: dict[str, Entry] | None = None
        self._changed_since: dict[str, Entry] | None = None
        self._expiring: list[tuple[int, str]] = []
        self._made: list[ref[Aligned]] = []

    def put(self, items: Sequence[Item]) -> None:
        """Take in new words on items."""
        self._change({one.item_id: self._entry(one) for one in items})
        if self.habits.freshness is not None:
            times = {one.item_id: one.attributes.get(PUBLISHED) for one in items}
            self.published |= {item: int(at) for item, at in times.items() if isinstance(at, int | float)}
            if len(self.published) > 2 * NEWEST:
                self.published = dict(nlargest(NEWEST, self.published.items(), key=itemgetter(1)))

    def tick(self) -> None:
        """Follow the time: items expire, rules begin and end. To be called several times a second."""
        now = self.clock()
        gone: dict[str, Entry] = {}
        while self._expiring and self._expiring[0][0] <= now:
            _, item_id = heappop(self._expiring)
            entry = self.entries[item_id]
            if entry.available and entry.expires_at is not None and entry.expires_at <= now:
                gone[item_id] = msgspec.structs.replace(entry, available=False)
        if gone:
            self._change(gone)
        turned = [compiled.tick(now) for compiled in self._compiled()]
        self.moved |= any(turned)

    def compile(self, rules: Sequence[Rule]) -> list[tuple[Aligned | None, Compiled]]:
        """Those of the rules that are about this domain over the items of each release at hand, and over none. Slow:
        for another thread, between two calls on the loop: `begin_rules` before it, `adopt_rules` after it."""
        mine, now = applies(rules, self.name), self.clock()
        bare = Compiled(mine, (), {}, self.entries, now)
        return [(None, bare), *((one, self._over(one, mine)) for one in self._everywhere())]

    def begin_rules(self) -> None:
        """From now on changes of the catalogue are noted, for `adopt_rules`."""
        self._changed_since = {}

    def adopt_rules(self, found: list[tuple[Aligned | None, Compiled]]) -> None:
        """Let rules hold. Where there are none, look-ups have nothing to do with them."""
        changed, self._changed_since = self._changed_since or {}, None
        self.rules, self.moved = found[0][1].source, True
        for aligned, compiled in found:
            for item_id, entry in changed.items():
                compiled.change(item_id, entry)
            compiled.tick(self.clock())
            if aligned is None:
                self.bare = compiled if self.rules else None
            else:
                aligned.rules = compiled if self.rules else None
        for aligned in self._everywhere():  # one may have been loaded meanwhile
            if (aligned.rules.source if aligned.rules is not None else ()) != self.rules:
                self._arm(aligned)

    def rules_over(self, aligned: Aligned | None) -> Compiled | None:
        """The rules as a look-up of a release sees them."""
        return aligned.rules if aligned is not None else self.bare

    def remove(self, item_id: str) -> None:
        """An item left the catalogue (a tombstone): it is no longer shown."""
        if item_id in self.entries:
            self.put([Item(item_id=item_id, at=0, available=False, category=self.entries[item_id].category)])

    def put_user(self, user: User) -> None:
        """Take in the newest word on a user."""
        if user.segment:
            self.segments[user.user_id] = sys.intern(user.segment)
        else:
            self.segments.pop(user.user_id, None)

    def align(self, release: Release) -> Aligned:
        """Arrays in the order of a release that is being loaded. Slow: for another thread, between two on the loop:
        `begin` before it, `adopt` after it."""
        aligned = Aligned(opened(release, self.habits.freshness), self.entries.copy(), self.codes)
        self._arm(aligned)
        self._made = [*(one for one in self._made if one() is not None), ref(aligned)]
        return aligned

    def _arm(self, aligned: Aligned) -> None:
        rules = self.rules
        aligned.rules = self._over(aligned, rules) if rules else None

    def _over(self, aligned: Aligned, rules: Sequence[Rule]) -> Compiled:
        release = aligned.release
        return Compiled(rules, release.item_ids, release.index, self.entries, self.clock())

    def begin(self) -> None:
        """From now on changes of the catalogue are noted, for `adopt`."""
        self._changed_meanwhile = {}

    def adopt(self, aligned: Aligned | None, *, serve: bool = True) -> None:
        """Let an aligned release serve, or with `serve=False` stand beside it; None leaves all as it is."""
        changed, self._changed_meanwhile = self._changed_meanwhile, None
        if aligned is not None:
            aligned.change((changed or {}).items())
            if (aligned.rules.source if aligned.rules is not None else ()) != self.rules:  # they changed meanwhile
                self._arm(aligned)
            self.freshen(aligned)
            if serve:
                self.aligned = aligned
            else:
                self.beside = (*self.beside, aligned)

    def freshen(self, aligned: Aligned | None) -> None:
        """Bring what is popular now, and items that came after the release, into an aligned release."""
        freshness = self.habits.freshness
        if aligned is None or freshness is None or not isinstance(aligned.release, OpenRelease):
            return
        popular, at = self.popular.get(EVERYONE, []), int(time.time() * 1000)
        current, new = now(aligned.release, freshness, popular, self.published, at)
        aligned.change((item, self.entries[item]) for item in new if item in self.entries)
        aligned.now = current

    def set_popular(self, segments: dict[str, dict[str, float]]) -> None:
        """Replace what is popular: counts by segment and item."""
        popular = {
            segment: sorted(items.items(), key=lambda pair: (-pair[1], pair[0])) for segment, items in segments.items()
        }
        by_category: dict[str, list[str]] = {}
        for item, _ in popular.get(EVERYONE, ()):
            category = self.category_of(item)
            if category:
                by_category.setdefault(category, []).append(item)
        self.popular, self.by_category = popular, by_category

    @property
    def reads_profiles(self) -> bool:
        """Whether a release that answers here, or is tried out, reads users' profiles."""
        return any(one is not None and one.release.reads_profiles for one in (self.aligned, *self.beside))

    def offers(self, item_id: str) -> bool:
        """Whether an item may be shown: items that the catalogue does not name are."""
        entry = self.entries.get(item_id)
        return entry is None or entry.available

    def shows(self, item_id: str) -> bool:
        """Whether an item may be shown to everyone: it is there, and no rule that holds for all excludes it."""
        if not self.offers(item_id):
            return False
        rules = self.rules_over(self.aligned)
        if rules is None:
            return True
        about = rules.matching(item_id, self.entries.get(item_id))
        standing = [rules.source[one] for one in about if one in rules.live]
        return not any(one.action == "exclude" and not one.conditional for one in standing)

    def category_of(self, item_id: str) -> str | None:
        """The category of an item, where the catalogue names one."""
        entry = self.entries.get(item_id)
        return entry.category if entry is not None else None

    def title_of(self, item_id: str) -> str | None:
        """The title of an item, where the catalogue names one."""
        entry = self.entries.get(item_id)
        return entry.title if entry is not None else None

    def _entry(self, item: Item) -> Entry:
        category = sys.intern(item.category) if item.category else None
        if category is not None:
            self.codes.setdefault(category, len(self.codes))
            self.named.setdefault(category.casefold(), category)
        before = self.entries.get(item.item_id)
        waits = before is not None and before.available and before.expires_at == item.expires_at
        if item.expires_at is not None and item.available and not waits:
            heappush(self._expiring, (item.expires_at, item.item_id))
        available = item.available and (item.expires_at is None or item.expires_at > self.clock())
        return Entry(category, available, item.title, item.attributes, item.expires_at)

    def _change(self, changed: dict[str, Entry]) -> None:
        self.moved = True
        for item_id, entry in changed.items():
            self._file(item_id, entry)
        for aligned in self._everywhere():
            aligned.change(changed.items())
        for noted in (self._changed_meanwhile, self._changed_since):
            if noted is not None:
                noted.update(changed)

    def _compiled(self) -> list[Compiled]:
        return [one for one in (self.bare, *(aligned.rules for aligned in self._everywhere())) if one is not None]

    def _everywhere(self) -> list[Aligned]:
        """Every release at hand: the serving one, and those that are being tried out or loaded."""
        return [aligned for one in self._made if (aligned := one()) is not None]

    def _file(self, item_id: str, entry: Entry) -> None:
        before = self.entries.get(item_id)
        self.entries[item_id] = entry
        if before is not None and before.category == entry.category:
            return
        if before is not None and before.category:
            self.members[before.category].pop(item_id, None)
        if entry.category:
            self.members.setdefault(entry.category, {})[item_id] = None


def _code(entry: Entry | None, codes: dict[str, int]) -> int:
    return codes.get(entry.category, -1) if entry is not None and entry.category else -1
