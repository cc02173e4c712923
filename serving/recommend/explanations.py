"""Reason codes: for each item of an answer a code, a sentence, and the event that caused it."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from features.activity import History
from models.arrays import Float32
from models.data.interactions import batch_of
from models.data.profiles import Asking
from models.rerank.contributions import contributions
from serving.catalogue.domain import Aligned, Domain
from serving.catalogue.live_popularity import owed
from serving.recommend.rerank import Chosen
from stream.events import KINDS

DONE: Final = {
    "view": "viewed",
    "click": "clicked",
    "read": "read",
    "play": "played",
    "cart": "put in the cart",
    "save": "saved",
    "like": "liked",
    "rate": "rated",
    "purchase": "bought",
}
POPULAR_NOW: Final = "popular_now"
CODES: Final = DONE | {"cart": "carted"}


class Why(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why an item stands in an answer.

    `item_id`, `title`, `kind` and `at` (epoch ms) are those of the event that caused it. `by` says how it was found:
    `contribution` (it adds most to the score), `neighbour` (its item is nearest to this one), `category` (the newest
    of the same category), or `newest` (none of these: the newest that counts).
    """

    code: str
    text: str
    item_id: str | None = None
    title: str | None = None
    kind: str | None = None
    at: int | None = None
    by: str | None = None
    rule: str | None = None


def whys(
    domain: Domain,
    aligned: Aligned | None,
    recent: History,
    queries: Sequence[str],
    chosen: Sequence[Chosen],
    asking: Asking,
) -> list[Why]:
    """A reason for each item of an answer."""
    ranked = [one.item_id for one in chosen if one.reason == "personal"]
    causes = _Causes(domain, aligned, recent, ranked)
    causes.owed = owed(aligned, recent, ranked, asking) if aligned is not None else {}
    return [_why(domain, causes, queries, one) for one in chosen]


def _why(domain: Domain, causes: "_Causes", queries: Sequence[str], one: Chosen) -> Why:
    category = domain.category_of(one.item_id)
    if one.reason == "pinned":
        return Why("pinned", f"pinned by rule {one.rule}", rule=one.rule)
    if one.reason == "explored":
        return Why("explored", "shown to learn whether you like it")
    if one.reason == "segment":
        return Why("popular_in_segment", "popular with people like you")
    if one.reason == "popular":
        return Why("popular_in_category", f"popular in {category}") if category else Why("popular", "popular now")
    if one.reason == "personal" and causes.owed.get(one.item_id) == "popular":
        return Why(POPULAR_NOW, "popular right now")
    if one.reason == "catalogue" or one.item_id in causes.owed:
        return Why("new", "new here")
    found = causes.of(one.item_id) if one.reason == "personal" else causes.alike(one.item_id)
    if found is not None:
        return found
    for text in reversed(queries):
        if category is not None and text.strip().casefold() == category.casefold():
            return Why("because_you_searched", f"because you searched for {text}", title=text, by="category")
    return Why("personal", "chosen for you")


class _Causes:
    """The events of a history, and what they did for each item that the release ranked."""

    def __init__(self, domain: Domain, aligned: Aligned | None, recent: History, items: Sequence[str]) -> None:
        self._domain = domain
        self._aligned = aligned
        self.owed: dict[str, str] = {}
        self._places: dict[str, int] = {}
        self._amounts: Float32 | None = None
        rows = zip(recent.items, recent.kinds, recent.times, strict=True)
        self._weights = domain.habits.weights
        self._events = [row for row in rows if self._weights[row[1]] > 0]
        self._known = self._events
        if aligned is not None and items:
            recommender = aligned.release.recommender
            index = recommender.vocabulary.index
            self._known = [row for row in self._events if row[0] in index][-aligned.release.history_length :]
            inside = [item for item in items if item in index]
            self._places = {item: number for number, item in enumerate(inside)}
            batch = batch_of([recent], recommender.vocabulary, aligned.release.history_length)
            self._amounts = contributions(recommender, batch, np.array([index[item] for item in inside], np.int64))

    def of(self, item_id: str) -> Why | None:
        """By contribution, else by nearness, else by category, else the newest event."""
        place = self._places.get(item_id)
        if place is not None and self._amounts is not None and self._known:
            mine = self._amounts[place][-len(self._known) :]
            top = len(mine) - 1 - int(np.argmax(mine[::-1]))  # of equal ones the newest
            if mine[top] > 0:
                return self._because(item_id, self._known[top], "contribution")
        return self._near(item_id) or self.alike(item_id) or self._newest(item_id)

    def alike(self, item_id: str) -> Why | None:
        """The newest event in the item's category."""
        category = self._domain.category_of(item_id)
        for row in reversed(self._events):
            if category is not None and self._domain.category_of(row[0]) == category:
                return self._because(item_id, row, "category")
        return None

    def _near(self, item_id: str) -> Why | None:
        place = self._aligned.release.index.get(item_id) if self._aligned is not None else None
        if place is None or self._aligned is None:
            return None
        release = self._aligned.release
        near, amounts = release.neighbours
        if place >= len(near):  # came after the release
            return None
        mine = dict(zip(near[place].tolist(), amounts[place].tolist(), strict=True)) | {place: float("inf")}
        best, found = 0.0, None
        for row in self._known:
            value = mine.get(release.index[row[0]], 0.0) * self._weights[row[1]]
            if value >= best and value > 0:
                best, found = value, row
        return self._because(item_id, found, "neighbour") if found is not None else None

    def _newest(self, item_id: str) -> Why | None:
        return self._because(item_id, self._events[-1], "newest") if self._events else None

    def _because(self, item_id: str, row: tuple[str, int, int], by: str) -> Why:
        other, kind, at = row[0], KINDS[row[1]], row[2]
        title = self._domain.title_of(other)
        text = f"because you {DONE[kind]} {title or other}" if other != item_id else f"you {DONE[kind]} it before"
        return Why(f"because_you_{CODES[kind]}", text, other, title, kind, at, by)
