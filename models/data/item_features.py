"""What is known of items before anyone took one: their categories and the vectors of their texts."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
import numpy as np
import pandas as pd
from scipy import sparse

from models.arrays import Float32, Int32, Int64
from models.data import text_vectors
from models.recommenders.base import Vocabulary
from stream.events import Item

LEAST_NEW: Final = 1_000
NEW_SHARE: Final = 0.25
"""A vocabulary grows by at most so many new items, or this share of itself, whichever is more: a long catalogue that
nobody takes anything of must not make every training run slow and large."""


class Catalogue(msgspec.Struct, frozen=True):
    """Items that can be offered, the newest word first where that is known.

    `texts` float32 [items, d] stands beside `item_ids`, or is None; `titles` is a digest of what they were made from.
    The first `offered` items (None: all) may join a vocabulary that lacks them; the others only lend their categories
    and texts.

    Raises:
        ValueError: `texts` has another number of rows than there are items.
    """

    item_ids: list[str]
    categories: Mapping[str, str] = {}
    texts: Float32 | None = None
    offered: int | None = None
    titles: str = ""

    def __post_init__(self) -> None:
        if self.texts is not None and len(self.texts) != len(self.item_ids):
            raise ValueError(f"texts has {len(self.texts)} rows for {len(self.item_ids)} items; give one for each item")

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "Catalogue":
        """From `features.dataset.catalogue`: available items by id, their categories, and their titles' vectors."""
        records = [msgspec.json.decode(record, type=Item) for record in frame["record"]]
        return cls.of_items(sorted((one for one in records if one.available), key=lambda one: (-one.at, one.item_id)))

    @classmethod
    def of_items(cls, items: Sequence[Item], offered: int | None = None) -> "Catalogue":
        """From items in their order."""
        titles = [one.title or "" for one in items]
        texts = text_vectors.vectors(titles) if any(titles) else None
        categories = {one.item_id: one.category for one in items if one.category}
        return cls([one.item_id for one in items], categories, texts, offered, _digest(msgspec.json.encode(titles)))

    def added(self, vocabulary: Vocabulary, most: int) -> Vocabulary:
        """The vocabulary, and behind it the first of the items that it lacks; at most `most` in all."""
        new = [item for item in dict.fromkeys(self.item_ids[: self.offered]) if item not in vocabulary.index]
        new = new[: max(LEAST_NEW, round(NEW_SHARE * len(vocabulary)))]
        if not new:
            return vocabulary
        every = [*vocabulary.item_ids, *new][: max(most, len(vocabulary))]
        return Vocabulary.of(every, vocabulary.weights, vocabulary.recency_ms)

    def fingerprint(self) -> str:
        """16 hex digits of what is known of the items: the same on every machine, as vectors of titles are not."""
        texts = b"" if self.texts is None or self.titles else self.texts.tobytes()
        told = msgspec.json.encode([self.item_ids, sorted(self.categories.items()), self.offered, self.titles])
        return _digest(told + texts)

    def texts_of(self, vocabulary: Vocabulary) -> Float32 | None:
        """float32 [vocabulary, d], zeros for items that are not in the catalogue."""
        if self.texts is None:
            return None
        out = np.zeros((len(vocabulary), self.texts.shape[1]), np.float32)
        for row, item in enumerate(self.item_ids):
            if (place := vocabulary.index.get(item)) is not None:
                out[place] = self.texts[row]
        return out


class Lenders(msgspec.Struct, frozen=True):
    """Whose own vectors a new item borrows: `shares` float64 [rows, trained], `places` int64 [new]: its row there."""

    shares: sparse.csr_matrix
    places: Int64

    def lent(self, own: Float32) -> Float32:
        """float32 [new, size]: own vectors for the new items, from those of the trained ones [trained, size]."""
        means: Float32 = (self.shares @ own).astype(np.float32)[self.places]
        return means


def lenders(trained: int, categories: Int32, texts: Float32 | None, neighbours: int = 20, block: int = 512) -> Lenders:
    """For each item behind the first `trained`: the trained items that it is like, in equal shares.

    Those are the `neighbours` whose texts are nearest (cosine above zero), of its own category where any are; without
    texts the category's trained items; else all trained ones. It is then like an average item of its kind: as wanted,
    and as near to others.
    """
    known, new = categories[:trained], categories[trained:]
    parts: list[Int64] = []
    places = np.zeros(len(new), np.int64)
    for code in np.unique(new):
        inside = np.flatnonzero(known == code) if code else np.arange(trained)
        inside = inside if len(inside) else np.arange(trained)
        rows = np.flatnonzero(new == code)
        places[rows] = len(parts)
        parts.append(inside)
        for start in range(0, len(rows) if texts is not None else 0, block):
            assert texts is not None
            part = rows[start : start + block]
            near = _unit(texts[trained + part]) @ _unit(texts[inside]).T
            best = np.argpartition(-near, min(neighbours, len(inside)) - 1, axis=1)[:, :neighbours]
            for row, found, close in zip(part, best, near, strict=True):
                alike = found[close[found] > 0]
                if len(alike):
                    places[row] = len(parts)
                    parts.append(inside[alike])
    sizes = np.array([len(one) for one in parts], np.int64)
    columns = np.concatenate(parts) if parts else np.zeros(0, np.int64)
    amounts = np.repeat(1 / np.maximum(sizes, 1), sizes)
    table = sparse.csr_matrix((amounts, columns, np.append(0, np.cumsum(sizes))), (len(parts), trained))
    return Lenders(table, places)


def _digest(told: bytes) -> str:
    return blake2b(told, digest_size=8).hexdigest()


def _unit(table: Float32) -> Float32:
    scaled: Float32 = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return scaled
