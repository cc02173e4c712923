"""What is known of items besides who took them: category, price, time on sale, and whether they are in stock."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import pandas as pd

from features.catalogue import CatalogueEntry
from models.arrays import Bool, Float32, Int32, Int64
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary

ALWAYS: Final = np.iinfo(np.int64).max
"""The end of sale of an item that has none."""


class ItemFacts(msgspec.Struct, frozen=True):
    """Facts of each item of a vocabulary.

    `categories` int32 [items] (codes from 1 of `category_names`, 0 for none), `prices` float32 [items] (nan: unknown),
    `released`, `expires` int64 [items] (epoch ms, 0 and ALWAYS: unknown), `available` bool [items], `titles` or none.
    """

    vocabulary: Vocabulary
    categories: Int32
    category_names: tuple[str, ...]
    prices: Float32
    released: Int64
    expires: Int64
    available: Bool
    titles: tuple[str, ...] = ()

    @classmethod
    def from_interactions(cls, interactions: Interactions, catalogue: Sequence[CatalogueEntry] = ()) -> "ItemFacts":
        """From events, and from the catalogue where there is one.

        A price is the catalogue's attribute `price`, or the median value of the item's events. An item is released with
        its first event, or with its catalogue entry where it has none.
        """
        vocabulary, size = interactions.vocabulary, len(interactions.vocabulary)
        released = np.full(size, ALWAYS, np.int64)
        np.minimum.at(released, interactions.items, interactions.at)
        prices, expires = median_values(interactions), np.full(size, ALWAYS, np.int64)
        available = np.ones(size, np.bool_)
        for entry in catalogue:
            index = vocabulary.index.get(entry.item_id)
            if index is None:
                continue
            available[index] = entry.available
            expires[index] = entry.expires_at or ALWAYS
            released[index] = min(released[index], entry.at) if released[index] == ALWAYS else released[index]
            price = entry.attributes.get("price")
            if isinstance(price, int | float):
                prices[index] = price
        return cls(
            vocabulary=vocabulary,
            categories=interactions.categories,
            category_names=interactions.category_names,
            prices=prices,
            released=np.where(released == ALWAYS, 0, released),
            expires=expires,
            available=available,
            titles=interactions.titles or (),
        )


def median_values(interactions: Interactions) -> Float32:
    """float32 [items]: the median value of each item's events; nan where it has none."""
    prices = np.full(len(interactions.vocabulary), np.nan, np.float32)
    if interactions.values is not None:
        medians = pd.Series(interactions.values).groupby(interactions.items).median().dropna()
        prices[medians.index.to_numpy()] = medians.to_numpy(np.float32)
    return prices
