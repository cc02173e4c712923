"""Vectors of items' texts, from the texts alone: hashed words and letters, TF-IDF, truncated SVD."""

import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from models.arrays import Float32

COLUMNS: Final = 1 << 16
"""Words and letter groups are hashed into this many columns (Weinberger et al., ICML 2009)."""
LETTERS: Final = 4
"""Length of the letter groups, which words of one stem share."""
LEARNED_FROM: Final = 20_000
"""Of more texts an even part of about so many gives the directions; all are laid out along them."""
WORD: Final = re.compile(r"\w+")


def vectors(texts: Sequence[str], size: int = 64) -> Float32:
    """float32 [texts, size], each of length 1, or zero where a text has no word; the same for the same texts.

    Latent semantic analysis, with folding-in where texts are many (Deerwester et al., 1990). Columns beyond the rank of
    the texts are zero.
    """
    table = tfidf(texts)
    out = np.zeros((len(texts), size), np.float32)
    learned = table[:: -(-max(1, table.shape[0]) // LEARNED_FROM)]
    used = np.flatnonzero(np.diff(learned.tocsc().indptr))
    table, learned = table[:, used], learned[:, used]
    rank = min(size, *(side - 1 for side in learned.shape)) if min(learned.shape) > 1 else 0
    if rank < 1:  # a single text, or a single word in all, is its own direction
        out[np.diff(table.indptr) > 0, 0] = 1.0
        return out
    begin = np.random.default_rng(0).standard_normal(min(learned.shape))
    _, weights, right = svds(learned, k=rank, v0=begin)
    projected = table @ right[np.argsort(-weights)].T
    largest = projected[np.abs(projected).argmax(axis=0), np.arange(rank)]
    projected *= np.where(largest < 0, -1.0, 1.0)  # SVD leaves signs open
    lengths = np.linalg.norm(projected, axis=1, keepdims=True)
    out[:, :rank] = np.where(lengths > 1e-6, projected / np.maximum(lengths, 1e-12), 0.0)
    return out


def tfidf(texts: Sequence[str], max_texts: int | None = None) -> sparse.csr_matrix:
    """float64 [texts, COLUMNS]: (1 + log count) * log(texts / texts that have it), rows of length 1, or zero.

    Words and letter groups that more than `max_texts` texts have are left out; None: none is.
    """
    known: dict[str, list[int]] = {}
    columns: list[int] = []
    ends = [0]
    for text in texts:
        for word in WORD.findall(text.lower()):
            if word not in known:
                known[word] = list(_columns(word))
            columns += known[word]
        ends.append(len(columns))
    table = sparse.csr_matrix((np.ones(len(columns)), columns, ends), (len(texts), COLUMNS))
    table.sum_duplicates()
    table.data = 1.0 + np.log(table.data)
    having = np.bincount(table.indices, minlength=COLUMNS)
    rarity = np.log((1.0 + len(texts)) / (1.0 + having)) + 1.0
    if max_texts is not None:
        rarity[having > max_texts] = 0.0
    table = table @ sparse.diags(rarity)
    table.eliminate_zeros()
    lengths = np.sqrt(np.asarray(table.power(2).sum(axis=1)).ravel())
    return sparse.csr_matrix(sparse.diags(1.0 / np.maximum(lengths, 1e-12)) @ table)


def _columns(word: str) -> Iterator[int]:
    yield zlib.crc32(word.encode()) % COLUMNS
    spaced = f" {word} "
    for start in range(len(spaced) - LETTERS + 1):
        yield zlib.crc32(f"#{spaced[start : start + LETTERS]}".encode()) % COLUMNS
