"""Copies of similar users' histories: a baseline that protects nobody's privacy."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

import msgspec
import numpy as np
from msgspec import Meta

from models.arrays import AnyArray, Float32, Float64, Int32, Int64
from models.data.interactions import Interactions
from models.synthesizers.base import Progress, SynthesizerContext, no_progress, require_events
from models.synthesizers.chain import shares
from models.synthesizers.conditions import ConditionName
from models.synthesizers.decoding import DrawingState
from models.synthesizers.details import EventDetails, even
from models.synthesizers.histories import Histories
from models.synthesizers.item_preferences import named
from models.synthesizers.stepwise import StepwiseSynthesizer

OCCURRENCES: Final = 2_000
"""At most this many events of an item are looked at, an even sample."""


class CopyingPlaces(msgspec.Struct, frozen=True):
    """Where a history may be copied from: positions int64 [n] of events, with weights float64 [n], and the `step` from
    one event to the next (-1: backward). No position: any event of any user."""

    positions: Int64
    weights: Float64
    step: int


class KNNCopy(StepwiseSynthesizer):
    """Continues as a similar user did, word for word. **Unsafe**: it stores real histories and returns them.

    Of the `neighbors` users with the largest squared overlap with the known items one is drawn in proportion to it, and
    his events are copied from behind the last known item on (backward: before it). Without known events any part of any
    history is copied. Where a copied history ends, another one continues after an event of the same item. It shows what
    attacks on privacy have to find, and is a baseline of fidelity; never publish what it generates.
    """

    name = "knn-copy"
    supports: ClassVar[frozenset[ConditionName]] = frozenset({"first", "later"})

    class Params(msgspec.Struct, frozen=True, kw_only=True):
        """Parameters of the text above."""

        neighbors: Annotated[int, Meta(ge=1)] = 20

    def __init__(self, params: msgspec.Struct | None = None, context: SynthesizerContext | None = None) -> None:
        super().__init__(params, context)
        self._set_events(np.zeros(0, np.int32), np.zeros(1, np.int64), 0)

    def fit(self, interactions: Interactions, progress: Progress = no_progress) -> None:
        require_events(interactions, self.name)
        self.vocabulary = interactions.vocabulary
        self.details.fit(interactions)
        histories = Histories.from_interactions(interactions)
        self._set_events(histories.items, histories.starts, len(self.vocabulary))
        progress(1.0, {})

    def _set_events(self, items: Int32, starts: Int64, size: int) -> None:
        self.items, self.starts = items, starts
        self._users = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        self._by_item = np.argsort(items, kind="stable")
        self._item_starts = np.searchsorted(items[self._by_item], np.arange(size + 1))
        self._popularity = shares(np.bincount(items, minlength=size) + 1e-9) if size else np.zeros(0, np.float32)

    def begin(self, drawing: DrawingState) -> list[CopyingPlaces]:
        step, places = -1 if drawing.backward else 1, dict[bytes, CopyingPlaces]()
        for row in drawing.items:
            if row.tobytes() not in places:
                places[row.tobytes()] = self._begin(row[row >= 0], step)
        return [places[row.tobytes()] for row in drawing.items]

    def _begin(self, known: Int32, step: int) -> CopyingPlaces:
        """The places of the most similar users, for known items int32 [n] in the order of drawing."""
        if not len(known):
            return CopyingPlaces(np.zeros(0, np.int64), np.zeros(0), step)
        users = np.concatenate([np.unique(self._users[self._events_of(item)]) for item in np.unique(known).tolist()])
        neighbors, overlaps = np.unique(users, return_counts=True)
        nearest = np.lexsort((neighbors, -overlaps))[: self.params.neighbors]
        positions, weights = [], []
        for user, overlap in zip(neighbors[nearest].tolist(), overlaps[nearest].tolist(), strict=True):
            places = self._behind(user, known, step)
            positions.append(places)
            weights.append(np.full(len(places), overlap**2 / max(1, len(places))))
        return self._usable(np.concatenate(positions), np.concatenate(weights), step)

    def _behind(self, user: int, known: Int32, step: int) -> Int64:
        """Where a user's history is behind the newest known item that it has."""
        start, stop = int(self.starts[user]), int(self.starts[user + 1])
        own = self.items[start:stop]
        for item in known[::-1]:
            places = np.flatnonzero(own == item)
            if len(places):
                return start + places + step
        return np.zeros(0, np.int64)

    def _events_of(self, item: int) -> Int64:
        """int64 [n]: positions of an item's events, at most OCCURRENCES."""
        events: Int64 = self._by_item[self._item_starts[item] : self._item_starts[item + 1]]
        return events[even(len(events), OCCURRENCES)]

    def _usable(self, positions: Int64, weights: Float64, step: int) -> CopyingPlaces:
        """Those places that are still in the history of the user of the event before."""
        inside = (positions >= 0) & (positions < len(self.items))
        positions, weights = positions[inside], weights[inside]
        before = np.clip(positions - step, 0, len(self.items) - 1)
        same = self._users[positions] == self._users[before]
        return CopyingPlaces(positions[same], weights[same], step)

    def item_probabilities(self, state: list[CopyingPlaces], drawing: DrawingState) -> Float32:  # noqa: ARG002
        out = np.zeros((len(state), len(self.vocabulary)), np.float32)
        for row, places in enumerate(state):
            if not len(places.positions):
                out[row] = self._popularity
                continue
            np.add.at(out[row], self.items[places.positions], places.weights / places.weights.sum())
        return out

    def advance(
        self,
        state: list[CopyingPlaces],
        items: Int32,
        at: Int64,  # noqa: ARG002
        kinds: Int32,  # noqa: ARG002
    ) -> list[CopyingPlaces]:
        return [
            self._advance(places, item) if item >= 0 else places
            for places, item in zip(state, items.tolist(), strict=True)
        ]

    def _advance(self, places: CopyingPlaces, item: int) -> CopyingPlaces:
        kept = self.items[places.positions] == item
        moved = self._usable(places.positions[kept] + places.step, places.weights[kept], places.step)
        if len(moved.positions):
            return moved
        events = self._events_of(item)
        return self._usable(events + places.step, np.ones(len(events)), places.step)

    def arrays(self) -> dict[str, AnyArray]:
        details = {f"details-{name}": array for name, array in self.details.arrays().items()}
        return {"items": self.items, "starts": self.starts, **details}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        self._set_events(arrays["items"], arrays["starts"], len(self.vocabulary))
        self.details = EventDetails.from_arrays(named(arrays, "details-"))
