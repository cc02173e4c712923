"""What a profile, a category and a text say of items: factors of their probabilities."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from scipy import sparse

from models.arrays import AnyArray, Float32, Float64, Int32
from models.data.interactions import Interactions
from models.data.profiles import Profile, ProfileSchema
from models.synthesizers.conditions import Conditions, SynthesisError
from models.synthesizers.histories import Histories
from models.synthesizers.text_index import TextIndex

PREFERENCE: Final = 20.0
"""How many times more probable an item of the preferred category, or of the most similar title, becomes."""
BACK_OFF: Final = 20.0
"""Pseudo-events by which the items of users with an attribute are drawn towards those of all."""


class ItemPreferences:
    """Factors of items for a condition's profile, category and text.

    A category and a text multiply the probability of matching items by up to PREFERENCE. A profile multiplies item i by
    the product over its attributes a of P(i | a) / P(i), with P(i | a) = (n(i, a) + b P(i)) / (n(a) + b): attributes
    are independent given the item (naive Bayes).
    """

    def __init__(self) -> None:
        self.categories: Int32 = np.zeros(0, np.int32)
        self.category_names: list[str] = []
        self.texts: TextIndex | None = None
        self.schema = ProfileSchema()
        self.counts: sparse.csr_matrix = sparse.csr_matrix(np.zeros((0, 0), np.float32))
        self.popularity: Float32 = np.zeros(0, np.float32)

    def fit(self, interactions: Interactions) -> None:
        """Learn from interactions."""
        self.categories, self.category_names = interactions.categories, list(interactions.category_names)
        self.texts = TextIndex.fit(interactions.titles) if interactions.titles else None
        size, profiles = len(interactions.vocabulary), interactions.profiles
        counts = np.bincount(interactions.items, minlength=size)
        self.popularity = ((counts + 0.5) / (counts + 0.5).sum()).astype(np.float32)
        if profiles is None:
            return
        self.schema = profiles.schema
        codes = profiles.table[profiles.rows] + profiles.schema.offsets
        items = np.repeat(interactions.items, codes.shape[1])
        shape = (len(profiles.schema.labels), size)
        amounts = np.ones(len(items), np.float32)
        self.counts = sparse.csr_matrix((amounts, (codes.ravel(), items)), shape)

    def factors(self, conditions: Sequence[Conditions], profiles: Sequence[Profile | None]) -> Float32 | None:
        """float32 [rows, items]; None where nothing of this is given.

        Raises:
            SynthesisError: a category is unknown, or a text is given where items have no titles.
        """
        out: Float32 | None = None
        parts = (self._of_categories(conditions), self._of_texts(conditions), self._of_profiles(profiles))
        for part in parts:
            if part is not None:
                out = part if out is None else out * part
        return out

    def _of_categories(self, conditions: Sequence[Conditions]) -> Float32 | None:
        if all(condition.category is None for condition in conditions):
            return None
        codes = np.array([self._code(condition.category) for condition in conditions])
        same = (codes[:, None] > 0) & (self.categories[None, :] == codes[:, None])
        return np.where(same, np.float32(PREFERENCE), np.float32(1.0))

    def _code(self, category: str | None) -> int:
        """A category's code; 0 for None, and for any where items have no categories."""
        if category is None or not self.category_names:
            return 0
        if category not in self.category_names:
            raise SynthesisError(
                f"category {category!r}: no item has it; there are {len(self.category_names)}, "
                f"such as {', '.join(self.category_names[:5])}"
            )
        return self.category_names.index(category) + 1

    def _of_texts(self, conditions: Sequence[Conditions]) -> Float32 | None:
        if self.texts is None or all(condition.text is None for condition in conditions):
            return None
        similarities = self.texts.similarity([condition.text or "" for condition in conditions])
        largest = np.maximum(similarities.max(axis=1, keepdims=True, initial=0.0), 1e-9)
        factors: Float32 = 1 + np.float32(PREFERENCE - 1) * similarities / largest
        return factors

    def _of_profiles(self, profiles: Sequence[Profile | None]) -> Float32 | None:
        if not len(self.schema) or not any(profiles):
            return None
        codes = self.schema.encode(profiles)
        distinct, rows = np.unique(codes, axis=0, return_inverse=True)
        logs = np.zeros((len(distinct), len(self.popularity)), np.float32)
        for number, profile in enumerate(distinct):
            for code in (self.schema.offsets + profile)[profile > 0].tolist():
                counts = self.counts[code]
                shares = counts.toarray()[0] + np.float32(BACK_OFF) * self.popularity
                logs[number] += np.log(shares / ((counts.sum() + BACK_OFF) * self.popularity))
        factors: Float32 = np.exp(logs)[rows.ravel()]
        return factors

    def profile_evidence(self, histories: Histories) -> Float64 | None:
        """float64 [users, labels]: the sum over a user's events of log P(i | a) / P(i) for each label a of the schema.

        The same naive Bayes as in `factors`; None where there are no profiles.
        """
        if not len(self.schema):
            return None
        counts = sparse.csr_matrix(
            (np.ones(len(histories.items)), (histories.users, histories.items)), (len(histories), len(self.popularity))
        )
        evidence = np.zeros((len(histories), len(self.schema.labels)))
        for label in range(evidence.shape[1]):
            own = self.counts[label]
            shares = own.toarray()[0] + BACK_OFF * self.popularity
            evidence[:, label] = counts @ np.log(shares / ((own.sum() + BACK_OFF) * self.popularity))
        return evidence

    def arrays(self) -> dict[str, AnyArray]:
        """The state by name; names and the schema as JSON in bytes."""
        words = {f"text-{name}": array for name, array in self.texts.arrays().items()} if self.texts else {}
        counts = self.counts
        return {
            "categories": self.categories,
            "names": json_array([self.category_names, self.schema.to_json()]),
            "popularity": self.popularity,
            "data": counts.data,
            "indices": counts.indices,
            "indptr": counts.indptr,
            **words,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "ItemPreferences":
        """From what `arrays` returned. Raises KeyError where one is missing."""
        preferences = cls()
        preferences.categories, preferences.popularity = arrays["categories"], arrays["popularity"]
        preferences.category_names, schema = msgspec.json.decode(arrays["names"].tobytes())
        preferences.schema = ProfileSchema.from_json(schema)
        shape = (len(arrays["indptr"]) - 1, len(preferences.popularity))
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        preferences.counts = sparse.csr_matrix(parts, shape)
        words = named(arrays, "text-")
        preferences.texts = TextIndex.from_arrays(words) if words else None
        return preferences


def named(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The arrays whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def json_array(value: Any) -> AnyArray:
    """uint8 [n]: a value as JSON, for saving it with arrays."""
    return np.frombuffer(msgspec.json.encode(value), np.uint8)
