"""The catalogue in memory: items and users' segments as their compacted topics tell, and what is popular."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import numpy.typing as npt

from features.popularity import EVERYONE
from models.releases import Release
from stream.events import Item, User

if TYPE_CHECKING:
    from serving.trial import Trial


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What look-ups need of an item; the whole record stays in the store."""

    category: str | None
    available: bool
    title: str | None


class Aligned:
    """Availability and category of a release's items, in the release's order, so that filters are array operations.

    `hidden` holds the indices of items that are not available, `category` int32 [items] a code for each item.
    """

    def __init__(self, release: Release, entries: dict[str, Entry], codes: dict[str, int]) -> None:
        self.release = release
        self.codes = codes
        found = [entries.get(item) for item in release.item_ids]
        self._available = np.array([one is None or one.available for one in found], np.bool_)
        self.hidden: npt.NDArray[np.int64] = np.flatnonzero(~self._available)
        self.category: npt.NDArray[np.int32] = np.array([_code(one, codes) for one in found], np.int32)

    def code_of(self, category: str) -> int:
        """The code of a category; -2, which no item has, for one that is not known."""
        return self.codes.get(category, -2)

    def change(self, items: Iterable[tuple[str, Entry]]) -> None:
        """Follow the newest words on items."""
        moved = False
        for item_id, entry in items:
            place = self.release.index.get(item_id)
            if place is None:
                continue
            moved |= bool(self._available[place]) != entry.available
            self._available[place] = entry.available
            self.category[place] = _code(entry, self.codes)
        if moved:
            self.hidden = np.flatnonzero(~self._available)


class Domain:
    """One domain: its items, the segments of its users, its release, and what is popular in it.

    Changed on the event loop only; read from any thread.
    """

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.segments: dict[str, str] = {}
        self.codes: dict[str, int] = {}
        self.members: dict[str, dict[str, None]] = {}
        self.popular: dict[str, list[tuple[str, float]]] = {}
        self.by_category: dict[str, list[str]] = {}
        self.aligned: Aligned | None = None
        self.beside: tuple[Aligned, ...] = ()
        self.trial: Trial | None = None
        self._changed_meanwhile: dict[str, Entry] | None = None

    def put(self, items: Iterable[Item]) -> None:
        """Take in new words on items."""
        changed = {one.item_id: self._entry(one) for one in items}
        for item_id, entry in changed.items():
            self._file(item_id, entry)
        if self.aligned is not None:
            self.aligned.change(changed.items())
        for one in self.beside:
            one.change(changed.items())
        if self._changed_meanwhile is not None:
            self._changed_meanwhile.update(changed)

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
        return Aligned(release, self.entries, self.codes)

    def begin(self) -> None:
        """From now on changes of the catalogue are noted, for `adopt`."""
        self._changed_meanwhile = {}

    def adopt(self, aligned: Aligned | None, *, serve: bool = True) -> None:
        """Let an aligned release serve, or with `serve=False` stand beside it; None leaves all as it is."""
        changed, self._changed_meanwhile = self._changed_meanwhile, None
        if aligned is not None:
            aligned.change((changed or {}).items())
            if serve:
                self.aligned = aligned
            else:
                self.beside = (*self.beside, aligned)

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

    def offers(self, item_id: str) -> bool:
        """Whether an item may be shown: items that the catalogue does not name are."""
        entry = self.entries.get(item_id)
        return entry is None or entry.available

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
        return Entry(category, item.available, item.title)

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
