"""Chains of items: the next item depends on the one before it, by weighted sparse distributions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import sparse

from models.arrays import AnyArray, Float32, Float64, Int32, Int64
from models.synthesizers.item_preferences import named


class Link:
    """One part of a mixture: after item i, with probability `weights[i]`, an item from row `rows[i]` of `matrix`.

    `weights` float32 [items]; `rows` int32 [items]; `matrix` float32 [rows, items], sparse, rows that are used sum to
    one.
    """

    def __init__(self, weights: Float32, rows: Int32, matrix: sparse.csr_matrix) -> None:
        self.weights, self.rows = weights, rows
        self.matrix: sparse.csr_matrix = matrix
        self._cumulative: Float64 = np.concatenate([[0.0], np.cumsum(matrix.data, dtype=np.float64)])

    def dense(self, items: Int64) -> Float32:
        """float32 [n, items]: the distribution after each item, times its weight."""
        rows, inverse = np.unique(self.rows[items], return_inverse=True)
        out: Float32 = self.matrix[rows].toarray()[inverse] * self.weights[items][:, None]
        return out

    def draw(self, items: Int64, uniform: Float64) -> Int32:
        """int32 [n]: an item after each of `items`, by inversion of `uniform` float64 [n]."""
        rows = self.rows[items]
        starts, ends = self.matrix.indptr[rows], self.matrix.indptr[rows + 1]
        low, high = self._cumulative[starts], self._cumulative[ends]
        places = np.searchsorted(self._cumulative, low + uniform * (high - low), side="right") - 1
        drawn: Int32 = self.matrix.indices[np.clip(places, starts, ends - 1)].astype(np.int32)
        return drawn

    def spread(self, distribution: Float32) -> Float32:
        """float32 [n, items]: what a distribution float32 [n, items] over the items before becomes."""
        items = np.arange(len(self.rows))
        shape = (len(self.rows), self.matrix.shape[0])
        groups = sparse.csr_matrix((self.weights, (items, self.rows)), shape)
        out: Float32 = np.asarray((distribution @ groups) @ self.matrix, np.float32)
        return out

    def mass(self, factors: Float32) -> Float32:
        """float32 [n, items]: after each item, the weighted sum of `factors` float32 [n, items]."""
        out: Float32 = np.asarray((self.matrix @ factors.T)[self.rows] * self.weights[:, None], np.float32).T
        return out

    def at(self, sources: Int64, targets: Int64) -> Float64:
        """float64 [n]: the weighted probability of each target after its source."""
        shares = np.asarray(self.matrix[self.rows[sources], targets], np.float64).ravel()
        probabilities: Float64 = shares * self.weights[sources]
        return probabilities

    def arrays(self) -> dict[str, AnyArray]:
        """The state by name."""
        matrix = self.matrix
        parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
        return {**parts, "weights": self.weights, "rows": self.rows}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "Link":
        """From what `arrays` returned. Raises KeyError where one is missing."""
        shape = (len(arrays["indptr"]) - 1, len(arrays["rows"]))
        matrix = sparse.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape)
        return cls(arrays["weights"], arrays["rows"], matrix)


class Chain:
    """A mixture of `links`, whose weights sum to one for every item; `start` float32 [items] where no item is known."""

    def __init__(self, links: Sequence[Link], start: Float32) -> None:
        self.links = list(links)
        self.start = start

    def after(self, items: Int32) -> Float32:
        """float32 [n, items]: the distribution after each of `items` int32 [n] (-1: none)."""
        known = np.maximum(items, 0)
        out = np.tile(self.start, (len(items), 1))
        real = np.flatnonzero(items >= 0)
        if len(real):
            out[real] = sum(link.dense(known[real]) for link in self.links)
        return out

    def draw(self, items: Int32, uniform: Float64) -> Int32:
        """int32 [n]: an item after each of `items` int32 [n] (-1: none); `uniform` float64 [n, 2]."""
        start = np.cumsum(self.start, dtype=np.float64)
        drawn: Int32 = np.minimum(np.searchsorted(start, uniform[:, 0] * start[-1]), len(start) - 1).astype(np.int32)
        real = items >= 0
        known = np.maximum(items, 0)
        weights = np.cumsum([link.weights[known] for link in self.links], axis=0, dtype=np.float64)
        part = (weights < uniform[:, 1] * weights[-1]).sum(axis=0)
        for number, link in enumerate(self.links):
            rows = np.flatnonzero(real & (part == number))
            drawn[rows] = link.draw(known[rows], uniform[rows, 0])
        return drawn

    def spread(self, distribution: Float32, factors: Float32 | None = None) -> Float32:
        """float32 [n, items]: one step after items of a `distribution` [n, items], each step weighted by `factors`."""
        if factors is None:
            return sum((link.spread(distribution) for link in self.links), np.zeros_like(distribution))
        masses = sum((link.mass(factors) for link in self.links), np.zeros_like(factors))
        return self.spread((distribution / np.maximum(masses, 1e-30)).astype(np.float32)) * factors

    def at(self, sources: Int64, targets: Int64) -> Float64:
        """float64 [n]: the probability of each target after its source (-1: none)."""
        shares = sum((link.at(np.maximum(sources, 0), targets) for link in self.links), np.zeros(len(targets)))
        out: Float64 = np.where(sources < 0, self.start[targets], shares)
        return out

    def arrays(self) -> dict[str, AnyArray]:
        """The state by name."""
        links = {
            f"link{number}-{name}": array
            for number, link in enumerate(self.links)
            for name, array in link.arrays().items()
        }
        return {"start": self.start, **links}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "Chain":
        """From what `arrays` returned. Raises KeyError where one is missing."""
        count = sum(name.endswith("-weights") for name in arrays)
        return cls([Link.from_arrays(named(arrays, f"link{number}-")) for number in range(count)], arrays["start"])


def backing_off(own: Sequence[tuple[Float32, Int32, sparse.csr_matrix]], base: Float32) -> list[Link]:
    """Links in which each level takes its share of what the levels before it left; the rest goes to `base` [items].

    A level: its share float32 [items] (0 where its row is empty), `rows` int32 [items], and a row-stochastic `matrix`.
    """
    rest, links = np.ones(len(base), np.float32), []
    for share, rows, matrix in own:
        links.append(Link((rest * share).astype(np.float32), rows, matrix))
        rest = rest * (1 - share)
    return [*links, Link(rest.astype(np.float32), np.zeros(len(base), np.int32), sparse.csr_matrix(base))]


def row_stochastic(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """float32: rows scaled to sum to one, empty rows left empty."""
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    scaled: sparse.csr_matrix = (sparse.diags(1.0 / np.maximum(sums, 1e-30)) @ matrix).tocsr().astype(np.float32)
    scaled.sort_indices()
    return scaled


def shares(counts: AnyArray) -> Float32:
    """float32 [items]: counts that are scaled to sum to one."""
    out: Float32 = (counts / counts.sum()).astype(np.float32)
    return out
