"""Similarity of items' titles by their words and pairs of words."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy import sparse

from models.arrays import AnyArray, Float32

COLUMNS: Final = 1 << 16
"""Words and pairs of adjacent words are hashed into this many columns (Weinberger et al., ICML 2009)."""


class TextIndex:
    """TF-IDF of words and bigrams. `matrix` float32 [items, COLUMNS], rows of length 1; `idf` float32 [COLUMNS]."""

    def __init__(self, matrix: sparse.csr_matrix, idf: Float32) -> None:
        self.matrix: sparse.csr_matrix = matrix
        self.idf = idf

    @classmethod
    def fit(cls, titles: Sequence[str]) -> "TextIndex":
        """From a title for each item, an empty one for items without text."""
        counts = word_counts(titles)
        having = np.bincount(counts.indices, minlength=COLUMNS)
        idf = (np.log((1.0 + len(titles)) / (1.0 + having)) + 1.0).astype(np.float32)
        return cls(_weighted(counts, idf), idf)

    def similarity(self, texts: Sequence[str]) -> Float32:
        """float32 [texts, items]: cosine of each text to each item's title."""
        similarities: Float32 = (_weighted(word_counts(texts), self.idf) @ self.matrix.T).toarray()
        return similarities

    def arrays(self) -> dict[str, AnyArray]:
        """The state by name."""
        matrix = self.matrix
        return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "idf": self.idf}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "TextIndex":
        """From what `arrays` returned. Raises KeyError where one is missing."""
        shape = (len(arrays["indptr"]) - 1, COLUMNS)
        return cls(sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape), arrays["idf"])


def word_counts(texts: Sequence[str]) -> sparse.csr_matrix:
    """float32 [texts, COLUMNS]: how often each word and bigram occurs."""
    from sklearn.feature_extraction.text import HashingVectorizer

    hashing = HashingVectorizer(
        n_features=COLUMNS, ngram_range=(1, 2), norm=None, alternate_sign=False, dtype=np.float32
    )
    counts: sparse.csr_matrix = hashing.transform(list(texts)).tocsr()
    counts.sum_duplicates()
    return counts


def _weighted(counts: sparse.csr_matrix, idf: Float32) -> sparse.csr_matrix:
    table = counts.copy()
    table.data = (1.0 + np.log(table.data)) * idf[table.indices]
    lengths = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    scaled: sparse.csr_matrix = (sparse.diags(1.0 / np.maximum(lengths, 1e-12)) @ table).tocsr().astype(np.float32)
    return scaled
