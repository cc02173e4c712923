"""Prior knowledge as constraints on generated events: hard where a factor is 0, soft where it is another number."""

from typing import Final

import numpy as np
from scipy import sparse

from models.arrays import Bool, Float32, Float64, Int32, Int64
from models.data.interactions import Interactions
from models.data.profiles import time_features
from models.synthesizers.base import MAX_EVENTS
from models.synthesizers.decoding import DrawingState, ItemConstraint
from models.synthesizers.item_facts import ItemFacts

SEASONS: Final = {"hour": 24, "weekday": 8, "month": 13}
"""How many codes each part of a time has (see `season_codes`)."""
SEASON_BACK_OFF: Final = 50.0
"""Pseudo-events by which a category's share in an hour, weekday or month is drawn towards its share at all times."""


class CategoryTransitions(ItemConstraint):
    """Which category may follow which: `table` float32 [categories + 1, categories + 1], factors by (before, after).

    Row and column 0 are items without a category. It holds in time order, whatever the order of drawing, and towards
    known events: between first and later ones only those categories are drawn from which the later one can be reached.
    """

    def __init__(self, facts: ItemFacts, table: Float32) -> None:
        self.facts, self.table = facts, table.astype(np.float32)
        self._reaching: list[Bool] = [self.table > 0]

    @classmethod
    def observed(cls, facts: ItemFacts, interactions: Interactions, min_count: int = 1) -> "CategoryTransitions":
        """Only transitions that real users made at least `min_count` times; from and to no category all."""
        groups = len(facts.category_names) + 1
        codes = facts.categories[interactions.items]
        same = np.diff(interactions.users) == 0
        pairs = (codes[:-1][same], codes[1:][same])
        counts = sparse.csr_matrix((np.ones(int(same.sum())), pairs), (groups, groups)).toarray()
        table = counts >= min_count
        table[0], table[:, 0] = True, True
        return cls(facts, table.astype(np.float32))

    def factors(self, state: DrawingState) -> Float32:
        before, categories = self._last(state), self.facts.categories
        table = self.table.T if state.backward else self.table
        by_category = np.where((before < 0)[:, None], np.float32(1.0), table[np.maximum(before, 0)])
        after = self._following(state)
        for row in np.flatnonzero(after >= 0).tolist():
            reaching = self.reaching(int(state.remaining[row]))[:, after[row]]
            if (by_category[row] * reaching)[categories].any():
                by_category[row] *= reaching
        out: Float32 = by_category[:, categories].astype(np.float32)
        return out

    def joins(self, state: DrawingState) -> Bool | None:
        before, after = self._last(state), self._following(state)
        allowed: Bool = (self.table[np.maximum(before, 0), np.maximum(after, 0)] > 0) | (before < 0) | (after < 0)
        return allowed

    def reaching(self, between: int) -> Bool:
        """bool [categories + 1, categories + 1]: whether one category leads to another with `between` between them."""
        while len(self._reaching) <= between:
            reached = self._reaching[-1].astype(np.float32) @ self._reaching[0].astype(np.float32) > 0
            self._reaching.append(reached)
        return self._reaching[between]

    def _last(self, state: DrawingState) -> Int64:
        """int64 [rows]: the category of the event drawn or known last; -1 for none."""
        last = np.full(len(state.items), -1, np.int64)
        for column in range(state.items.shape[1]):
            items = state.items[:, column]
            last = np.where(items >= 0, self.facts.categories[np.maximum(items, 0)], last)
        return last

    def _following(self, state: DrawingState) -> Int64:
        """int64 [rows]: the category of the later event that the generated ones precede; -1 for none."""
        after = np.full(len(state.conditions), -1, np.int64)
        if state.backward:
            return after
        index = self.facts.vocabulary.index
        for row, condition in enumerate(state.conditions):
            known = [index[item] for item in condition.later.items[:1] if item in index]
            after[row] = self.facts.categories[known[0]] if known else -1
        return after


class PriceBand(ItemConstraint):
    """Items outside a price band get the factor `weight`; items of unknown price are left alone.

    The band reaches from `low` to `high` and, with a `ratio` above 0, from 1/ratio to ratio times the median price of
    the user's events so far.
    """

    def __init__(
        self, facts: ItemFacts, *, low: float = 0.0, high: float = np.inf, ratio: float = 0.0, weight: float = 0.0
    ) -> None:
        self.prices, self.low, self.high, self.ratio, self.weight = facts.prices, low, high, ratio, weight

    def factors(self, state: DrawingState) -> Float32:
        low, high = np.full(len(state.items), self.low), np.full(len(state.items), self.high)
        if self.ratio > 0:
            usual = self._usual(state.items)
            low = np.fmax(low, usual / self.ratio)
            high = np.fmin(high, usual * self.ratio)
        outside = (self.prices < low[:, None]) | (self.prices > high[:, None])
        out: Float32 = np.where(outside, np.float32(self.weight), np.float32(1.0))
        return out

    def _usual(self, items: Int32) -> Float64:
        """float64 [rows]: the median price of each row's items; nan where none is known."""
        paid = np.where(items >= 0, self.prices[np.maximum(items, 0)].astype(np.float64), np.nan)
        usual = np.full(len(items), np.nan)
        some = ~np.isnan(paid).all(axis=1) if paid.size else np.zeros(len(items), np.bool_)
        usual[some] = np.nanmedian(paid[some], axis=1)
        return usual


class Seasonality(ItemConstraint):
    """Soft: an item's factor is P(c | time) / P(c) for its category c, in each of hour, weekday and month (UTC)."""

    def __init__(self, facts: ItemFacts, interactions: Interactions, by: tuple[str, ...] = tuple(SEASONS)) -> None:
        self.categories, self.by = facts.categories, by
        codes, parts = facts.categories[interactions.items], season_codes(interactions.at)
        groups = len(facts.category_names) + 1
        overall = (np.bincount(codes, minlength=groups) + 0.5) / (len(codes) + 0.5 * groups)
        self.tables: dict[str, Float32] = {}
        for name in by:
            counts = np.zeros((SEASONS[name], groups))
            np.add.at(counts, (parts[name], codes), 1.0)
            shares = (counts + SEASON_BACK_OFF * overall) / (counts.sum(axis=1, keepdims=True) + SEASON_BACK_OFF)
            self.tables[name] = (shares / overall).astype(np.float32)

    def factors(self, state: DrawingState) -> Float32:
        parts = season_codes(state.at)
        by_category = np.ones((len(state.at), next(iter(self.tables.values())).shape[1]), np.float32)
        for name in self.by:
            by_category *= self.tables[name][parts[name]]
        out: Float32 = by_category[:, self.categories]
        return out


class OnlyWhen(ItemConstraint):
    """Some items (`selected` bool [items]) get the factor `weight` outside certain hours, weekdays and months (UTC).

    `hours` 0 to 23, `weekdays` 1 (Monday) to 7, `months` 1 to 12; an empty set does not limit.
    """

    def __init__(
        self,
        selected: Bool,
        *,
        hours: frozenset[int] = frozenset(),
        weekdays: frozenset[int] = frozenset(),
        months: frozenset[int] = frozenset(),
        weight: float = 0.0,
    ) -> None:
        self.selected, self.weight = selected, weight
        self.limits = {"hour": hours, "weekday": weekdays, "month": months}

    def factors(self, state: DrawingState) -> Float32:
        parts = season_codes(state.at)
        outside = np.zeros(len(state.at), np.bool_)
        for name, limit in self.limits.items():
            if limit:
                outside |= ~np.isin(parts[name], list(limit))
        out: Float32 = np.where(outside[:, None] & self.selected, np.float32(self.weight), np.float32(1.0))
        return out


class OnSale(ItemConstraint):
    """An item comes no earlier than its release and no later than it expires."""

    def __init__(self, facts: ItemFacts) -> None:
        self.released, self.expires = facts.released, facts.expires

    def factors(self, state: DrawingState) -> Float32:
        at = state.at[:, None]
        return ((at >= self.released) & (at <= self.expires)).astype(np.float32)


class Weighted(ItemConstraint):
    """Some items (`selected` bool [items]) get the factor `weight`; 0 forbids them, as what is not in stock."""

    def __init__(self, selected: Bool, weight: float = 0.0) -> None:
        self._factors: Float32 = np.where(selected, np.float32(weight), np.float32(1.0))

    def factors(self, state: DrawingState) -> Float32:  # noqa: ARG002
        return self._factors


class Repeats(ItemConstraint):
    """An item comes `at_most` so often in a user's events (0: any), and not again within `within_ms` (0: at once).

    Known events count, both first and later ones. Items that are not in `selected` bool [items] are left alone.
    """

    def __init__(self, facts: ItemFacts, selected: Bool, *, at_most: int = 0, within_ms: int = 0) -> None:
        self.index = facts.vocabulary.index
        self.selected, self.at_most, self.within_ms = selected, at_most, within_ms

    def factors(self, state: DrawingState) -> Float32:
        rows, items, times = self._events(state)
        forbidden = np.zeros((len(state.items), len(self.selected)), np.bool_)
        if self.at_most:
            counts = np.zeros(forbidden.shape, np.int32)
            np.add.at(counts, (rows, items), 1)
            forbidden |= counts >= self.at_most
        if self.within_ms:
            near = np.abs(times - state.at[rows]) < self.within_ms
            forbidden[rows[near], items[near]] = True
        return 1.0 - (forbidden & self.selected).astype(np.float32)

    def _events(self, state: DrawingState) -> tuple[Int64, Int64, Int64]:
        """Rows, items and times, int64 [n] each, of the events so far and of known ones that the state leaves out."""
        rows, columns = np.nonzero(state.items >= 0)
        items, times = state.items[rows, columns].astype(np.int64), state.times[rows, columns]
        others = [(row, *event) for row in range(len(state.items)) for event in self._other(state, row)]
        if not others:
            return rows, items, times
        extra = np.array(others, np.int64)
        return (
            np.concatenate([rows, extra[:, 0]]),
            np.concatenate([items, extra[:, 1]]),
            np.concatenate([times, extra[:, 2]]),
        )

    def _other(self, state: DrawingState, row: int) -> list[tuple[int, int]]:
        """Item and time of a row's known events on the other side, and of those beyond the newest MAX_EVENTS."""
        condition = state.conditions[row]
        own, other = (condition.later, condition.first) if state.backward else (condition.first, condition.later)
        if not other.items and len(own.items) <= MAX_EVENTS:
            return []
        pairs = [(self.index[item], at) for item, at in zip(own.items, own.times, strict=True) if item in self.index]
        left_out = pairs[MAX_EVENTS:] if state.backward else pairs[:-MAX_EVENTS]
        beyond = zip(other.items, other.times, strict=True)
        return [*left_out, *((self.index[item], at) for item, at in beyond if item in self.index)]


def season_codes(at: Int64) -> dict[str, Int64]:
    """int64 [n] by name: hour 0 to 23, weekday 1 (Monday) to 7 and month 1 to 12 (UTC) of epoch ms."""
    hours = time_features(np.maximum(at, 1))
    months = at.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64) % 12 + 1
    return {"hour": hours[:, 0].astype(np.int64) - 1, "weekday": hours[:, 1].astype(np.int64), "month": months}
