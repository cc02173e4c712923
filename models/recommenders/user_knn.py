"""User-kNN: what the users took whose items overlap with the history, squared overlaps first."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from models.arrays import AnyArray, Float32, Int32, Int64
from models.data.batch import Batch
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.base import TuningContext
from models.recommenders.sparse import SparseScorer, popularity_of

if TYPE_CHECKING:
    from optuna import Trial


class UserKNN(SparseScorer):
    """The score of item j is the sum of overlap(u)^power * n_u^-size_power over the best users u who took it, times
    c_j^-item_power.

    overlap(u) is the sum of weight(event) * c_i^-rarity over the history's events on items i that u took (Verstrepen &
    Goethals, RecSys 2014, section 3, with the power); n_u counts the items of u and c_i the users of item i.

    A look-up touches a bounded number of entries: for each event the newest `users_per_item` users of its item, and of
    the best `neighbors` users their newest `events` items. Only the newest `users` users are kept, without their ids.

    `item_starts` int64 [items + 1] and `item_users` int32: the users of each item; `user_starts` int64 [users + 1] and
    `user_items` int32: the items of each user. Users are numbered from the newest.
    """

    name = "user-knn"
    reads_imagined_events = True

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """Parameters of the formula and the bounds above. `decay`: weight of an event against the one after it."""

        neighbors: Annotated[int, Meta(ge=1)] = 200
        power: Annotated[float, Meta(ge=0)] = 2.0
        size_power: Annotated[float, Meta(ge=0)] = 0.7
        item_power: Annotated[float, Meta(ge=0)] = 0.0
        rarity: Annotated[float, Meta(ge=0)] = 0.1
        decay: Annotated[float, Meta(ge=0, le=1)] = 0.9
        users_per_item: Annotated[int, Meta(ge=1)] = 500
        events: Annotated[int, Meta(ge=2)] = 100
        users: Annotated[int, Meta(ge=1)] = 200_000

    def __init__(self, params: Params | None = None) -> None:
        super().__init__(params or self.Params())
        self.vocabulary = Vocabulary.from_items([])
        nothing, start = np.zeros(0, np.int32), np.zeros(1, np.int64)
        self._set(nothing.astype(np.float32), (start, nothing), (start, nothing))

    def _set(self, counts: Float32, by_item: tuple[Int64, Int32], by_user: tuple[Int64, Int32]) -> None:
        """`counts` float32 [items]: users of each item, before the bounds."""
        self.counts = counts
        self.item_starts, self.item_users = by_item
        self.user_starts, self.user_items = by_user
        users = np.maximum(counts, 1.0)
        self._rarity, self._item_weights = users**-self.params.rarity, users**-self.params.item_power
        self._user_weights = np.maximum(np.diff(self.user_starts), 1) ** -self.params.size_power

    def fit(self, interactions: Interactions) -> None:
        params, size = self.params, len(interactions.vocabulary)
        self.vocabulary = interactions.vocabulary
        self.popularity = popularity_of(interactions, interactions.vocabulary.popularity_half_life_ms)
        matrix = interactions.user_item_matrix(max_per_user=params.events)
        counts = np.bincount(matrix.indices, minlength=size).astype(np.float32)
        ends = np.searchsorted(interactions.users, np.arange(matrix.shape[0]), side="right")
        newest_first = np.argsort(-interactions.at[ends - 1], kind="stable")
        useful = newest_first[np.diff(matrix.indptr)[newest_first] > 1][: params.users]  # one item relates to no other
        by_item = matrix[useful].tocsc()
        by_item.sort_indices()
        item_of = np.repeat(np.arange(size), np.diff(by_item.indptr))
        kept = np.arange(by_item.nnz) - by_item.indptr[item_of] < params.users_per_item
        item_starts = np.append(0, np.cumsum(np.bincount(item_of[kept], minlength=size)))
        users, item_users = np.unique(by_item.indices[kept], return_inverse=True)
        by_user = matrix[useful[users]]
        self._set(
            counts,
            (item_starts.astype(np.int64), item_users.astype(np.int32)),
            (by_user.indptr.astype(np.int64), by_user.indices.astype(np.int32)),
        )

    def event_scores(self, items: Int32, weights: Float32) -> tuple[Int32, Float32]:
        users, scores, _ = self._neighbors(*self._overlaps(items, weights)[1:])
        places, owners = _ranges(self.user_starts, users)
        taken = self.user_items[places]
        added: Float32 = (scores[owners] * self._item_weights[taken]).astype(np.float32)
        return taken, added

    def contributions(self, batch: Batch, items: Int64) -> Float32:
        """float32 [items, length]: an event adds, for each of the best users, its share of the user's overlap."""
        numbers, weights = batch.items[0], batch.event_weights(self.params.decay)[0]
        columns, users, values = self._overlaps(numbers, weights)
        best, scores, overlaps = self._neighbors(users, values)
        shares = np.zeros(len(self.user_starts) - 1)
        shares[best] = scores / overlaps
        parts = shares[users] * values
        places, owners = _ranges(self.user_starts, best)
        out = np.zeros((len(items), len(numbers)), np.float32)
        for row, item in enumerate(items.tolist()):
            has_item = np.zeros(len(shares), np.bool_)
            has_item[best[owners[self.user_items[places] == item]]] = True
            added = np.bincount(columns, parts * has_item[users], minlength=len(numbers))
            out[row] = added * self._item_weights[item]
        return out

    def _overlaps(self, items: Int32, weights: Float32) -> tuple[Int64, Int32, Float32]:
        """What overlaps are sums of: int64 [n] columns of events, int32 [n] users, float32 [n]."""
        columns = np.flatnonzero(items > 0)
        indices = items[columns] - 1
        places, owners = _ranges(self.item_starts, indices)
        values = (weights[columns] * self._rarity[indices]).astype(np.float32)
        return columns[owners], self.item_users[places], values[owners]

    def _neighbors(self, users: Int32, values: Float32) -> tuple[Int64, Float32, Float32]:
        """The best users int64 [n], newer ones first among equals; their weights and overlaps float32 [n]."""
        params = self.params
        sums = np.bincount(users, values, minlength=1)
        candidates = np.flatnonzero(sums)
        overlaps = sums[candidates]
        scores = overlaps**params.power * self._user_weights[candidates]
        if len(candidates) > params.neighbors:
            lowest = np.partition(scores, len(scores) - params.neighbors)[len(scores) - params.neighbors]
            better = np.flatnonzero(scores > lowest)
            equal = np.flatnonzero(scores == lowest)[: params.neighbors - len(better)]
            best = np.concatenate([better, equal])
            candidates, scores, overlaps = candidates[best], scores[best], overlaps[best]
        return candidates, scores.astype(np.float32), overlaps.astype(np.float32)

    def arrays(self) -> dict[str, AnyArray]:
        names = ("popularity", "counts", "item_starts", "item_users", "user_starts", "user_items")
        return {name: getattr(self, name) for name in names}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        self.popularity = arrays["popularity"]
        by_item, by_user = [
            (arrays[f"{kind}_starts"], arrays[f"{kind}_{of}s"]) for kind, of in (("item", "user"), ("user", "item"))
        ]
        items, users = len(self.popularity), len(by_user[0]) - 1
        if not _fit(*by_item, rows=items, columns=users) or not _fit(*by_user, rows=users, columns=items):
            raise ValueError(f"{self.name}: its lists of users and items do not fit each other or {items} items")
        self._set(arrays["counts"], by_item, by_user)

    @classmethod
    def space(cls, trial: "Trial", context: TuningContext) -> dict[str, Any]:  # noqa: ARG003 - the space is the same in every context
        return {
            "neighbors": trial.suggest_int("neighbors", 50, 500, log=True),
            "power": trial.suggest_float("power", 1.0, 3.0),
            "size_power": trial.suggest_float("size_power", 0.0, 1.2),
            "item_power": trial.suggest_float("item_power", 0.0, 0.4),
            "rarity": trial.suggest_float("rarity", 0.0, 0.5),
            "decay": trial.suggest_float("decay", 0.5, 1.0),
            "users_per_item": trial.suggest_categorical("users_per_item", [200, 500, 1_000]),
        }


def _fit(starts: AnyArray, columns_of: AnyArray, *, rows: int, columns: int) -> bool:
    """Whether `starts` divides `columns_of` into so many rows of column numbers."""
    if starts.dtype.kind != "i" or columns_of.dtype.kind != "i" or starts.shape != (rows + 1,) or columns_of.ndim != 1:
        return False
    divided = starts[0] == 0 and starts[-1] == len(columns_of) and bool((np.diff(starts) >= 0).all())
    return divided and columns_of.min(initial=0) >= 0 and columns_of.max(initial=-1) < columns


def _ranges(starts: Int64, rows: AnyArray) -> tuple[Int64, Int64]:
    """The places of all entries of the given rows int [n], and for each place the number of its row among them."""
    begin = starts[rows]
    sizes = starts[rows + 1] - begin
    owners = np.repeat(np.arange(len(rows)), sizes)
    places: Int64 = np.arange(len(owners)) + (begin - np.append(0, np.cumsum(sizes)[:-1]))[owners]
    return places, owners
