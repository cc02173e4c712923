"""Retrieval and scoring: the release's top candidates for look-ups, after rules, negative feedback and filters."""

from collections.abc import Iterable, Sequence

import numpy as np

from models.arrays import Float32
from models.recommenders.top_k import top_k
from serving.catalogue.release_view import ReleaseView
from serving.recommend.constraint_candidates import fallback_candidates
from serving.recommend.negative_feedback import apply_negative_feedback
from serving.recommend.request import Prepared


def can_personalize(lookup: Prepared) -> bool:
    """Whether a release answers: it knows something of the history, or has more than popularity for an empty one."""
    view = lookup.view
    if not isinstance(view, ReleaseView):
        return False
    return view.release.answers_empty_histories or view.release.knows(lookup.history)


def score_items(view: ReleaseView, lookups: Sequence[Prepared]) -> Float32:
    """float32 [lookups, items] for look-ups of one view that can be personalized; -inf for what must not appear."""
    scores = view.scores([lookup.history for lookup in lookups], [lookup.context for lookup in lookups])
    rules = view.rules
    for row, lookup in enumerate(lookups):
        if rules is not None:
            rules.apply(scores[row], rules.active_for(lookup.segment, lookup.subject), view.logits)
        if lookup.negative_feedback:
            apply_negative_feedback(scores[row], view, lookup.negative_feedback)
        _filter(scores[row], view, lookup)
    return scores


def top_candidates(view: ReleaseView, lookups: Sequence[Prepared], scores: Float32) -> list[list[tuple[str, float]]]:
    """The top candidates of each look-up with their scores, best first: as many as its list is chosen from.

    Behind them come the items without which a limit by category could not be kept, and the best one of each pin.
    """
    rules, item_ids = view.rules, view.release.item_ids
    candidates: list[list[tuple[str, float]]] = []
    for row, (lookup, pairs) in enumerate(zip(lookups, _top_places(lookups, scores), strict=True)):
        request = lookup.request
        kept = [(place, score) for place, score in pairs if place >= 0]
        if rules is not None or not request.plain:
            active = rules.active_for(lookup.segment, lookup.subject) if rules is not None else frozenset()
            places = [place for place, _ in kept]
            kept += fallback_candidates(view, active, request.n, request.floor, scores[row], places)
        candidates.append([(item_ids[place], score) for place, score in kept])
    return candidates


def _top_places(lookups: Sequence[Prepared], scores: Float32) -> list[Iterable[tuple[int, float]]]:
    """Places and scores of each look-up's pool, best first."""
    sizes = [lookup.request.pool_size for lookup in lookups]
    if min(sizes) == max(sizes):
        places, values = top_k(scores, sizes[0])
        return [zip(*pair, strict=True) for pair in zip(places.tolist(), values.tolist(), strict=True)]
    pairs: list[Iterable[tuple[int, float]]] = []
    for row, size in enumerate(sizes):
        places, values = top_k(scores[row : row + 1], size)
        pairs.append(zip(places[0].tolist(), values[0].tolist(), strict=True))
    return pairs


def _filter(scores: Float32, view: ReleaseView, lookup: Prepared) -> None:
    """Set to -inf in place, float32 [items]: hidden and excluded items, and what the request does not ask for."""
    request, items, index = lookup.request, view.items, view.release.index
    scores[items.hidden] = -np.inf
    excluded = [index[item] for item in lookup.excluded if item in index]
    if excluded:
        scores[excluded] = -np.inf
    if request.candidates is not None:
        places = [index[item] for item in request.candidates if item in index]
        kept = scores[places]
        scores[:] = -np.inf
        scores[places] = kept
    if request.category is not None:
        scores[items.categories != items.code_of(request.category)] = -np.inf
