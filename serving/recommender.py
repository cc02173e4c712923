"""The answer: a pure function of features, release, catalogue and request."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec
import numpy as np

from features.activity import Activity, Recent
from features.popularity import EVERYONE
from models.ranking import top_k
from models.recommenders.base import Floats
from serving.catalogue import USUAL, Aligned, Domain, Habits
from serving.freshness import scored
from stream.events import KINDS

MOST: Final = 200
BECAUSE: Final = 3
NEIGHBOURS: Final = 50


class Ask(msgspec.Struct, frozen=True):
    """What a look-up asks for."""

    domain: str
    n: int = 20
    exclude_seen: bool | None = None
    category: str | None = None
    explain: bool = False


class Because(msgspec.Struct, frozen=True):
    """An event that speaks for a recommendation."""

    item_id: str
    kind: str
    at: int


class Recommended(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item of an answer; `score` compares only within one answer and one reason."""

    item_id: str
    score: float
    reason: str
    title: str | None = None
    category: str | None = None
    because: list[Because] | None = None


class Answer(msgspec.Struct, frozen=True):
    """A list, why it is what it is, and what it was computed from.

    `reason` is that of the first item: personal, category, segment, popular, catalogue, or empty for an empty list.
    `positions` are the log positions that the user's features hold, by partition.
    """

    user_id: str | None
    domain: str
    reason: str
    release: str | None
    request_id: str
    items: list[Recommended]
    positions: dict[str, int]


class Query(msgspec.Struct, frozen=True):
    """A look-up on its way to the ranking: the history and what must not appear."""

    recent: Recent
    ask: Ask
    excluded: frozenset[str]


def query(state: Activity | None, ask: Ask, habits: Habits = USUAL, now_ms: int = 0) -> Query:
    """What is to be ranked for a user's state: unwanted items never come back, seen ones as asked or as is usual."""
    recent = state.recent if state is not None else Recent()
    newest = dict(zip(recent.items, recent.kinds, strict=True))
    excluded = {item for item, kind in newest.items() if kind in habits.unwanted}
    seen_ms = habits.seen_ms if ask.exclude_seen is None else None if ask.exclude_seen else 0
    if seen_ms is None:
        excluded.update(newest)
    elif seen_ms:
        taken = zip(recent.items, recent.times, strict=True)
        excluded.update(item for item, at in taken if at > now_ms - seen_ms)
    return Query(recent, ask, frozenset(excluded))


def personal(aligned: Aligned, one: Query) -> bool:
    """Whether the release can make anything of the history."""
    return aligned.release.knows(one.recent)


def score(aligned: Aligned, queries: Sequence[Query]) -> Floats:
    """float32 [queries, items] for queries that are `personal`; -inf for what catalogue or request rule out."""
    scores = scored(aligned, [one.recent for one in queries])
    for row, one in enumerate(queries):
        _rule_out(scores[row], aligned, one)
    return scores


def best(aligned: Aligned, queries: Sequence[Query], scores: Floats) -> list[list[tuple[str, float]]]:
    """The best items of each query with their scores, best first."""
    indices, values = top_k(scores, max(one.ask.n for one in queries))
    item_ids = aligned.release.item_ids
    return [
        [(item_ids[index], value) for index, value in zip(places, row, strict=True) if index >= 0][: one.ask.n]
        for one, places, row in zip(queries, indices.tolist(), values.tolist(), strict=True)
    ]


def answer(
    domain: Domain,
    one: Query,
    ranked: Sequence[tuple[str, float]],
    *,
    request_id: str,
    user_id: str | None = None,
    state: Activity | None = None,
    segment: str | None = None,
) -> Answer:
    """The whole list: what the release ranks, filled up with the category, the segment, and what is popular."""
    ask = one.ask
    chosen = {item: (value, "personal") for item, value in ranked}
    if len(chosen) < ask.n:
        for item, reason in _fill(domain, one, segment):
            if item not in chosen and item not in one.excluded and _fits(domain, item, ask.category):
                chosen[item] = (0.0, reason)
                if len(chosen) == ask.n:
                    break
    items = [_recommended(domain, item, value, reason, one) for item, (value, reason) in chosen.items()]
    release = domain.aligned.release.id if domain.aligned is not None else None
    positions = state.applied.positions if state is not None else {}
    reason = items[0].reason if items else "empty"
    return Answer(user_id, ask.domain, reason, release, request_id, items, positions)


def _rule_out(scores: Floats, aligned: Aligned, one: Query) -> None:
    scores[aligned.hidden] = -np.inf
    index = aligned.release.index
    excluded = [index[item] for item in one.excluded if item in index]
    if excluded:
        scores[excluded] = -np.inf
    if one.ask.category is not None:
        scores[aligned.category != aligned.code_of(one.ask.category)] = -np.inf


def _fill(domain: Domain, one: Query, segment: str | None) -> Iterator[tuple[str, str]]:
    wanted = one.ask.category
    for category in _categories(domain, one.recent):
        yield from ((item, "category") for item in domain.by_category.get(category, ()))
        yield from ((item, "category") for item in _members(domain, category))
    if segment is not None:
        yield from ((item, "segment") for item, _ in domain.popular.get(segment, ()))
    if wanted is None:
        yield from ((item, "popular") for item, _ in domain.popular.get(EVERYONE, ()))
        yield from ((item, "catalogue") for item in list(domain.entries))
    else:
        yield from ((item, "popular") for item in domain.by_category.get(wanted, ()))
        yield from ((item, "catalogue") for item in _members(domain, wanted))


def _members(domain: Domain, category: str) -> list[str]:
    return list(domain.members.get(category, ()))


def _categories(domain: Domain, recent: Recent) -> Iterable[str]:
    newest = zip(reversed(recent.items), reversed(recent.kinds), strict=True)
    found = (domain.category_of(item) for item, kind in newest if domain.habits.weights[kind] > 0)
    return dict.fromkeys(one for one in found if one)


def _fits(domain: Domain, item: str, category: str | None) -> bool:
    return domain.offers(item) and (category is None or domain.category_of(item) == category)


def _recommended(domain: Domain, item: str, value: float, reason: str, one: Query) -> Recommended:
    entry = domain.entries.get(item)
    because = _because(domain, item, one.recent) if one.ask.explain and reason in {"personal", "category"} else None
    title, category = (entry.title, entry.category) if entry is not None else (None, None)
    return Recommended(item, round(value, 6), reason, title, category, because)


def _because(domain: Domain, item: str, recent: Recent) -> list[Because]:
    """The newest events whose items are near the recommended one, or of its category; else the newest that counts."""
    near = {item}
    if domain.aligned is not None:
        near.update(other for other, _ in domain.aligned.release.similar(item, NEIGHBOURS))
    rows = list(zip(recent.items, recent.kinds, recent.times, strict=True))[::-1]
    events = [Because(other, KINDS[kind], at) for other, kind, at in rows if domain.habits.weights[kind] > 0]
    close = [event for event in events if event.item_id in near]
    category = domain.category_of(item)
    alike = [event for event in events if category is not None and domain.category_of(event.item_id) == category]
    return (close or alike or events)[: BECAUSE if close else 1]
