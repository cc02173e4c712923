"""Negative feedback: a skip, dislike or hide lowers the scores of similar items, until a later positive event. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from features.activity import History
from models.arrays import Float32
from serving.catalogue.release_view import ReleaseView
from serving.rules.compiled import multiply_scores
from stream.events import KIND_CODES

PENALTIES: Final = {KIND_CODES["skip"]: 0.2, KIND_CODES["dislike"]: 0.5, KIND_CODES["hide"]: 0.5}
"""By how much an event of a kind lowers the most similar item; others by their share of that similarity."""
SKIPPED_FACTOR: Final = 0.5
"""What is left of the score of an item that was skipped itself."""
NEWEST: Final = 10
"""How many of the newest such items count."""


def negative_items(history: History, opinions: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The newest items whose newest opinion is a skip, a dislike or a hide, with that kind.

    `opinions` maps items to the newest kind of event for or against them.
    """
    newest = dict.fromkeys(item for item in reversed(history.items) if opinions.get(item, -1) in PENALTIES)
    return tuple((item, opinions[item]) for item in list(newest)[:NEWEST])


def apply_negative_feedback(scores: Float32, view: ReleaseView, negative: Sequence[tuple[str, int]]) -> None:
    """Lower in place the scores, float32 [items], of items similar to `negative` ones, and of those themselves."""
    neighbors, similarities = view.release.neighbors
    for item, kind in negative:
        place = view.release.index.get(item)
        if place is None or place >= len(neighbors):  # newer than the release
            continue
        present = neighbors[place] >= 0
        similarity = similarities[place][present]
        share = np.maximum(similarity / max(float(similarity.max(initial=0.0)), 1e-12), 0.0)
        places = np.append(neighbors[place][present], place)
        factors = np.append(1 - PENALTIES[kind] * share, SKIPPED_FACTOR).astype(np.float32)
        lowered = scores[places]
        multiply_scores(lowered, factors, np.log(factors), view.logits)
        scores[places] = lowered
