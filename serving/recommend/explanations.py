"""Explanations: for each item of an answer a reason code, a sentence, and the events that caused it."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from features.activity import History
from models.arrays import Float32
from models.data.batch import batch_histories
from models.data.profiles import ANONYMOUS, RequestContext
from models.recommenders.blend import bucket_of
from serving.catalogue.release_view import CatalogueView, ReleaseView
from serving.recommend.answer import Explanation, RelatedEvent
from serving.recommend.request import Prepared
from serving.recommend.rerank import RankedItem
from stream.events import KINDS

VERBS: Final = {
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
CODES: Final = VERBS | {"cart": "carted"}
POPULAR_NOW: Final = "popular_now"
NOT_FROM_HISTORY: Final = (POPULAR_NOW, "new")
"""Reason codes of items that no event of the history caused."""
MAX_RELATED: Final = 3
NEIGHBORS: Final = 50

HistoryEvent = tuple[str, int, int]
"""Item, code of the kind, and time (epoch ms) of an event of the history."""


def explanations(lookup: Prepared, items: Sequence[RankedItem]) -> list[Explanation]:
    """An explanation of each item of an answer."""
    attribution = _Attribution(lookup, [item.item_id for item in items if item.reason == "personal"])
    return [_explanation(lookup, attribution, item) for item in items]


def positive_events(lookup: Prepared) -> list[RelatedEvent]:
    """The events of the history that speak for items, newest first."""
    history, weights = lookup.history, lookup.view.domain.policy.kind_weights
    rows = list(zip(history.items, history.kinds, history.times, strict=True))[::-1]
    return [RelatedEvent(item_id, KINDS[kind], at) for item_id, kind, at in rows if weights[kind] > 0]


def related_events(view: CatalogueView, item_id: str, events: Sequence[RelatedEvent]) -> list[RelatedEvent]:
    """The newest events on items similar to this one, else the newest of its category, else the newest one."""
    similar = _similar_to(view, item_id)
    on_similar = [event for event in events if event.item_id in similar]
    if on_similar:
        return on_similar[:MAX_RELATED]
    domain = view.domain
    category = domain.category_of(item_id)
    same = [event for event in events if category is not None and domain.category_of(event.item_id) == category]
    return (same or list(events))[:1]


def live_share(
    view: ReleaseView, history: History, item_ids: Sequence[str], context: RequestContext = ANONYMOUS
) -> dict[str, str]:
    """Items that owe more than half of their score to live popularity, and why: `popular`, or `unread`.

    Rules that boost an item boost both parts.
    """
    live = view.live
    if live is None or not item_ids:
        return {}
    batch = view.release.batch([history], [context])
    scores, bucket = view.mixed(batch, live)[0], int(bucket_of(batch.lengths)[0])
    index, shares = view.release.index, {}
    for item_id in item_ids:
        place = index.get(item_id, live.used)
        if place < live.used and 2 * live.share_of(place, bucket) > scores[place]:
            shares[item_id] = "unread" if item_id in live.unread else "popular"
    return shares


def _explanation(lookup: Prepared, attribution: "_Attribution", item: RankedItem) -> Explanation:
    category = lookup.view.domain.category_of(item.item_id)
    if item.reason == "pinned":
        return Explanation("pinned", f"pinned by rule {item.rule}", rule=item.rule)
    if item.reason == "explored":
        return Explanation("explored", "shown to learn whether you like it")
    if item.reason == "segment":
        return Explanation("popular_in_segment", "popular with people like you")
    if item.reason == "popular":
        if category:
            return Explanation("popular_in_category", f"popular in {category}")
        return Explanation("popular", "popular now")
    if item.reason == "personal" and attribution.live.get(item.item_id) == "popular":
        return Explanation(POPULAR_NOW, "popular right now")
    if item.reason == "catalogue" or item.item_id in attribution.live:
        return Explanation("new", "new here")
    by_event = attribution.of(item.item_id) if item.reason == "personal" else attribution.by_category(item.item_id)
    if by_event is not None:
        return by_event
    for text in reversed(lookup.searches):
        if category is not None and text.strip().casefold() == category.casefold():
            return Explanation("because_you_searched", f"because you searched for {text}", title=text, by="category")
    return Explanation("personal", "chosen for you")


class _Attribution:
    """The events of a history, and what each contributed to the items that the release ranked."""

    def __init__(self, lookup: Prepared, item_ids: Sequence[str]) -> None:
        self._view, self._domain = lookup.view, lookup.view.domain
        self._weights = self._domain.policy.kind_weights
        history = lookup.history
        rows = zip(history.items, history.kinds, history.times, strict=True)
        self._events: list[HistoryEvent] = [row for row in rows if self._weights[row[1]] > 0]
        self._known = self._events
        self._rows: dict[str, int] = {}
        self._contributions: Float32 | None = None
        self.live: dict[str, str] = {}
        if isinstance(lookup.view, ReleaseView):
            if item_ids:
                self._attribute(lookup.view, history, item_ids)
            self.live = live_share(lookup.view, history, item_ids, lookup.context)

    def _attribute(self, view: ReleaseView, history: History, item_ids: Sequence[str]) -> None:
        recommender, length = view.release.recommender, view.release.history_length
        index = recommender.vocabulary.index
        self._known = [event for event in self._events if event[0] in index][-length:]
        known_ids = [item_id for item_id in item_ids if item_id in index]
        self._rows = {item_id: row for row, item_id in enumerate(known_ids)}
        batch = batch_histories([history], recommender.vocabulary, length)
        places = np.array([index[item_id] for item_id in known_ids], np.int64)
        self._contributions = recommender.contributions(batch, places)

    def of(self, item_id: str) -> Explanation | None:
        """By contribution, else by similarity, else by category, else the newest event."""
        row = self._rows.get(item_id)
        if row is not None and self._contributions is not None and self._known:
            values = self._contributions[row][-len(self._known) :]
            top = len(values) - 1 - int(np.argmax(values[::-1]))  # of equal ones the newest
            if values[top] > 0:
                return self._because(item_id, self._known[top], "contribution")
        return self._by_neighbor(item_id) or self.by_category(item_id) or self._by_newest(item_id)

    def by_category(self, item_id: str) -> Explanation | None:
        """The newest event in the item's category."""
        category = self._domain.category_of(item_id)
        for event in reversed(self._events):
            if category is not None and self._domain.category_of(event[0]) == category:
                return self._because(item_id, event, "category")
        return None

    def _by_neighbor(self, item_id: str) -> Explanation | None:
        if not isinstance(self._view, ReleaseView):
            return None
        release = self._view.release
        place = release.index.get(item_id)
        neighbors, similarities = release.neighbors
        if place is None or place >= len(neighbors):  # newer than the release
            return None
        pairs = zip(neighbors[place].tolist(), similarities[place].tolist(), strict=True)
        by_place = dict(pairs) | {place: float("inf")}
        highest, nearest = 0.0, None
        for event in self._known:
            value = by_place.get(release.index[event[0]], 0.0) * self._weights[event[1]]
            if value >= highest and value > 0:
                highest, nearest = value, event
        return self._because(item_id, nearest, "neighbour") if nearest is not None else None

    def _by_newest(self, item_id: str) -> Explanation | None:
        return self._because(item_id, self._events[-1], "newest") if self._events else None

    def _because(self, item_id: str, event: HistoryEvent, by: str) -> Explanation:
        other, kind, at = event[0], KINDS[event[1]], event[2]
        title = self._domain.title_of(other)
        text = f"because you {VERBS[kind]} {title or other}" if other != item_id else f"you {VERBS[kind]} it before"
        return Explanation(f"because_you_{CODES[kind]}", text, other, title, kind, at, by)


def _similar_to(view: CatalogueView, item_id: str) -> set[str]:
    """The item, and its nearest neighbors in the release."""
    similar = {item_id}
    if isinstance(view, ReleaseView):
        neighbors, item_ids = view.release.neighbors[0], view.release.item_ids
        place = view.release.index.get(item_id)
        if place is not None and place < len(neighbors):
            similar.update(item_ids[other] for other in neighbors[place][:NEIGHBORS].tolist() if other >= 0)
    return similar
