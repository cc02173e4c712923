"""The answer: a pure function of features, release, catalogue and request."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, Literal

import msgspec
import numpy as np

from features.activity import Activity, History
from features.popularity import EVERYONE
from models.arrays import Float32
from models.data.profiles import NOBODY, Asking, Attributes
from models.recommenders.top_k import top_k
from models.rerank.diversity import Floor
from serving.catalogue.domain import USUAL, Aligned, Domain, Habits
from serving.catalogue.live_popularity import scored
from serving.recommend.constraint_candidates import beyond
from serving.recommend.explanations import POPULAR_NOW, Why, whys
from serving.recommend.negative_feedback import LOWERED, lower, lowered_by
from serving.recommend.rerank import Allowed, Chosen, House, Wish, broken, compose, pinned
from serving.rules.rule import Rule
from stream.events import KINDS

MOST: Final = 200
BECAUSE: Final = 3
NEIGHBOURS: Final = 50
MOST_POOL: Final = 2_000
DIVERSE: Final = 5
OF_NOW: Final = (POPULAR_NOW, "new")
"""Reason codes of items that no event of the history speaks for."""
FEW: Final = 1_000
"""Of the catalogue, which fills up a list when nothing else is left, so many are tried before all of it."""
TAIL: Final = 10
"""Diverse lists are chosen from 5 n candidates; slots that explore draw from ranks n to 10 n."""
HELD_AGAINST: Final = 500
"""Rules that come with a request are held against so many of the best candidates."""


Method = Literal["mmr", "dpp"]


class Ask(msgspec.Struct, frozen=True):
    """What a look-up asks for."""

    domain: str
    n: int = 20
    exclude_seen: bool | None = None
    category: str | None = None
    explain: bool = False
    diversity: float = 0.0
    per_category: int | None = None
    categories: int | None = None
    explore: float = 0.0
    diversify: Method = "mmr"
    candidates: frozenset[str] | None = None
    rules: tuple[Rule, ...] = ()

    @property
    def floor(self) -> Floor:
        return Floor(per_category=self.per_category, categories=self.categories)

    @property
    def plain(self) -> bool:
        """Whether the list is the ranking itself."""
        nothing = self.candidates is None and not self.rules
        return nothing and not self.diversity and not self.explore and self.per_category is self.categories is None

    @property
    def pool(self) -> int:
        """How many candidates the list is chosen from."""
        wanted = self.n
        if self.diversity or self.per_category is not None or self.categories is not None:
            wanted = DIVERSE * self.n
        if self.explore:
            wanted = TAIL * self.n
        return min(max(wanted, HELD_AGAINST if self.rules else 0), MOST_POOL)


class Because(msgspec.Struct, frozen=True):
    """An event that speaks for a recommendation."""

    item_id: str
    kind: str
    at: int


class Trace(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a rule did to an item: it stands at a position, or its score was multiplied with a factor."""

    rule: str
    action: str
    factor: float | None = None
    position: int | None = None


class Recommended(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item of an answer; `score` compares only within one answer and one reason.

    `because`, `why` and `rules` come with `explain`, and `expected_value` where the release learned what events are
    worth: stars, seconds or a price, in the unit of the kind that most values are of. `propensity`, where the answer
    explores: the probability that this item stands in this place when this look-up is made.
    """

    item_id: str
    score: float
    reason: str
    title: str | None = None
    category: str | None = None
    because: list[Because] | None = None
    why: Why | None = None
    rules: list[Trace] | None = None
    propensity: float | None = None
    expected_value: float | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A list, why it is what it is, and what it was computed from.

    `reason` is that of the first item: personal, category, segment, popular, catalogue, pinned, or empty for an empty
    list. `positions` are the log positions that the user's features hold, by partition. `applied` are the rules that
    had a say, `unmet` the floors that the candidates did not allow.
    """

    user_id: str | None
    domain: str
    reason: str
    release: str | None
    request_id: str
    items: list[Recommended]
    positions: dict[str, int]
    applied: list[str] = []
    unmet: list[str] = []


class Query(msgspec.Struct, frozen=True):
    """A look-up on its way to the ranking: the history, and what must not appear.

    `unwanted` items are among the `excluded` ones. `lowered` are skipped or unwanted items with their kinds. `who`
    names the user, or the request of a visitor, to rules that hold for a share of users. `asking`: the profile and the
    moment, for releases that read them.
    """

    recent: History
    ask: Ask
    excluded: frozenset[str]
    unwanted: frozenset[str] = frozenset()
    lowered: tuple[tuple[str, int], ...] = ()
    queries: tuple[str, ...] = ()
    segment: str | None = None
    who: str = ""
    asking: Asking = NOBODY


def query(
    state: Activity | None,
    ask: Ask,
    habits: Habits = USUAL,
    now_ms: int = 0,
    *,
    segment: str | None = None,
    who: str = "",
    profile: Attributes | None = None,
) -> Query:
    """What is to be ranked for a user's state: unwanted items never come back, seen ones as asked or as is usual."""
    asking = Asking(profile, now_ms)
    if state is None:
        return Query(History(), ask, frozenset(), segment=segment, who=who, asking=asking)
    recent, weights, against = state.recent, habits.weights, habits.unwanted
    rows = zip(recent.items, recent.kinds, strict=True)
    judged = {item: kind for item, kind in rows if weights[kind] > 0 or kind in LOWERED or kind in against}
    kept = frozenset(state.unwanted) if against else frozenset[str]()
    unwanted = kept.union(item for item, kind in judged.items() if kind in against)
    excluded = unwanted.union(_seen(recent, ask, habits, now_ms))
    lowered = lowered_by(recent, judged) if any(kind in LOWERED for kind in judged.values()) else ()
    return Query(recent, ask, excluded, unwanted, lowered, tuple(state.summary.queries), segment, who, asking)


def _seen(recent: History, ask: Ask, habits: Habits, now_ms: int) -> Iterable[str]:
    """What was taken and must not be an answer: as asked, or as the domain's habit is."""
    seen_ms = habits.seen_ms if ask.exclude_seen is None else None if ask.exclude_seen else 0
    if seen_ms is None:
        return recent.items
    taken = zip(recent.items, recent.times, strict=True) if seen_ms else ()
    return (item for item, at in taken if at > now_ms - seen_ms)


def personal(aligned: Aligned, one: Query) -> bool:
    """Whether the release can make anything of the history."""
    return aligned.release.knows(one.recent)


def score(aligned: Aligned, queries: Sequence[Query]) -> Float32:
    """float32 [queries, items] for queries that are `personal`; -inf for what catalogue or request rule out."""
    scores = scored(aligned, [one.recent for one in queries], [one.asking for one in queries])
    rules = aligned.rules
    for row, one in enumerate(queries):
        if rules is not None:
            rules.apply(scores[row], rules.holding(one.segment, one.who), aligned.logits)
        if one.lowered:
            lower(scores[row], aligned, one.lowered)
        _rule_out(scores[row], aligned, one)
    return scores


def best(aligned: Aligned, queries: Sequence[Query], scores: Float32) -> list[list[tuple[str, float]]]:
    """The best items of each query with their scores, best first: as many as its list is chosen from.

    Behind them come the items without which a floor could not be kept, and the best one that each pin is about.
    """
    most = max(one.ask.pool for one in queries)
    even = all(one.ask.pool == most for one in queries)
    item_ids, rules = aligned.release.item_ids, aligned.rules
    if even:
        indices, values = top_k(scores, most)
        rows = list(zip(indices.tolist(), values.tolist(), strict=True))
    else:
        each = [top_k(scores[row : row + 1], one.ask.pool) for row, one in enumerate(queries)]
        rows = [(places[0].tolist(), found[0].tolist()) for places, found in each]
    found: list[list[tuple[str, float]]] = []
    for number, (one, (places, row)) in enumerate(zip(queries, rows, strict=True)):
        kept = [(index, value) for index, value in zip(places, row, strict=True) if index >= 0]
        if rules is not None or not one.ask.plain:
            holding = rules.holding(one.segment, one.who) if rules is not None else frozenset()
            kept += beyond(aligned, holding, one.ask.n, one.ask.floor, scores[number], [index for index, _ in kept])
        found.append([(item_ids[index], value) for index, value in kept])
    return found


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
    ask, aligned = one.ask, domain.aligned
    house = None
    if ask.plain and domain.rules_over(aligned) is None:
        chosen = _plain(domain, one, ranked, segment)
    else:
        house = House(domain, aligned, segment, one.who, ask.rules)
        chosen = _composed(house, one, ranked, request_id, segment)
    about = house.about([each.item_id for each in chosen]) if house is not None else [[] for _ in chosen]
    if ask.explain:
        items = _explained(domain, aligned, one, chosen, about)
    else:
        items = [_recommended(domain, each) for each in chosen]
    release = aligned.release.id if aligned is not None else None
    positions = state.applied.positions if state is not None else {}
    reason = items[0].reason if items else "empty"
    made = Answer(user_id, ask.domain, reason, release, request_id, items, positions)
    return made if house is None else _with_rules(made, house, ask, chosen, about)


def _plain(domain: Domain, one: Query, ranked: Sequence[tuple[str, float]], segment: str | None) -> list[Chosen]:
    chosen = {item: Chosen(item, value, "personal") for item, value in ranked}
    if len(chosen) < one.ask.n:
        for item, reason in _fill(domain, one, segment):
            if item not in chosen and item not in one.excluded and _fits(domain, item, one.ask.category):
                chosen[item] = Chosen(item, 0.0, reason)
                if len(chosen) == one.ask.n:
                    break
    return list(chosen.values())


def _composed(
    house: House, one: Query, ranked: Sequence[tuple[str, float]], request_id: str, segment: str | None
) -> list[Chosen]:
    ask = one.ask
    wish = Wish(ask.n, ask.diversity, ask.floor, ask.explore, request_id, by_determinant=ask.diversify == "dpp")
    may_be_pinned = Allowed(house, ask.category, one.unwanted, ask.candidates)
    pins = pinned(house, ranked, may_be_pinned, ask.n)
    allowed = Allowed(house, ask.category, one.excluded, ask.candidates)
    offered = _fill(house.domain, one, segment)
    return compose(house, wish, ranked, offered, allowed, pins, ask.pool)


def _with_rules(
    made: Answer, house: House, ask: Ask, chosen: Sequence[Chosen], about: Sequence[Sequence[Rule]]
) -> Answer:
    """The answer with the rules that had a say, and the floors that are not kept."""
    weighed = {rule.id: None for rules in about for rule in rules if rule.factor is not None}
    placed = {each.rule: None for each in chosen if each.rule is not None}
    applied = list({**placed, **weighed, **dict.fromkeys(house.excluding())})
    unmet = broken(house, ask.floor, [each.item_id for each in chosen], ask.n) if ask.floor != Floor() else []
    return msgspec.structs.replace(made, applied=applied, unmet=unmet)


def _rule_out(scores: Float32, aligned: Aligned, one: Query) -> None:
    scores[aligned.hidden] = -np.inf
    index = aligned.release.index
    excluded = [index[item] for item in one.excluded if item in index]
    if excluded:
        scores[excluded] = -np.inf
    if one.ask.candidates is not None:
        only = [index[item] for item in one.ask.candidates if item in index]
        kept = scores[only]
        scores[:] = -np.inf
        scores[only] = kept
    if one.ask.category is not None:
        scores[aligned.category != aligned.code_of(one.ask.category)] = -np.inf


def _fill(domain: Domain, one: Query, segment: str | None) -> Iterator[tuple[str, str]]:
    wanted = one.ask.category
    if one.ask.candidates is not None:
        yield from ((item, "catalogue") for item in sorted(one.ask.candidates))
        return
    for category in _categories(domain, one.recent, one.queries):
        yield from ((item, "category") for item in domain.by_category.get(category, ()))
        yield from ((item, "category") for item in _members(domain, category))
    if segment is not None:
        yield from ((item, "segment") for item, _ in domain.popular.get(segment, ()))
    if wanted is None:
        yield from ((item, "popular") for item, _ in domain.popular.get(EVERYONE, ()))
        for most in (FEW, None):  # copied, because the event loop adds to it, and the whole of it only where it must be
            yield from ((item, "catalogue") for item in list(islice(domain.entries, most)))
    else:
        yield from ((item, "popular") for item in domain.by_category.get(wanted, ()))
        yield from ((item, "catalogue") for item in _members(domain, wanted))


def _members(domain: Domain, category: str) -> list[str]:
    return list(domain.members.get(category, ()))


def _categories(domain: Domain, recent: History, queries: Sequence[str]) -> Iterable[str]:
    """The categories of what the user took, newest first, then those that the user searched for by name."""
    newest = zip(reversed(recent.items), reversed(recent.kinds), strict=True)
    found = [domain.category_of(item) for item, kind in newest if domain.habits.weights[kind] > 0]
    found += [domain.named.get(text.strip().casefold()) for text in reversed(queries)]
    return dict.fromkeys(one for one in found if one)


def _fits(domain: Domain, item: str, category: str | None) -> bool:
    return domain.offers(item) and (category is None or domain.category_of(item) == category)


def _recommended(domain: Domain, each: Chosen) -> Recommended:
    entry = domain.entries.get(each.item_id)
    title, category = (entry.title, entry.category) if entry is not None else (None, None)
    return Recommended(each.item_id, round(each.value, 6), each.reason, title, category, propensity=each.propensity)


def _explained(
    domain: Domain, aligned: Aligned | None, one: Query, chosen: Sequence[Chosen], about: Sequence[Sequence[Rule]]
) -> list[Recommended]:
    """The items with the events that speak for them, why they are there, and what rules did to them."""
    events = _events(one.recent, domain.habits.weights)
    said = whys(domain, aligned, one.recent, one.queries, chosen, one.asking)
    worth: dict[str, float] = {}
    if aligned is not None and personal(aligned, one):
        worth = aligned.release.expected(one.recent, one.asking, [each.item_id for each in chosen])
    items: list[Recommended] = []
    for place, (each, why, rules) in enumerate(zip(chosen, said, about, strict=True), 1):
        told = each.reason in {"personal", "category"} and why.code not in OF_NOW
        because = _because(domain, aligned, each.item_id, events) if told else None
        traces = [Trace(rule.id, rule.action, rule.factor) for rule in rules if rule.factor is not None]
        if each.rule is not None:
            traces.insert(0, Trace(each.rule, "pin", position=place))
        item = _recommended(domain, each)
        value = worth.get(each.item_id)
        items.append(
            msgspec.structs.replace(item, because=because, why=why, rules=traces or None, expected_value=value)
        )
    return items


def _because(domain: Domain, aligned: Aligned | None, item: str, events: Sequence[Because]) -> list[Because]:
    """The newest events whose items are near the recommended one, or of its category; else the newest that counts."""
    near = {item}
    place = aligned.release.index.get(item) if aligned is not None else None
    if aligned is not None and place is not None and place < len(aligned.release.neighbours[0]):
        item_ids = aligned.release.item_ids
        near.update(
            item_ids[other] for other in aligned.release.neighbours[0][place][:NEIGHBOURS].tolist() if other >= 0
        )
    close = [event for event in events if event.item_id in near]
    if close:
        return close[:BECAUSE]
    category = domain.category_of(item)
    alike = [event for event in events if category is not None and domain.category_of(event.item_id) == category]
    return (alike or list(events))[:1]


def _events(recent: History, weights: Sequence[float]) -> list[Because]:
    """The events that speak for items, newest first."""
    rows = list(zip(recent.items, recent.kinds, recent.times, strict=True))[::-1]
    return [Because(other, KINDS[kind], at) for other, kind, at in rows if weights[kind] > 0]
