"""Negative feedback: a skip, dislike or hide lowers what is near to its item, until it is taken up again. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from features.activity import History
from models.arrays import Float32
from serving.catalogue.domain import Aligned
from serving.rules.compiled import weigh
from stream.events import KIND_CODES

LOWERED: Final = {KIND_CODES["skip"]: 0.2, KIND_CODES["dislike"]: 0.5, KIND_CODES["hide"]: 0.5}
"""By how much an event of a kind lowers the item nearest to its own; others by their share of that nearness."""
SKIPPED: Final = 0.5
"""What is left of the score of an item that was skipped itself."""
NEWEST: Final = 10
"""So many of the newest such events count."""


def lowered_by(recent: History, judged: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """The newest items whose last word is a skip, a dislike or a hide, with that kind.

    `judged` maps items to the newest kind that speaks for or against them.
    """
    found = dict.fromkeys(item for item in reversed(recent.items) if judged.get(item, -1) in LOWERED)
    return tuple((item, judged[item]) for item in list(found)[:NEWEST])


def lower(row: Float32, aligned: Aligned, lowered: Sequence[tuple[str, int]]) -> None:
    """Lower in place the scores float32 [items] of what is near to such items, and of skipped items themselves."""
    near, amounts = aligned.release.neighbours
    for item, kind in lowered:
        place = aligned.release.index.get(item)
        if place is None or place >= len(near):  # came after the release
            continue
        there = near[place] >= 0
        here = amounts[place][there]
        share = np.maximum(here / max(float(here.max(initial=0.0)), 1e-12), 0.0)
        places = np.append(near[place][there], place)
        left = np.append(1 - LOWERED[kind] * share, SKIPPED).astype(np.float32)
        part = row[places]
        weigh(part, left, np.log(left), aligned.logits)
        row[places] = part
