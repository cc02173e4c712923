"""The answer: a pure function of features, release, catalogue and request."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
import numpy as np

from features.activity import Activity, Recent
from features.popularity import EVERYONE
from models.ranking import top_k
from models.recommenders.base import CODE_WEIGHTS, NEGATIVE, Floats
from serving.catalogue import Aligned, Domain
from stream.events import KINDS, User

MOST: Final = 200
BECAUSE: Final = 3
REPEATS: Final = frozenset({"shop", "music"})
"""Domains in which an item that was seen is a fair answer again, unless the request says otherwise."""


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
    """One item of an answer."""

    item_id: str
    score: float
    reason: str
    title: str | None = None
    category: str | None = None
    because: list[Because] | None = None


class Answer(msgspec.Struct, frozen=True):
    """A list, why it is what it is, and what it was computed from.

    `reason` is of the first item: personal, category, segment, popular, catalogue, or empty. `positions` are the log
    positions that the features hold, by partition.
    """

    user_id: str | None
    domain: str
    reason: str
    release: str | None
    items: list[Recommended]
    positions: dict[str, int]


class Query(msgspec.Struct, frozen=True):
    """A look-up on its way to the ranking: the history and what must not appear."""

    recent: Recent
    ask: Ask
    excluded: frozenset[str]


def query(state: Activity | None, ask: Ask) -> Query:
    """What is to be ranked for a user's state: disliked and hidden items never come back, seen ones as asked."""
    recent = state.recent if state is not None else Recent()
    pairs = list(zip(recent.items, recent.kinds, strict=True))
    excluded = {item for item, kind in pairs if kind in NEGATIVE}
    hide_seen = ask.exclude_seen if ask.exclude_seen is not None else ask.domain not in REPEATS
    if hide_seen:
        excluded.update(recent.items)
    return Query(recent, ask, frozenset(excluded))


def rank(aligned: Aligned, queries: Sequence[Query]) -> list[list[tuple[str, float]]]:
    """The best items of the release for each query, after filters; empty where the history says nothing to it."""
    release = aligned.release
    known = [row for row, one in enumerate(queries) if release.knows(one.recent)]
    out: list[list[tuple[str, float]]] = [[] for _ in queries]
    if not known:
        return out
    scores = release.scores([queries[row].recent for row in known])
    for place, row in enumerate(known):
        _mask(scores[place], aligned, queries[row])
    most = max(queries[row].ask.n for row in known)
    indices, best = top_k(scores, most)
    for place, row in enumerate(known):
        pairs = zip(indices[place, : queries[row].ask.n].tolist(), best[place].tolist(), strict=False)
        out[row] = [(release.item_ids[index], score) for index, score in pairs if index >= 0]
    return out


def _mask(scores: Floats, aligned: Aligned, one: Query) -> None:
    scores[~aligned.available] = -np.inf
    index = aligned.release.index
    hidden = [index[item] for item in one.excluded if item in index]
    if hidden:
        scores[hidden] = -np.inf
    if one.ask.category is not None:
        scores[aligned.category != aligned.codes_of(one.ask.category)] = -np.inf


def answer(
    domain: Domain,
    one: Query,
    ranked: list[tuple[str, float]],
    *,
    user_id: str | None,
    state: Activity | None,
    profile: User | None,
) -> Answer:
    """The whole list: what the release ranks, filled up with the category, the segment, and what is popular."""
    ask = one.ask
    chosen: dict[str, tuple[float, str]] = {item: (score, "personal") for item, score in ranked}
    if len(chosen) < ask.n:
        for item, reason in _fill(domain, one, profile):
            if item not in chosen and item not in one.excluded and _fits(domain, item, ask.category):
                chosen[item] = (0.0, reason)
                if len(chosen) == ask.n:
                    break
    items = [_recommended(domain, item, score, reason, one) for item, (score, reason) in chosen.items()]
    release = domain.aligned.release.id if domain.aligned is not None else None
    positions = state.applied.positions if state is not None else {}
    return Answer(user_id, ask.domain, items[0].reason if items else "empty", release, items, positions)


def _fill(domain: Domain, one: Query, profile: User | None) -> Iterator[tuple[str, str]]:
    for category in _categories(domain, one.recent):
        yield from ((item, "category") for item in domain.by_category.get(category, ()))
        yield from ((item, "category") for item in domain.members.get(category, ())[: MOST * 2])
    if profile is not None and profile.segment:
        yield from ((item, "segment") for item, _ in domain.popular.get(profile.segment, ()))
    yield from ((item, "popular") for item, _ in domain.popular.get(EVERYONE, ()))
    if one.ask.category is not None:
        yield from ((item, "catalogue") for item in domain.members.get(one.ask.category, ()))
    yield from ((item, "catalogue") for item in domain.entries)


def _categories(domain: Domain, recent: Recent) -> Iterable[str]:
    newest = zip(reversed(recent.items), reversed(recent.kinds), strict=True)
    found = (domain.category_of(item) for item, kind in newest if CODE_WEIGHTS[kind] > 0)
    return dict.fromkeys(one for one in found if one)


def _fits(domain: Domain, item: str, category: str | None) -> bool:
    return domain.offers(item) and (category is None or domain.category_of(item) == category)


def _recommended(domain: Domain, item: str, score: float, reason: str, one: Query) -> Recommended:
    entry = domain.entries.get(item)
    because = _because(domain, item, one.recent) if one.ask.explain and reason in {"personal", "category"} else None
    title, category = (entry.title, entry.category) if entry is not None else (None, None)
    return Recommended(item, round(score, 6), reason, title, category, because)


def _because(domain: Domain, item: str, recent: Recent) -> list[Because]:
    """The newest distinct events whose items are near the recommended one; the newest event where none is."""
    near: Callable[[str], bool] = lambda other: False  # noqa: E731
    if domain.aligned is not None:
        neighbours = {other for other, _ in domain.aligned.release.similar(item, 50)}
        near = neighbours.__contains__
    rows = list(zip(recent.items, recent.kinds, recent.times, strict=True))[::-1]
    events = [Because(other, KINDS[kind], at) for other, kind, at in rows if CODE_WEIGHTS[kind] > 0]
    close = [event for event in events if near(event.item_id) or event.item_id == item]
    return (close or events[:1])[:BECAUSE]
