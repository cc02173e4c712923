"""A degree-corrected block model of users and items, whose popularity drifts over time."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final

import msgspec
import numpy as np
from msgspec import Meta
from scipy import sparse
from scipy.cluster.vq import kmeans2
from scipy.sparse.linalg import svds
from scipy.special import logsumexp

from models.arrays import AnyArray, Float32, Float64, Int32, Int64
from models.data.interactions import Interactions
from models.synthesizers.base import Progress, SynthesizerContext, conditions_for_step, no_progress, require_events
from models.synthesizers.conditions import ConditionName, Conditions
from models.synthesizers.decoding import ITEM, DrawingState
from models.synthesizers.details import EventDetails
from models.synthesizers.histories import Histories
from models.synthesizers.item_preferences import ItemPreferences, named
from models.synthesizers.stepwise import StepwiseSynthesizer
from models.synthesizers.streams import RandomStreams

SMALLEST: Final = 10
"""A group has room for at least this many users, or items: small sets have fewer groups."""
WHOLE: Final = 1_500
"""Up to so many users the matrix is decomposed in one go, in about a second."""


class Membership(msgspec.Struct, frozen=True):
    """What is known of each row: log-probability of its user group, float64 [rows, groups], and `factors` float32
    [rows, items] of the conditions, or None."""

    groups: Float64
    factors: Float32 | None


class BlockModel(StepwiseSynthesizer):
    """A user of group g takes item j at time t with probability w(g, z(j)) q(j | z(j), t).

    Groups z of items and g of users maximize the likelihood of the degree-corrected block model (Karrer and Newman,
    Phys. Rev. E 83, 2011, equation 16, here for a bipartite graph of users and items), by moving users and items in
    turn from a spectral start. w is the share of group g's events that go to item group z; q is an item's share of its
    group's events in the slice of time that t is in, drawn towards its share at all times by `drift_back_off` events. A
    new user's group has the prior share of users, and is inferred from known and generated events. Order says nothing.
    """

    name = "block-model"
    supports: ClassVar[frozenset[ConditionName]] = frozenset({"first", "later", "profile", "category", "text"})

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """Groups of users and of items, `slices` of time with as many events each, and `rounds` of moves."""

        user_groups: Annotated[int, Meta(ge=1, le=500)] = 16
        item_groups: Annotated[int, Meta(ge=1, le=500)] = 16
        slices: Annotated[int, Meta(ge=1, le=500)] = 12
        drift_back_off: Annotated[float, Meta(gt=0)] = 200.0
        smoothing: Annotated[float, Meta(gt=0)] = 0.1
        rounds: Annotated[int, Meta(ge=1)] = 30

    def __init__(self, params: msgspec.Struct | None = None, context: SynthesizerContext | None = None) -> None:
        super().__init__(params, context)
        self.item_groups: Int32 = np.zeros(0, np.int32)
        self.prior: Float64 = np.ones(1)
        self.between: Float64 = np.ones((1, 1))
        self.within: Float32 = np.ones((1, 0), np.float32)
        self.slice_ends: Int64 = np.zeros(0, np.int64)
        self.preferences = ItemPreferences()

    def fit(self, interactions: Interactions, progress: Progress = no_progress) -> None:
        require_events(interactions, self.name)
        params, size = self.params, len(interactions.vocabulary)
        self.vocabulary = interactions.vocabulary
        self.details.fit(interactions)
        self.preferences.fit(interactions)
        counts = np.ones(len(interactions), np.float32)
        matrix = sparse.csr_matrix((counts, (interactions.users, interactions.items)), (interactions.user_count, size))
        limits = (min(params.user_groups, 1 + matrix.shape[0] // SMALLEST), min(params.item_groups, 1 + size // 4))
        users, self.item_groups = block_groups(matrix, limits, params.rounds, self.context.seed)
        edges = group_edges(matrix, users, self.item_groups, limits)
        overall = (edges.sum(axis=0) + 1e-6) / (edges.sum() + 1e-6 * limits[1])
        self.between = (edges + params.smoothing * overall) / (edges.sum(axis=1, keepdims=True) + params.smoothing)
        self.prior = np.bincount(users, minlength=limits[0]) / len(users)
        self._fit_slices(interactions)
        progress(1.0, {})

    def _fit_slices(self, interactions: Interactions) -> None:
        """Popularity within each group, by slice of time."""
        params, groups, size = self.params, self.item_groups, len(interactions.vocabulary)
        ordered = np.sort(interactions.at)
        places = np.linspace(0, len(ordered) - 1, params.slices + 1)[1:-1].astype(np.int64)
        self.slice_ends = np.unique(ordered[places])
        overall = np.bincount(interactions.items, minlength=size) + params.smoothing
        overall = overall / np.bincount(groups, overall)[groups]
        table = np.zeros((len(self.slice_ends) + 1, size))
        np.add.at(table, (self._slices(interactions.at), interactions.items), 1.0)
        table += params.drift_back_off * overall
        totals = np.stack([np.bincount(groups, row) for row in table])
        self.within = (table / totals[:, groups]).astype(np.float32)

    def _slices(self, at: Int64) -> Int64:
        """int64 [n]: the slice of each time (epoch ms)."""
        return np.searchsorted(self.slice_ends, at).astype(np.int64)

    def begin(self, drawing: DrawingState) -> Membership:
        state = Membership(
            groups=np.tile(np.log(np.maximum(self.prior, 1e-12)), (len(drawing.items), 1)),
            factors=self.preferences.factors(drawing.conditions, drawing.profiles),
        )
        for column in drawing.items.T:
            state = self._observed(state, column)
        return state

    def _observed(self, state: Membership, items: Int32) -> Membership:
        real = items >= 0
        logs = np.log(self.between[:, self.item_groups[np.maximum(items, 0)]]).T
        return Membership(state.groups + np.where(real[:, None], logs, 0.0), state.factors)

    def advance(self, state: Membership, items: Int32, at: Int64, kinds: Int32) -> Membership:  # noqa: ARG002
        return self._observed(state, items)

    def _group_shares(self, state: Membership) -> Float64:
        """float64 [rows, item groups]: the expected share of each group of items."""
        users = np.exp(state.groups - logsumexp(state.groups, axis=1, keepdims=True))
        shares: Float64 = users @ self.between
        return shares

    def item_probabilities(self, state: Membership, drawing: DrawingState) -> Float32:
        out = self._group_shares(state).astype(np.float32)[:, self.item_groups] * self.within[self._slices(drawing.at)]
        if state.factors is not None:
            out *= state.factors
        probabilities: Float32 = out / out.sum(axis=1, keepdims=True)
        return probabilities

    def draws_directly(self, condition: Conditions) -> bool:
        between = bool(condition.first.items) and bool(condition.later.items)
        return not between and condition.profile is None and condition.category is None and condition.text is None

    def draw_directly(self, state: Membership, drawing: DrawingState, streams: RandomStreams, step: int) -> Int32:
        uniform = streams.uniform(step, ITEM, 2)
        cumulative = np.cumsum(self._group_shares(state), axis=1)
        groups = (cumulative < uniform[:, :1] * cumulative[:, -1:]).sum(axis=1)
        order = np.argsort(self.item_groups, kind="stable")
        ends = np.searchsorted(self.item_groups[order], groups, side="right")
        starts = np.searchsorted(self.item_groups[order], groups)
        slices, drawn = self._slices(drawing.at), np.zeros(len(groups), np.int32)
        for part in np.unique(slices).tolist():
            rows = np.flatnonzero(slices == part)
            sums = np.concatenate([[0.0], np.cumsum(self.within[part, order], dtype=np.float64)])
            low, high = sums[starts[rows]], sums[ends[rows]]
            places = np.searchsorted(sums, low + uniform[rows, 1] * (high - low), side="right") - 1
            drawn[rows] = order[np.clip(places, starts[rows], ends[rows] - 1)]
        return drawn

    def expected(self, conditions: Sequence[Conditions], steps: int = 1, seed: int = 0) -> Float32:
        turned = conditions_for_step(conditions, steps)
        free = all(self.draws_directly(condition) for condition in turned)
        # events are exchangeable given the known ones, so each of them has the distribution of the next
        return super().expected(turned if free else conditions, (1 if steps > 0 else -1) if free else steps, seed)

    def profile_evidence(self, histories: Histories) -> Float64 | None:
        return self.preferences.profile_evidence(histories)

    def log_prob(self, histories: Histories) -> Float64:
        users = histories.users
        groups = np.tile(np.log(np.maximum(self.prior, 1e-12)), (len(histories), 1))
        np.add.at(groups, users, np.log(self.between[:, self.item_groups[histories.items]]).T)
        own = np.log(self.within[self._slices(histories.at), histories.items].astype(np.float64))
        sums: Float64 = logsumexp(groups, axis=1) + np.bincount(users, own, minlength=len(histories))
        return sums

    def arrays(self) -> dict[str, AnyArray]:
        own: dict[str, AnyArray] = {
            "item_groups": self.item_groups,
            "prior": self.prior,
            "between": self.between,
            "within": self.within,
            "slice_ends": self.slice_ends,
        }
        parts = {"details": self.details.arrays(), "preferences": self.preferences.arrays()}
        return {**own, **{f"{part}-{name}": array for part, arrays in parts.items() for name, array in arrays.items()}}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        self.item_groups, self.prior = arrays["item_groups"], arrays["prior"]
        self.between, self.within = arrays["between"], arrays["within"]
        self.slice_ends = arrays["slice_ends"]
        self.details = EventDetails.from_arrays(named(arrays, "details-"))
        self.preferences = ItemPreferences.from_arrays(named(arrays, "preferences-"))


def block_groups(matrix: sparse.csr_matrix, groups: tuple[int, int], rounds: int, seed: int = 0) -> tuple[Int32, Int32]:
    """Groups of users int32 [users] and of items int32 [items], for counts float32 [users, items].

    Users and items move in turn to the group that makes their events most likely, until nobody moves.
    """
    items = spectral_groups(matrix, groups[1], seed)
    columns, users = matrix.T.tocsr(), np.zeros(matrix.shape[0], np.int32)
    edges = None
    for number in range(rounds):
        before = (users, items)
        taken = _by_group(matrix, items, groups[1])
        if edges is None:
            users = k_means(taken / np.maximum(taken.sum(axis=1, keepdims=True), 1e-12), groups[0], seed)
        else:
            users = (taken @ np.log(edges / edges.sum(axis=1, keepdims=True)).T).argmax(axis=1).astype(np.int32)
        takers = _by_group(columns, users, groups[0])
        edges = group_edges(matrix, users, items, groups) + 0.01
        items = (takers @ np.log(edges / edges.sum(axis=0))).argmax(axis=1).astype(np.int32)
        edges = group_edges(matrix, users, items, groups) + 0.01
        if number and all((old == new).all() for old, new in zip(before, (users, items), strict=True)):
            break
    return users, items


def spectral_groups(matrix: sparse.csr_matrix, groups: int, seed: int) -> Int32:
    """int32 [items]: k-means on the leading directions of the degree-normalized counts (Dhillon, KDD 2001)."""
    by_user = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1)))
    by_item = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1)))
    rank = min(groups, min(matrix.shape) - 1)
    if rank < 1:
        return np.zeros(matrix.shape[1], np.int32)
    directions = _leading_directions((by_user @ matrix @ by_item).astype(np.float64), rank, seed)
    return k_means(directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12), groups, seed)


def _leading_directions(matrix: sparse.csr_matrix, rank: int, seed: int) -> Float64:
    """float64 [columns, rank]: leading right singular vectors.

    A small matrix is decomposed whole: where hardly any users share items its largest singular values are all equal,
    and an iteration does not converge.
    """
    if matrix.shape[0] <= WHOLE:
        values, left = np.linalg.eigh((matrix @ matrix.T).toarray())
        leading: Float64 = (matrix.T @ left[:, -rank:]) / np.sqrt(np.maximum(values[-rank:], 1e-12))
        return leading
    begin = np.random.default_rng(seed).standard_normal(min(matrix.shape))
    _, _, right = svds(matrix, k=rank, v0=begin)
    directions: Float64 = right.T
    return directions


def k_means(vectors: Float64, groups: int, seed: int) -> Int32:
    """int32 [n]: the nearest of at most `groups` centers, for vectors float64 [n, size]."""
    groups = min(groups, len(np.unique(vectors.round(6), axis=0)))
    _, labels = kmeans2(vectors, groups, minit="++", missing="warn", rng=np.random.default_rng(seed))
    return np.asarray(labels, np.int32)


def group_edges(matrix: sparse.csr_matrix, users: Int32, items: Int32, groups: tuple[int, int]) -> Float64:
    """float64 [user groups, item groups]: events between them."""
    table = matrix.tocoo()
    flat = users[table.row].astype(np.int64) * groups[1] + items[table.col]
    edges: Float64 = np.bincount(flat, table.data, groups[0] * groups[1]).astype(np.float64).reshape(groups)
    return edges


def _by_group(matrix: sparse.csr_matrix, labels: Int32, groups: int) -> Float64:
    """float64 [rows, groups]: each row's events with each group of columns."""
    columns = np.arange(len(labels))
    members = sparse.csr_matrix((np.ones(len(labels)), (columns, labels)), (len(labels), groups))
    table: Float64 = (matrix @ members).toarray()
    return table
