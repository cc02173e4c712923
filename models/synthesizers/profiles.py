"""Synthetic profiles: a tree-shaped Bayesian network over the codes of attributes."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec
import numpy as np

from models.arrays import AnyArray, Bool, Float32, Float64, Int32, Int64
from models.data.interactions import Interactions
from models.data.profiles import Attribute, Profile, ProfileSchema
from models.synthesizers.streams import RandomStreams
from stream.events import Scalar

SMOOTHING: Final = 0.5
"""Pseudo-users of each value, given each value of the attribute that it depends on (Dirichlet)."""
FREQUENT: Final = 5
"""A whole combination that fewer users have than this is suppressed."""
TRIES: Final = 8
"""How often a suppressed combination is drawn again before the profile is left empty."""
PROFILE: Final = 16
"""The use of a history's random numbers (see `details`)."""
FREE: Final = -1
"""A code that is to be drawn."""


class ProfileModel:
    """Each attribute depends on one other: the tree with the largest mutual information (Chow and Liu, IEEE Trans. Inf.
    Theory 1968), its tables smoothed by SMOOTHING. Whether an attribute is absent (code 0) is drawn like any value.

    `parents` int32 [attributes] (-1 for the root), `order` int32 [attributes] with parents first, `tables` float32
    [codes of the parent, codes] for each attribute. No combination that 1 to FREQUENT - 1 users have is generated:
    `rare` uint64 [n] holds digests of these. Who knows a whole combination can ask them whether it is rare, nothing
    else.
    """

    def __init__(self) -> None:
        self.schema = ProfileSchema()
        self.parents: Int32 = np.zeros(0, np.int32)
        self.order: Int32 = np.zeros(0, np.int32)
        self.tables: list[Float32] = []
        self.rare: AnyArray = np.zeros(0, np.uint64)

    def fit(self, interactions: Interactions) -> None:
        """Learn from each user's newest profile; users without one are left out."""
        known = interactions.profiles
        if known is None or not len(known.schema):
            return
        newest = np.searchsorted(interactions.users, np.arange(interactions.user_count), side="right") - 1
        codes = known.table[known.rows[newest]]
        self.fit_codes(known.schema, codes[(codes > 0).any(axis=1)])

    def fit_codes(self, schema: ProfileSchema, codes: Int32) -> None:
        """Learn from codes int32 [users, attributes]."""
        if not len(codes):
            return
        self.schema = schema
        sizes = [len(attribute.labels) for attribute in schema.attributes]
        self.parents, self.order = chow_liu_tree(codes, sizes)
        self.tables = [_table(codes, sizes, child, int(self.parents[child])) for child in range(len(sizes))]
        combinations, counts = np.unique(codes, axis=0, return_counts=True)
        self.rare = np.sort(digests(combinations[counts < FREQUENT]))

    def __bool__(self) -> bool:
        return bool(self.tables)

    def sample(self, given: Int32, streams: RandomStreams, candidate: int = 0) -> Int32:
        """int32 [rows, attributes]: codes, those of `given` where they are not FREE. Other candidates are other draws.

        A row whose combination stays rare after TRIES is empty where it was FREE.
        """
        codes = np.where(given == FREE, 0, given).astype(np.int32)
        left = np.arange(len(given))
        for attempt in range(TRIES):
            part = streams.take(left)
            uniform = part.uniform(candidate * TRIES + attempt, PROFILE, given.shape[1])
            drawn = self._draw(given[left], uniform)
            kept = ~self.is_rare(drawn)
            codes[left[kept]] = drawn[kept]
            left = left[~kept]
            if not len(left):
                break
        return codes

    def is_rare(self, codes: Int32) -> Bool:
        """bool [rows]: whether 1 to FREQUENT - 1 real users have exactly these codes int32 [rows, attributes]."""
        rare: Bool = np.isin(digests(codes), self.rare)
        return rare

    def _draw(self, given: Int32, uniform: Float64) -> Int32:
        """int32 [rows, attributes]: exactly from the distribution given what is given: messages up, draws down."""
        upward = [self._evidence(given[:, child], len(table[0])) for child, table in enumerate(self.tables)]
        for child in self.order[::-1].tolist():
            parent = int(self.parents[child])
            if parent >= 0:
                upward[parent] = upward[parent] * (upward[child] @ self.tables[child].T)
        codes = np.zeros(given.shape, np.int32)
        for child in self.order.tolist():
            parent = int(self.parents[child])
            rows = self.tables[child][codes[:, parent] if parent >= 0 else np.zeros(len(given), np.int64)]
            cumulative = np.cumsum(rows * upward[child], axis=1, dtype=np.float64)
            threshold = uniform[:, child : child + 1] * cumulative[:, -1:]
            codes[:, child] = (cumulative < threshold).sum(axis=1)
        return codes

    @staticmethod
    def _evidence(given: Int32, size: int) -> Float64:
        """float64 [rows, size]: 1 for the codes that agree with what is given."""
        agrees: Float64 = ((given == FREE)[:, None] | (given[:, None] == np.arange(size))).astype(np.float64)
        return agrees

    def draw(self, streams: RandomStreams, evidence: Float64 | None = None, candidates: int = TRIES) -> Int32:
        """int32 [rows, attributes]: codes of new profiles.

        `evidence` float64 [rows, labels of the schema]: log-likelihood of what each row did, by label; of `candidates`
        drawn profiles one is then taken in proportion to its likelihood (sampling-importance-resampling, Rubin 1988).
        """
        free = np.full((len(streams), len(self.schema)), FREE, np.int32)
        if evidence is None:
            return self.sample(free, streams)
        drawn = np.stack([self.sample(free, streams, number) for number in range(candidates)])
        rows = np.arange(len(streams))[None, :, None]
        logs = evidence[rows, drawn + self.schema.offsets].sum(axis=2)
        weights = np.cumsum(np.exp(logs - logs.max(axis=0)), axis=0)
        chosen = (weights < streams.uniform(0, PROFILE + 1)[:, 0] * weights[-1]).sum(axis=0)
        taken: Int32 = drawn[chosen, np.arange(len(streams))]
        return taken

    def encode_given(self, profiles: Sequence[Profile | None]) -> Int32:
        """int32 [rows, attributes]: the codes of what profiles say, FREE for attributes that they do not name."""
        codes = self.schema.encode(profiles)
        for row, profile in enumerate(profiles):
            named = [attribute.name in (profile or {}) for attribute in self.schema.attributes]
            codes[row] = np.where(named, codes[row], FREE)
        return codes

    def decode(self, codes: Int32) -> list[Profile]:
        """A profile for each row of codes; absent attributes are left out."""
        attributes = self.schema.attributes
        return [
            {attribute.name: _value(attribute, code) for attribute, code in zip(attributes, row, strict=True) if code}
            for row in codes.tolist()
        ]

    def arrays(self) -> dict[str, AnyArray]:
        """The state by name; the schema as JSON in bytes."""
        schema = np.frombuffer(msgspec.json.encode(self.schema.to_json()), np.uint8)
        tables = {f"table{number}": table for number, table in enumerate(self.tables)}
        return {"schema": schema, "parents": self.parents, "order": self.order, "rare": self.rare, **tables}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "ProfileModel":
        """From what `arrays` returned. Raises KeyError where one is missing."""
        model = cls()
        model.schema = ProfileSchema.from_json(msgspec.json.decode(arrays["schema"].tobytes()))
        model.parents, model.order, model.rare = arrays["parents"], arrays["order"], arrays["rare"]
        model.tables = [arrays[f"table{number}"] for number in range(len(model.parents))]
        return model


def chow_liu_tree(codes: Int32, sizes: Sequence[int]) -> tuple[Int32, Int32]:
    """Parents int32 [attributes] (-1: root) and an order with parents first, for codes int32 [users, attributes]."""
    n = len(sizes)
    information = np.zeros((n, n))
    for left in range(n):
        for right in range(left + 1, n):
            information[left, right] = information[right, left] = _mutual_information(
                codes[:, left], codes[:, right], (sizes[left], sizes[right])
            )
    parents, order = np.full(n, -1, np.int32), [int(information.sum(axis=1).argmax())]
    while len(order) < n:
        left_out = [child for child in range(n) if child not in order]
        ties = information[np.ix_(order, left_out)]
        parent, child = np.unravel_index(int(ties.argmax()), ties.shape)
        parents[left_out[child]] = order[parent]
        order.append(left_out[child])
    return parents, np.array(order, np.int32)


def _mutual_information(left: Int32, right: Int32, sizes: tuple[int, int]) -> float:
    """In nats, less its expected value for independent attributes (Miller and Madow)."""
    joint = np.bincount(left * sizes[1] + right, minlength=sizes[0] * sizes[1]).reshape(sizes) / len(left)
    product = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    seen = joint > 0
    used = ((joint.sum(axis=1) > 0).sum() - 1) * ((joint.sum(axis=0) > 0).sum() - 1)
    return float((joint[seen] * np.log(joint[seen] / product[seen])).sum() - used / (2 * len(left)))


def _table(codes: Int32, sizes: Sequence[int], child: int, parent: int) -> Float32:
    """float32 [codes of the parent, codes]: P(child | parent), smoothed by SMOOTHING towards the child's own shares."""
    own = np.bincount(codes[:, child], minlength=sizes[child]) / len(codes)
    above, rows = (codes[:, parent], sizes[parent]) if parent >= 0 else (np.zeros(len(codes), np.int32), 1)
    counts = np.bincount(above * sizes[child] + codes[:, child], minlength=rows * sizes[child])
    table = counts.reshape(rows, sizes[child]) + SMOOTHING * sizes[child] * own
    probabilities: Float32 = (table / table.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def digests(codes: Int32) -> AnyArray:
    """uint64 [rows]: a digest of each row of codes int32 [rows, attributes]."""
    rows = np.ascontiguousarray(codes, np.int32)
    whole = [int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest(), "little") for row in rows]
    return np.array(whole, np.uint64)


def _value(attribute: Attribute, code: int) -> Scalar:
    """A value with this code: the name, or the middle of the bin (its edge for the outer ones)."""
    if not attribute.edges:
        return attribute.values[code - 1]
    edges = attribute.edges
    if code == 1:
        return edges[0] - 1.0
    return edges[-1] if code > len(edges) else (edges[code - 2] + edges[code - 1]) / 2


def rows_without(profiles: Sequence[Profile | None]) -> Int64:
    """int64 [n]: the rows that have no profile."""
    return np.array([row for row, profile in enumerate(profiles) if profile is None], np.int64)
