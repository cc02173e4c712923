"""From a ranked look-up to its answer: fallbacks, re-ranking, explanations. A pure function of what it is given."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from features.popularity import EVERYONE
from models.rerank.diversity import CategoryLimits
from serving.catalogue.domain import Domain
from serving.catalogue.release_view import ReleaseView
from serving.recommend.active_rules import ActiveRules, ItemFilter
from serving.recommend.answer import Answer, RecommendedItem, RuleEffect
from serving.recommend.explanations import NOT_FROM_HISTORY, explanations, positive_events, related_events
from serving.recommend.request import LookupRequest, Prepared, Ranked
from serving.recommend.rerank import RankedItem, RerankOptions, pinned_items, rerank, unmet_limits
from serving.recommend.scoring import can_personalize
from serving.rules.rule import Rule

FIRST_OF_CATALOGUE: Final = 1_000
"""So many items of the catalogue, the last fallback, are tried before all of it."""


def answer(lookup: Ranked) -> Answer:
    """The whole list: the release's candidates, then fallbacks from the category, the segment, and what is popular."""
    prepared = lookup.prepared
    request, view = prepared.request, prepared.view
    rules = None
    if request.plain and view.rules is None:
        items = _plain_list(lookup)
    else:
        rules = ActiveRules(view, prepared.segment, prepared.subject, request.rules)
        items = _reranked_list(lookup, rules)
    matching = rules.matching([item.item_id for item in items]) if rules is not None else [[] for _ in items]
    if request.explain:
        recommended = _explained(prepared, items, matching)
    else:
        recommended = [_recommended(view.domain, item) for item in items]
    whole = Answer(
        prepared.user_id,
        request.domain,
        recommended[0].reason if recommended else "empty",
        view.release_id,
        prepared.request_id,
        recommended,
        prepared.positions,
    )
    return whole if rules is None else _with_rules(whole, rules, request, items, matching)


def _plain_list(lookup: Ranked) -> list[RankedItem]:
    prepared, n = lookup.prepared, lookup.prepared.request.n
    domain, category = prepared.view.domain, prepared.request.category
    items = {item_id: RankedItem(item_id, score, "personal") for item_id, score in lookup.candidates}
    if len(items) < n:
        for item_id, reason in _fallbacks(prepared):
            if item_id not in items and item_id not in prepared.excluded and _fits(domain, item_id, category):
                items[item_id] = RankedItem(item_id, 0.0, reason)
                if len(items) == n:
                    break
    return list(items.values())


def _reranked_list(lookup: Ranked, rules: ActiveRules) -> list[RankedItem]:
    prepared, request = lookup.prepared, lookup.prepared.request
    options = RerankOptions(
        n=request.n,
        diversity=request.diversity,
        floor=request.floor,
        explore=request.explore,
        request_id=prepared.request_id,
        by_determinant=request.diversify == "dpp",
    )
    may_be_pinned = ItemFilter(rules, request.category, prepared.unwanted, request.candidates)
    pins = pinned_items(rules, lookup.candidates, may_be_pinned, request.n)
    allowed = ItemFilter(rules, request.category, prepared.excluded, request.candidates)
    fallbacks = _fallbacks(prepared)
    return rerank(rules, options, lookup.candidates, fallbacks, allowed, pins, request.pool_size)


def _with_rules(
    whole: Answer,
    rules: ActiveRules,
    request: LookupRequest,
    items: Sequence[RankedItem],
    matching: Sequence[Sequence[Rule]],
) -> Answer:
    """The answer with the rules that had an effect, and the limits that are not kept."""
    weighting = {rule.id: None for row in matching for rule in row if rule.factor is not None}
    pinning = {item.rule: None for item in items if item.rule is not None}
    applied = list({**pinning, **weighting, **dict.fromkeys(rules.excluding())})
    unmet: list[str] = []
    if request.floor != CategoryLimits():
        unmet = unmet_limits(rules, request.floor, [item.item_id for item in items], request.n)
    return msgspec.structs.replace(whole, applied=applied, unmet=unmet)


def _fallbacks(lookup: Prepared) -> Iterator[tuple[str, str]]:
    """Items that fill a list up, with their reasons: the user's categories, the segment, what is popular, the rest."""
    domain, request = lookup.view.domain, lookup.request
    if request.candidates is not None:
        yield from ((item_id, "catalogue") for item_id in sorted(request.candidates))
        return
    for category in _categories(lookup):
        yield from ((item_id, "category") for item_id in domain.popular_by_category.get(category, ()))
        yield from ((item_id, "category") for item_id in _items_of(domain, category))
    if lookup.segment is not None:
        yield from ((item_id, "segment") for item_id, _ in domain.popular.get(lookup.segment, ()))
    if request.category is None:
        yield from ((item_id, "popular") for item_id, _ in domain.popular.get(EVERYONE, ()))
        for limit in (FIRST_OF_CATALOGUE, None):  # copies, since the event loop adds to it; all of it only if needed
            yield from ((item_id, "catalogue") for item_id in list(islice(domain.items, limit)))
    else:
        yield from ((item_id, "popular") for item_id in domain.popular_by_category.get(request.category, ()))
        yield from ((item_id, "catalogue") for item_id in _items_of(domain, request.category))


def _items_of(domain: Domain, category: str) -> list[str]:
    return list(domain.items_by_category.get(category, ()))


def _categories(lookup: Prepared) -> Iterable[str]:
    """The categories of the user's positive events, newest first, then those that the user searched for by name."""
    domain, history = lookup.view.domain, lookup.history
    newest = zip(reversed(history.items), reversed(history.kinds), strict=True)
    weights = domain.policy.kind_weights
    categories = [domain.category_of(item_id) for item_id, kind in newest if weights[kind] > 0]
    categories += [domain.category_names.get(text.strip().casefold()) for text in reversed(lookup.searches)]
    return dict.fromkeys(category for category in categories if category)


def _fits(domain: Domain, item_id: str, category: str | None) -> bool:
    return domain.is_available(item_id) and (category is None or domain.category_of(item_id) == category)


def _recommended(domain: Domain, item: RankedItem) -> RecommendedItem:
    entry = domain.items.get(item.item_id)
    title, category = (entry.title, entry.category) if entry is not None else (None, None)
    score = round(item.score, 6)
    return RecommendedItem(item.item_id, score, item.reason, title, category, propensity=item.propensity)


def _explained(
    lookup: Prepared, items: Sequence[RankedItem], matching: Sequence[Sequence[Rule]]
) -> list[RecommendedItem]:
    """The items with the events that caused them, an explanation each, and the effects of rules."""
    view = lookup.view
    events = positive_events(lookup)
    values: dict[str, float] = {}
    if isinstance(view, ReleaseView) and can_personalize(lookup):
        values = view.release.expected(lookup.history, lookup.context, [item.item_id for item in items])
    rows = zip(items, explanations(lookup, items), matching, strict=True)
    explained: list[RecommendedItem] = []
    for position, (item, why, rules) in enumerate(rows, 1):
        from_history = item.reason in {"personal", "category"} and why.code not in NOT_FROM_HISTORY
        effects = [RuleEffect(rule.id, rule.action, rule.factor) for rule in rules if rule.factor is not None]
        if item.rule is not None:
            effects.insert(0, RuleEffect(item.rule, "pin", position=position))
        explained.append(
            msgspec.structs.replace(
                _recommended(view.domain, item),
                because=related_events(view, item.item_id, events) if from_history else None,
                why=why,
                rules=effects or None,
                expected_value=values.get(item.item_id),
            )
        )
    return explained
