"""What the lists of a fold's users hold, and what they reach: among new items, in the full catalogue, and in slots.

The first ten of a full list depend on the first ten known and new items alone, so both are kept with their shares, and
every list is made from them: a share of the probability for new items, or places that are theirs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from models.arrays import Bool, Float32, Float64, Int64
from models.experiments.new_items_arms import CUTOFF, SHOWN, Questions, known_lists
from models.recommenders.base import Scorer, shares
from models.recommenders.top_k import top_k
from stream.files import write_atomically

FACTS: Final = "facts.json"
ARRAYS: Final = "lists.npz"
PREDICTIONS: Final = "predictions.parquet"
KNOWN_ITEMS: Final = "known-items"
"""The name of the lists of known items, which all arms share."""
DISCOUNTS: Final = 1.0 / np.log2(np.arange(2, CUTOFF + 2))


class ItemLists(msgspec.Struct, frozen=True):
    """The best items of each user. `hits` bool [users, SHOWN]: whether the user took it; `shares` float32, falling."""

    hits: Bool
    shares: Float32


class NewItemsResults(msgspec.Struct, frozen=True):
    """The results of one fold. `new_targets`, `warm_targets` int64 [users]: how many items each user took.

    `known`: the lists of known items. `new`: the lists of new items by arm. `facts`: anything else, as JSON values.
    `predictions`: arm, user_id, group (new, known), rank (from 1), item_id; None unless they were wanted.
    """

    users: list[str]
    new_targets: Int64
    warm_targets: Int64
    known: ItemLists
    new: dict[str, ItemLists]
    facts: dict[str, Any]
    predictions: pl.DataFrame | None = None

    def write(self, folder: Path) -> None:
        """Write arrays, facts and predictions into a folder."""
        arms = list(self.new)
        arrays = {
            "new_targets": self.new_targets,
            "warm_targets": self.warm_targets,
            "known_hits": self.known.hits,
            "known_shares": self.known.shares,
            "new_hits": np.stack([self.new[arm].hits for arm in arms]),
            "new_shares": np.stack([self.new[arm].shares for arm in arms]),
        }
        with (folder / ARRAYS).open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        write_atomically(folder / FACTS, msgspec.json.encode({"users": self.users, "arms": arms, "facts": self.facts}))
        if self.predictions is not None:
            self.predictions.write_parquet(folder / PREDICTIONS)

    @classmethod
    def read(cls, folder: Path) -> "NewItemsResults":
        """What `write` wrote, without predictions."""
        kept = msgspec.json.decode((folder / FACTS).read_bytes())
        with np.load(folder / ARRAYS, allow_pickle=False) as arrays:
            hits, parts = arrays["new_hits"], arrays["new_shares"]
            return cls(
                kept["users"],
                arrays["new_targets"],
                arrays["warm_targets"],
                ItemLists(arrays["known_hits"], arrays["known_shares"]),
                {arm: ItemLists(hits[place], parts[place]) for place, arm in enumerate(kept["arms"])},
                kept["facts"],
            )


def item_lists(scores: Float32, targets: Sequence[Sequence[int]]) -> tuple[ItemLists, Int64]:
    """The lists of `scores` float32 [users, items] and the items in them int64 [users, SHOWN]."""
    indices, values = top_k(shares(scores), SHOWN)
    return _with_hits(indices, values, targets), indices


def _with_hits(indices: Int64, values: Float32, targets: Sequence[Sequence[int]]) -> ItemLists:
    hits = np.array([np.isin(row, own) for row, own in zip(indices, targets, strict=True)], np.bool_)
    return ItemLists(hits.reshape(indices.shape), np.where(np.isfinite(values), values, 0.0).astype(np.float32))


class ListBuilder:
    """Collects the lists of a fold's questions, arm by arm."""

    def __init__(self, questions: Questions, base: Scorer, item_ids: Sequence[str], *, predictions: bool) -> None:
        self.questions, self.item_ids = questions, list(item_ids)
        self._tables: list[pl.DataFrame] | None = [] if predictions else None
        indices, values = known_lists(base, questions)
        self.known = _with_hits(indices, values, questions.warm)
        self._keep(KNOWN_ITEMS, "known", indices)
        self.new: dict[str, ItemLists] = {}
        self.coverage: dict[str, float] = {}

    def add(self, arm: str, columns: Float32, decay: float) -> None:
        """Add an arm's lists of new items."""
        self.new[arm], indices = item_lists(self.questions.scores(columns, decay), self.questions.new)
        self._keep(arm, "new", indices)
        shown = indices[:, :CUTOFF][self.new[arm].shares[:, :CUTOFF] > 0]
        self.coverage[arm] = len(np.unique(shown)) / max(1, columns.shape[1])

    def results(self, facts: dict[str, Any]) -> NewItemsResults:
        """The results so far."""
        questions = self.questions
        return NewItemsResults(
            [question.user_id for question in questions.questions],
            np.array([len(targets) for targets in questions.new], np.int64),
            np.array([len(targets) for targets in questions.warm], np.int64),
            self.known,
            self.new,
            {**facts, "coverage": self.coverage},
            pl.concat(self._tables) if self._tables is not None else None,
        )

    def _keep(self, arm: str, group: str, indices: Int64) -> None:
        """Keep lists as predictions, where these are wanted."""
        if self._tables is None:
            return
        offset = self.questions.known if group == "new" else 0
        rows, ranks = np.nonzero(indices >= 0)
        columns = {
            "user_id": [self.questions.questions[row].user_id for row in rows],
            "rank": ranks.astype(np.int32) + 1,
            "item_id": [self.item_ids[offset + place] for place in indices[rows, ranks].tolist()],
        }
        labels = [pl.lit(arm).alias("arm"), pl.lit(group).alias("group")]
        self._tables.append(pl.DataFrame(columns).select(*labels, "user_id", "rank", "item_id"))


class FullLists(msgspec.Struct, frozen=True):
    """The first ten of the full catalogue: float64 [users, 10], 1 where the user took the item, by kind of item.

    `is_new` bool [users, 10]: whether a place has a new item.
    """

    new_hits: Float64
    known_hits: Float64
    is_new: Bool


def among_new(lists: ItemLists, targets: Int64) -> tuple[Float64, Float64]:
    """NDCG@10 and HR@10 float64 [users] of the lists of new items; nan for users without a new target."""
    return _ndcg(lists.hits[:, :CUTOFF].astype(np.float64), targets), _hit(lists.hits[:, :CUTOFF], targets)


def mixed(known: ItemLists, new: ItemLists, share: float) -> FullLists:
    """New items have `share` of the probability, known ones the rest."""
    values = np.concatenate([known.shares[:, :CUTOFF] * (1 - share), new.shares[:, :CUTOFF] * share], axis=1)
    return _taken(known, new, np.argsort(-values, axis=1, kind="stable")[:, :CUTOFF])


def with_slots(known: ItemLists, new: ItemLists, slots: int) -> FullLists:
    """The last `slots` of the ten places are for the best new items."""
    order = np.concatenate([np.arange(CUTOFF - slots), CUTOFF + np.arange(slots)])
    return _taken(known, new, np.tile(order, (len(known.hits), 1)))


def _taken(known: ItemLists, new: ItemLists, order: Int64) -> FullLists:
    """The lists with the places `order` int64 [users, 10] of ten known items and ten new ones behind them."""
    is_new = order >= CUTOFF
    both = np.concatenate([known.hits[:, :CUTOFF], new.hits[:, :CUTOFF]], axis=1)
    hits = np.take_along_axis(both, order, axis=1).astype(np.float64)
    return FullLists(hits * is_new, hits * ~is_new, is_new)


class Reach(msgspec.Struct, frozen=True):
    """What full lists reach, float64 [users], nan where a user has no such target: NDCG@10 and HR@10 of new targets,
    NDCG@10 of warm ones, and the share of new items in the ten places."""

    new_ndcg: Float64
    new_hit: Float64
    warm_ndcg: Float64
    new_share: Float64


def reach_of(lists: FullLists, new_targets: Int64, warm_targets: Int64) -> Reach:
    """What each user's list reaches."""
    return Reach(
        _ndcg(lists.new_hits, new_targets),
        _hit(lists.new_hits > 0, new_targets),
        _ndcg(lists.known_hits, warm_targets),
        lists.is_new.mean(axis=1),
    )


def _ndcg(hits: Float64, targets: Int64) -> Float64:
    ideals = np.append(0.0, np.cumsum(DISCOUNTS))[np.minimum(targets, CUTOFF)]
    gains: Float64 = np.where(targets > 0, (hits @ DISCOUNTS) / np.where(targets > 0, ideals, 1.0), np.nan)
    return gains


def _hit(hits: Bool, targets: Int64) -> Float64:
    reached: Float64 = np.where(targets > 0, hits.any(axis=1), np.nan)
    return reached
