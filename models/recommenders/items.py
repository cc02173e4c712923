"""What is known of items before anyone took one: their categories and the vectors of their texts."""

from collections.abc import Mapping

import msgspec
import numpy as np
import pandas as pd

from models import text
from models.recommenders.base import Floats, Vocabulary
from stream.events import Item


class Catalogue(msgspec.Struct, frozen=True):
    """Items that can be offered; `texts` float32 [items, d] stands beside `item_ids`, or is None.

    Raises:
        ValueError: `texts` has another number of rows than there are items.
    """

    item_ids: list[str]
    categories: Mapping[str, str] = {}
    texts: Floats | None = None

    def __post_init__(self) -> None:
        if self.texts is not None and len(self.texts) != len(self.item_ids):
            raise ValueError(f"texts has {len(self.texts)} rows for {len(self.item_ids)} items; give one for each item")

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Catalogue":
        """From `features.dataset.catalogue`: available items by id, their categories, and their titles' vectors."""
        records = [msgspec.json.decode(record, type=Item) for record in frame["record"]]
        items = sorted((one for one in records if one.available), key=lambda one: one.item_id)
        titled = any(one.title for one in items)
        texts = text.vectors([one.title or "" for one in items]) if titled else None
        categories = {one.item_id: one.category for one in items if one.category}
        return cls([one.item_id for one in items], categories, texts)

    def added(self, vocabulary: Vocabulary, most: int) -> Vocabulary:
        """The vocabulary, and behind it the items that it lacks, in their order here; at most `most` in all."""
        new = [item for item in dict.fromkeys(self.item_ids) if item not in vocabulary.index]
        return Vocabulary.of([*vocabulary.item_ids, *new][: max(most, len(vocabulary))]) if new else vocabulary

    def texts_of(self, vocabulary: Vocabulary) -> Floats | None:
        """float32 [vocabulary, d], zeros for items that are not in the catalogue."""
        if self.texts is None:
            return None
        out = np.zeros((len(vocabulary), self.texts.shape[1]), np.float32)
        for row, item in enumerate(self.item_ids):
            if (place := vocabulary.index.get(item)) is not None:
                out[place] = self.texts[row]
        return out


def borrowed(
    own: Floats, trained: int, categories: np.ndarray, texts: Floats | None, neighbours: int = 20, block: int = 512
) -> Floats:
    """Own vectors for items that nobody took: float32 [items - trained, size] from `own` [items, size].

    Each is the mean over the `neighbours` trained items whose texts are nearest (cosine above zero), those of its own
    category where any are; without texts over the category's trained items; else over all trained ones. Like an average
    item of its kind: as wanted, and as near to others.
    """
    out = np.tile(own[:trained].mean(axis=0), (len(own) - trained, 1)).astype(np.float32)
    known = categories[:trained]
    for code in np.unique(categories[trained:]):
        inside = np.flatnonzero(known == code) if code else np.arange(trained)
        if not len(inside):
            inside = np.arange(trained)
        rows = np.flatnonzero(categories[trained:] == code)
        out[rows] = own[inside].mean(axis=0)
        if texts is None:
            continue
        for start in range(0, len(rows), block):
            part = rows[start : start + block]
            near = _unit(texts[trained + part]) @ _unit(texts[inside]).T
            k = min(neighbours, len(inside))
            best = np.argpartition(-near, k - 1, axis=1)[:, :k]
            weights = np.take_along_axis(near, best, axis=1) > 0
            total = weights.sum(axis=1, keepdims=True)
            means = (own[inside][best] * weights[:, :, None]).sum(axis=1) / np.maximum(total, 1)
            out[part] = np.where(total > 0, means, out[part])
    return out


def _unit(table: Floats) -> Floats:
    scaled: Floats = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return scaled
