"""Histories of a batch as conditions of a generator."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from features.activity import History
from models.data.batch import FIRST_GAP, Batch
from models.data.vocabulary import Vocabulary
from models.synthesizers.conditions import ConditionName, Conditions

UNKNOWN_MOMENT: Final = 1_700_000_000_000
"""The time (epoch ms) of the newest event where the request has none: a generator needs some time."""


def conditions_of(
    batch: Batch,
    vocabulary: Vocabulary,
    supported: frozenset[ConditionName],
    *,
    before: bool = False,
    events: int | None = None,
) -> list[Conditions]:
    """A condition for each history: its events are the first ones, or with `before` the later ones.

    Times follow from the gaps, so they are right up to a factor of two, and the newest event is at the request. Profile
    and moment come from the context, where the generator reads them (`supported`): else equal histories have equal
    conditions.
    """
    rows = []
    timed = bool(batch.contexts) and "context" in supported
    moments = [context.at for context in batch.contexts] if timed else [0] * len(batch)
    profiles = [context.profile for context in batch.contexts] or [None] * len(batch)
    for row in range(len(batch)):
        history = history_of(batch, row, vocabulary, moments[row] or UNKNOWN_MOMENT)
        condition = Conditions(
            first=History() if before else history,
            later=history if before else History(),
            profile=profiles[row],
            at=0 if before else moments[row],
            events=events,
        )
        rows.append(condition.only(supported))
    return rows


def history_of(batch: Batch, row: int, vocabulary: Vocabulary, newest_at: int) -> History:
    """The real events of a row, the newest one at `newest_at` (epoch ms)."""
    real = np.flatnonzero(batch.items[row])
    gaps = batch.gaps[row, real]
    seconds = np.where((gaps == FIRST_GAP) | (gaps == 0), 0, 2.0 ** (gaps - 1) - 1)
    times = newest_at - (1000 * (seconds.sum() - np.cumsum(seconds))).astype(np.int64)
    items = [vocabulary.item_ids[number - 1] for number in batch.items[row, real].tolist()]
    kinds = (batch.kinds[row, real] - 1).tolist()
    return History(items, kinds, times.tolist(), [None] * len(items))


def distinct(conditions: Sequence[Conditions]) -> tuple[list[Conditions], list[int]]:
    """The distinct conditions, and for each condition the number of its own among them.

    A generator draws again for a condition that comes twice in a batch; a history has to get the same events in any.
    """
    numbers: dict[bytes, int] = {}
    kept: list[Conditions] = []
    places: list[int] = []
    for condition in conditions:
        key = msgspec.json.encode(condition, order="deterministic")
        if key not in numbers:
            numbers[key] = len(kept)
            kept.append(condition)
        places.append(numbers[key])
    return kept, places
