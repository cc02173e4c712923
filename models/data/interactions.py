"""Interactions as arrays: each user's events together, in time order."""

from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
import pandas as pd
from scipy import sparse

from models.arrays import Float32, Float64, Int32, Int64
from models.data.item_features import ItemFeatures
from models.data.profiles import EventProfiles, ProfileHistory
from models.data.vocabulary import DEFAULT_KIND_WEIGHTS, POPULARITY_HALF_LIFE_MS, Vocabulary
from stream.events import KIND_CODES

MAX_VALUE: Final = 1e15
"""Of an event's value, either way: its square has to fit into float32."""


class Interactions(msgspec.Struct, frozen=True):
    """Positive events on known items: each user's together, in time order, ties in the order of arrival.

    Per event: `users` int64 (codes, ascending), `items` int32 (indices of the vocabulary), `kinds` int32 (event codes),
    `at` int64 (epoch ms), `values` float32 (stars, seconds, a price; nan where there is none) or None, `profiles` (what
    was known of the users before each event) or None. Per item: `categories` int32 (codes from 1, 0 for none), `texts`
    float32 [items, size] or None, `titles` (an empty text for items without one) or None. `category_names`: the name of
    each code, from 1 on. The first `warm_items` items have events here (None: all have); those after them are
    known from the catalogue alone.
    """

    vocabulary: Vocabulary
    users: Int64
    items: Int32
    kinds: Int32
    at: Int64
    categories: Int32
    values: Float32 | None = None
    texts: Float32 | None = None
    warm_items: int | None = None
    profiles: EventProfiles | None = None
    category_names: tuple[str, ...] = ()
    titles: tuple[str, ...] | None = None

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        vocabulary: Vocabulary | None = None,
        *,
        min_count: int = 1,
        max_items: int = 1_000_000,
        categories: Mapping[str, str] | None = None,
        item_features: ItemFeatures | None = None,
        profiles: ProfileHistory | None = None,
        kind_weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS,
        popularity_half_life_ms: float = POPULARITY_HALF_LIFE_MS,
    ) -> "Interactions":
        """From a frame [user_id, item_id, kind, at] in time order, without items of fewer than `min_count` events.

        `categories` names items' categories; by default the frame's column `category` does, where there is one. Items
        of `item_features` without events follow the others in the vocabulary, and its categories and texts are used;
        a `vocabulary` that is given stays as it is, with its own kind weights and half-life. `profiles` are read as
        they were known before each event. `kind_weights` and `popularity_half_life_ms`: see `Vocabulary`.
        """
        codes = frame["kind"].map(KIND_CODES).to_numpy(np.int64)
        positive = np.array(vocabulary.kind_weights if vocabulary is not None else kind_weights)[codes] > 0
        frame, codes = frame[positive], codes[positive]
        category_names = {**(categories if categories is not None else _categories_in(frame))}
        if vocabulary is None:
            vocabulary = Vocabulary.fit(frame, min_count, max_items, kind_weights, popularity_half_life_ms)
            warm_items = len(vocabulary)
            if item_features is not None:
                vocabulary = item_features.extend_vocabulary(vocabulary, max_items)
        else:
            warm_items = _with_events(frame, vocabulary)
        if item_features is not None:
            category_names = {**category_names, **item_features.categories}
        items = frame["item_id"].map(vocabulary.index).to_numpy(np.float64, na_value=-1.0).astype(np.int32)
        kept = np.flatnonzero((items >= 0) & (items < warm_items))  # rare items of the catalogue count as cold
        user_ids = frame["user_id"].to_numpy()[kept]
        users = pd.factorize(user_ids)[0]
        order = np.argsort(users, kind="stable")
        kept, at = kept[order], frame["at"].to_numpy(np.int64)[kept[order]]
        return cls(
            vocabulary=vocabulary,
            users=users[order].astype(np.int64),
            items=items[kept],
            kinds=codes[kept].astype(np.int32),
            at=at,
            categories=_category_codes(vocabulary, category_names),
            category_names=tuple(sorted(set(category_names.values()))),
            titles=_titles(vocabulary, item_features.titles) if item_features is not None else None,
            values=_values(frame["value"])[kept] if "value" in frame else None,
            texts=item_features.text_matrix(vocabulary) if item_features is not None else None,
            warm_items=warm_items,
            profiles=profiles.before_events(user_ids[order], at) if profiles is not None and len(profiles) else None,
        )

    def __len__(self) -> int:
        return len(self.items)

    @property
    def has_item_text(self) -> bool:
        """Whether any item has a title or a category."""
        return self.titles is not None or bool(self.categories.any())

    @property
    def user_count(self) -> int:
        return int(self.users[-1]) + 1 if len(self) else 0

    def of_users(self, users: Int64) -> "Interactions":
        """The events of the given users (codes, in any order); users get new codes, items keep theirs."""
        kept = np.flatnonzero(np.isin(self.users, users))
        profiles = self.profiles
        return msgspec.structs.replace(
            self,
            users=np.unique(self.users[kept], return_inverse=True)[1].astype(np.int64),
            items=self.items[kept],
            kinds=self.kinds[kept],
            at=self.at[kept],
            values=self.values[kept] if self.values is not None else None,
            profiles=msgspec.structs.replace(profiles, rows=profiles.rows[kept]) if profiles is not None else None,
        )

    def event_weights(self, half_life_ms: float | None = None) -> Float64:
        """float64 [events]: the kind's weight, times 2^(-age / half-life), ages against the newest event."""
        weights = np.array(self.vocabulary.kind_weights)[self.kinds]
        if half_life_ms is not None and len(self):
            weights = weights * np.exp2(-(self.at.max() - self.at) / half_life_ms)
        return weights

    def user_item_matrix(self, half_life_ms: float | None = None, max_per_user: int = 500) -> sparse.csr_matrix:
        """float32 [users, items]: 1 where a user took an item, or 2^(-age / half-life) of the newest such event.

        Only each user's newest `max_per_user` events count.
        """
        n = len(self)
        ends = np.searchsorted(self.users, np.arange(self.user_count), side="right")
        kept = np.flatnonzero(ends[self.users] - 1 - np.arange(n) < max_per_user)
        keys = self.users[kept] * max(1, len(self.vocabulary)) + self.items[kept]
        _, last = np.unique(keys[::-1], return_index=True)
        newest = kept[len(kept) - 1 - last]
        values = np.ones(len(newest), np.float32)
        if half_life_ms is not None and n:
            values = np.exp2(-(self.at.max() - self.at[newest]) / half_life_ms).astype(np.float32)
        shape = (self.user_count, len(self.vocabulary))
        return sparse.csr_matrix((values, (self.users[newest], self.items[newest])), shape)


def _values(column: pd.Series) -> Float32:
    numbers = column.to_numpy(np.float64, na_value=np.nan)
    bounded: Float32 = np.clip(numbers, -MAX_VALUE, MAX_VALUE).astype(np.float32)
    return bounded


def _categories_in(frame: pd.DataFrame) -> Mapping[str, str]:
    if "category" not in frame:
        return {}
    newest = frame[["item_id", "category"]].dropna().drop_duplicates("item_id", keep="last")
    return dict(zip(newest["item_id"], newest["category"].astype(str), strict=True))


def _with_events(frame: pd.DataFrame, vocabulary: Vocabulary) -> int:
    """How many of a given vocabulary's items come before and with the last item that has events."""
    indices = pd.Series(frame["item_id"].unique()).map(vocabulary.index)
    return int(indices.max()) + 1 if indices.notna().any() else 0


def _titles(vocabulary: Vocabulary, titles: Mapping[str, str]) -> tuple[str, ...] | None:
    """Each item's title, an empty text for those without; None where no item has a title."""
    return tuple(titles.get(item, "") for item in vocabulary.item_ids) if titles else None


def _category_codes(vocabulary: Vocabulary, categories: Mapping[str, str]) -> Int32:
    """int32 [items]: codes from 1 in alphabetical order of the categories; 0 for items without one."""
    codes = {name: number + 1 for number, name in enumerate(sorted(set(categories.values())))}
    return np.array([codes.get(categories.get(item, ""), 0) for item in vocabulary.item_ids], np.int32)
