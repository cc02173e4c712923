"""What the catalogue says of items: their categories and the vectors of their titles."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
import numpy as np
import pandas as pd

from features.catalogue import CatalogueEntry
from models.arrays import Float32
from models.data import text_vectors
from models.data.vocabulary import Vocabulary

MIN_NEW_ITEMS: Final = 1_000
MAX_NEW_SHARE: Final = 0.25
"""A vocabulary grows by at most `MIN_NEW_ITEMS` cold items or this share of itself, whichever is more: a long catalogue
without events must not make every training run slow and large."""


class ItemFeatures(msgspec.Struct, frozen=True):
    """Categories and texts of the catalogue's items, most recently updated first where that is known.

    `texts` float32 [items, size] in the order of `item_ids`, or None; `titles_digest` is a digest of the titles that
    they were made from; `titles` are these titles by item. Only the first `recommendable` items (None: all) may join a
    vocabulary that lacks them.

    Raises:
        ValueError: `texts` has another number of rows than there are items.
    """

    item_ids: list[str]
    categories: Mapping[str, str] = {}
    texts: Float32 | None = None
    recommendable: int | None = None
    titles_digest: str = ""
    titles: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        if self.texts is not None and len(self.texts) != len(self.item_ids):
            raise ValueError(f"texts has {len(self.texts)} rows for {len(self.item_ids)} items; give one for each item")

    @classmethod
    def from_frame(cls, frame: pd.DataFrame) -> "ItemFeatures":
        """From `features.dataset.catalogue`: available items by id, their categories, and their titles' vectors."""
        items = [msgspec.json.decode(record, type=CatalogueEntry) for record in frame["record"]]
        return cls.from_items(sorted((item for item in items if item.available), key=_newest_first))

    @classmethod
    def from_items(cls, items: Sequence[CatalogueEntry], recommendable: int | None = None) -> "ItemFeatures":
        """From items in their order."""
        titles = [item.title or "" for item in items]
        return cls(
            item_ids=[item.item_id for item in items],
            categories={item.item_id: item.category for item in items if item.category},
            texts=text_vectors.vectors(titles) if any(titles) else None,
            recommendable=recommendable,
            titles_digest=_digest(msgspec.json.encode(titles)),
            titles={item.item_id: item.title for item in items if item.title},
        )

    def extend_vocabulary(self, vocabulary: Vocabulary, max_items: int) -> Vocabulary:
        """The vocabulary followed by the first of the items that it lacks; at most `max_items` in all."""
        new = [item for item in dict.fromkeys(self.item_ids[: self.recommendable]) if item not in vocabulary.index]
        new = new[: max(MIN_NEW_ITEMS, round(MAX_NEW_SHARE * len(vocabulary)))]
        if not new:
            return vocabulary
        item_ids = [*vocabulary.item_ids, *new][: max(max_items, len(vocabulary))]
        return Vocabulary.from_items(item_ids, vocabulary.kind_weights, vocabulary.popularity_half_life_ms)

    def fingerprint(self) -> str:
        """16 hex digits of the features: the same on every machine, which the vectors of titles are not."""
        texts = b"" if self.texts is None or self.titles_digest else self.texts.tobytes()
        facts = [self.item_ids, sorted(self.categories.items()), self.recommendable, self.titles_digest]
        return _digest(msgspec.json.encode(facts) + texts)

    def text_matrix(self, vocabulary: Vocabulary) -> Float32 | None:
        """float32 [vocabulary, size], zeros for items that the catalogue lacks; None without texts."""
        if self.texts is None:
            return None
        matrix = np.zeros((len(vocabulary), self.texts.shape[1]), np.float32)
        for row, item in enumerate(self.item_ids):
            if (index := vocabulary.index.get(item)) is not None:
                matrix[index] = self.texts[row]
        return matrix


def _newest_first(item: CatalogueEntry) -> tuple[int, str]:
    return -item.at, item.item_id


def _digest(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()
