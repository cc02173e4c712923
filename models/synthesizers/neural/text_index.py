"""Which items a text describes: TF-IDF over hashed words of their titles."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy import sparse

from models.arrays import AnyArray, Float32

COLUMNS: Final = 1 << 16
MATCHES: Final = 20
"""A text stands for the mean of so many items that match it best."""


class TextIndex:
    """The titles of items as rows of word counts, float32 [items, COLUMNS], scaled by each word's rarity."""

    def __init__(self, rows: sparse.csr_matrix, rarity: Float32) -> None:
        self.rows, self.rarity = rows, rarity

    @classmethod
    def fit(cls, titles: Sequence[str]) -> "TextIndex":
        """From a title for each item."""
        counts = _counts(titles)
        having = np.bincount(counts.indices, minlength=COLUMNS)
        rarity = (np.log((1.0 + len(titles)) / (1.0 + having)) + 1.0).astype(np.float32)
        return cls((counts @ sparse.diags(rarity)).astype(np.float32).tocsr(), rarity)

    def mean(self, text: str, vectors: Float32) -> Float32:
        """float32 [d]: the mean of `vectors` [items, d] of the items that match, weighted by how well, of length 1.

        Zeros where no item has a word of the text.
        """
        scores = np.asarray((self.rows @ (_counts([text]).multiply(self.rarity)).T).todense()).ravel()
        best = np.argsort(-scores, kind="stable")[:MATCHES]
        mean = scores[best] @ vectors[best]
        length = float(np.linalg.norm(mean))
        result: Float32 = (mean / length if length > 0 else np.zeros(vectors.shape[1])).astype(np.float32)
        return result

    def arrays(self) -> dict[str, AnyArray]:
        """The state by name."""
        return {"data": self.rows.data, "indices": self.rows.indices, "indptr": self.rows.indptr, "rarity": self.rarity}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "TextIndex":
        """From what `arrays` returned. Raises KeyError where one is missing."""
        parts = (arrays["data"], arrays["indices"], arrays["indptr"])
        return cls(sparse.csr_matrix(parts, (len(parts[2]) - 1, COLUMNS)), arrays["rarity"])


def _counts(texts: Sequence[str]) -> sparse.csr_matrix:
    from sklearn.feature_extraction.text import HashingVectorizer

    words = HashingVectorizer(n_features=COLUMNS, alternate_sign=False, norm="l2", ngram_range=(1, 2))
    counts: sparse.csr_matrix = words.transform(list(texts)).tocsr()
    return counts
