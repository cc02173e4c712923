"""The items that a recommender knows, and how much each kind of event counts as a preference for its item."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import pandas as pd

from stream.events import KINDS

PREFERENCE_WEIGHTS: Final[Mapping[str, float]] = {
    "view": 0.3,
    "click": 0.5,
    "read": 0.7,
    "play": 0.7,
    "cart": 0.8,
    "save": 0.8,
    "like": 1.0,
    "rate": 1.0,
    "purchase": 1.0,
}
"""How much an event of each kind counts as a preference for its item; kinds not listed (skip, dislike, hide, remove,
cancel) count 0. A domain's preset can replace this table. What an event adds to a popularity count is a different
table: `features.popularity`."""
POPULARITY_HALF_LIFE_MS: Final = 28 * 24 * 60 * 60 * 1000
"""Default half-life of the popularity prior, which orders items that the history does not distinguish."""


def kind_weights_of(weights: Mapping[str, float]) -> tuple[float, ...]:
    """Weights by event code, from weights by kind; 0 for kinds that are not named.

    >>> kind_weights_of({"view": 0.5})[:3]
    (0.5, 0.0, 0.0)
    """
    return tuple(float(weights.get(kind, 0.0)) for kind in KINDS)


DEFAULT_KIND_WEIGHTS: Final = kind_weights_of(PREFERENCE_WEIGHTS)


class Vocabulary(msgspec.Struct, frozen=True):
    """The items that a recommender knows, most popular first; an item's position is its index.

    `kind_weights`: preference weight by event code. `popularity_half_life_ms`: half-life of the popularity prior.
    """

    item_ids: list[str]
    index: dict[str, int]
    kind_weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS
    popularity_half_life_ms: float = POPULARITY_HALF_LIFE_MS

    @classmethod
    def from_items(
        cls,
        item_ids: Sequence[str],
        kind_weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS,
        popularity_half_life_ms: float = POPULARITY_HALF_LIFE_MS,
    ) -> "Vocabulary":
        """Items in the order in which they are given."""
        index = {item: number for number, item in enumerate(item_ids)}
        return cls(list(item_ids), index, kind_weights, popularity_half_life_ms)

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        min_count: int = 1,
        max_items: int = 1_000_000,
        kind_weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS,
        popularity_half_life_ms: float = POPULARITY_HALF_LIFE_MS,
    ) -> "Vocabulary":
        """Items with at least `min_count` rows of `frame` [item_id], by falling count, ties by id."""
        counts = frame["item_id"].value_counts()
        kept = counts[counts >= min_count].reset_index()
        kept.columns = pd.Index(["item_id", "n"])
        ordered = kept.sort_values(["n", "item_id"], ascending=[False, True])["item_id"].tolist()
        return cls.from_items(ordered[:max_items], kind_weights, popularity_half_life_ms)

    def __len__(self) -> int:
        return len(self.item_ids)
