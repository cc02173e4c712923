"""The catalogue in memory: what the compacted topic `items` holds, followed as it changes, and live popularity."""

from collections.abc import Iterable

import msgspec
import numpy as np
import numpy.typing as npt

from features.popularity import EVERYONE, Popularity
from models.releases import Release
from stream.events import Item


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What look-ups need of an item; the whole record stays in the store."""

    category: str | None
    available: bool
    title: str | None


class Aligned:
    """Availability and category of a release's items, in the release's order, so that filters are array masks."""

    def __init__(self, release: Release, entries: dict[str, Entry], codes: dict[str, int]) -> None:
        self.release = release
        self.codes = codes
        found = [entries.get(item) for item in release.item_ids]
        self.available: npt.NDArray[np.bool_] = np.array([one is None or one.available for one in found], np.bool_)
        self.category: npt.NDArray[np.int32] = np.array([_code(one, codes) for one in found], np.int32)

    def codes_of(self, category: str) -> int:
        """The code of a category; -2, which no item has, for one that is not known."""
        return self.codes.get(category, -2)

    def change(self, item_id: str, entry: Entry) -> None:
        place = self.release.index.get(item_id)
        if place is not None:
            self.available[place] = entry.available
            self.category[place] = _code(entry, self.codes)


class Domain:
    """One domain's items, its aligned release, and its popular items."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.codes: dict[str, int] = {}
        self.members: dict[str, list[str]] = {}
        self.popular: dict[str, list[tuple[str, float]]] = {}
        self.by_category: dict[str, list[str]] = {}
        self.aligned: Aligned | None = None

    def put(self, items: Iterable[Item]) -> None:
        """Take in new words on items."""
        for item in items:
            entry = Entry(item.category, item.available, item.title)
            before = self.entries.get(item.item_id)
            self.entries[item.item_id] = entry
            if item.category:
                self.codes.setdefault(item.category, len(self.codes))
                if before is None or before.category != item.category:
                    self.members.setdefault(item.category, []).append(item.item_id)
            if self.aligned is not None:
                self.aligned.change(item.item_id, entry)

    def remove(self, item_id: str) -> None:
        """An item was deleted from the catalogue (a tombstone): it is no longer available."""
        if item_id in self.entries:
            self.put([Item(item_id=item_id, at=0, available=False, category=self.entries[item_id].category)])

    def align(self, release: Release | None) -> None:
        """Bring arrays into the order of a newly loaded release; done beside the old one, then swapped."""
        self.aligned = Aligned(release, self.entries, self.codes) if release is not None else None

    def set_popular(self, total: Popularity, domain: str) -> None:
        """Replace the popular items by those of merged rows."""
        segments = total.counts.get(domain, {})
        popular = {
            segment: sorted(items.items(), key=lambda pair: (-pair[1], pair[0])) for segment, items in segments.items()
        }
        by_category: dict[str, list[str]] = {}
        for item, _ in popular.get(EVERYONE, ()):
            entry = self.entries.get(item)
            if entry is not None and entry.category:
                by_category.setdefault(entry.category, []).append(item)
        self.popular, self.by_category = popular, by_category

    def offers(self, item_id: str) -> bool:
        """Whether an item may be shown: items that the catalogue does not name are."""
        entry = self.entries.get(item_id)
        return entry is None or entry.available

    def category_of(self, item_id: str) -> str | None:
        entry = self.entries.get(item_id)
        return entry.category if entry is not None else None


def _code(entry: Entry | None, codes: dict[str, int]) -> int:
    return codes.get(entry.category, -1) if entry is not None and entry.category else -1
