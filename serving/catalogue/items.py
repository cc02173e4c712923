"""Items of the catalogue in memory: what look-ups and rules need of each."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

import msgspec
import numpy as np

from models.arrays import Bool, Int32, Int64
from models.releases.release import Release
from serving.rules.rule import Value

NEWEST: Final = 200
"""How many of the newest items are remembered."""
NO_CATEGORY: Final = -1
UNKNOWN_CATEGORY: Final = -2
"""A code that no item has."""


class CatalogueItem(msgspec.Struct, frozen=True, gc=False):
    """What look-ups and rules need of an item; the store keeps the whole record.

    `available` also follows the time: it turns false when the item expires (`expires_at`, epoch ms).
    """

    category: str | None
    available: bool
    title: str | None
    attributes: dict[str, Value] = {}
    expires_at: int | None = None

    def value_of(self, name: str) -> Value:
        """The value of `category`, `title` or an attribute; None where the item has none."""
        if name == "category":
            return self.category
        return self.title if name == "title" else self.attributes.get(name)


class ReleaseItems:
    """Availability and category of a release's items as arrays in the release's order, so that filters are array
    operations. Changed in place on the event loop only; read from any thread.

    Attributes:
        hidden: int64, the indices of the items that are not available.
        categories: int32 [items], the code of each item's category, -1 without one.
        newest: available items that the release does not know, newest first.
        scratch: int32 [items + 1] of -1, for `models.rerank.diversity.similarity`.
    """

    def __init__(self, release: Release, items: Mapping[str, CatalogueItem], category_codes: Mapping[str, int]) -> None:
        self._index = index = release.index
        self._category_codes = category_codes
        known = [items.get(item_id) for item_id in release.item_ids]
        self._available: Bool = np.array([item is None or item.available for item in known], np.bool_)
        self.hidden: Int64 = np.flatnonzero(~self._available)
        self.categories: Int32 = np.array([self._code(item) for item in known], np.int32)
        self.scratch: Int32 = np.full(len(known) + 1, -1, np.int32)
        self._unknown = dict.fromkeys(
            item_id for item_id, item in items.items() if item.available and item_id not in index
        )
        self._keep_newest()

    def code_of(self, category: str) -> int:
        """The code of a category; `UNKNOWN_CATEGORY` for one that no item has."""
        return self._category_codes.get(category, UNKNOWN_CATEGORY)

    def apply(self, changes: Iterable[tuple[str, CatalogueItem]]) -> None:
        """Apply changes of the catalogue."""
        availability_changed = False
        for item_id, item in changes:
            place = self._index.get(item_id)
            self._unknown.pop(item_id, None)
            if place is None:
                if item.available:
                    self._unknown[item_id] = None
                continue
            availability_changed |= bool(self._available[place]) != item.available
            self._available[place] = item.available
            self.categories[place] = self._code(item)
        if availability_changed:
            self.hidden = np.flatnonzero(~self._available)
        self._keep_newest()

    def _code(self, item: CatalogueItem | None) -> int:
        if item is None or not item.category:
            return NO_CATEGORY
        return self._category_codes.get(item.category, NO_CATEGORY)

    def _keep_newest(self) -> None:
        self.newest = tuple(islice(reversed(self._unknown), NEWEST))
