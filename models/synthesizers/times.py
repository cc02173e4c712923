"""When generated events happen: times of a whole history, before its items are drawn."""

from collections.abc import Sequence

import numpy as np

from models.arrays import Int64
from models.synthesizers.conditions import Conditions
from models.synthesizers.details import GAP_CLASSES, EventDetails, gap_classes
from models.synthesizers.streams import RandomStreams


def draw_times(
    conditions: Sequence[Conditions],
    events: int,
    details: EventDetails,
    streams: RandomStreams,
    *,
    backward: bool,
) -> Int64:
    """int64 [conditions, events]: epoch ms in the order of drawing; `backward` from the newest to the oldest.

    Times begin after the first known events (backward: before the later ones), or at the condition's own `at`. Where
    first and later events are known, all times lie between them: longer histories are compressed.
    """
    rows, sign = len(conditions), -1 if backward else 1
    anchors = np.array([anchor(condition, backward=backward) for condition in conditions], np.int64)
    given = np.array([condition.at for condition in conditions], np.int64)
    begins = np.where(given > 0, given, details.draw_begin(streams))
    starting = (anchors == 0) | (given > 0)
    at = np.where(starting, begins, anchors)
    out, classes = np.zeros((rows, events), np.int64), np.full(rows, GAP_CLASSES, np.int32)
    for step in range(events):
        gaps = details.draw_gaps(streams, step, classes)
        moved = details.at_plausible_hour(streams, step, at + sign * gaps, gaps)
        moved = np.minimum(moved, at) if backward else np.maximum(moved, at)
        at = np.where(starting & (step == 0), at, moved)
        out[:, step], classes = at, gap_classes(gaps)
    return _between(out, conditions, anchors) if not backward else out


def anchor(condition: Conditions, *, backward: bool) -> int:
    """The time of the known event next to the generated ones, epoch ms; 0 where no event is known."""
    times = condition.later.times[:1] if backward else condition.first.times[-1:]
    return int(times[0]) if times else 0


def _between(at: Int64, conditions: Sequence[Conditions], anchors: Int64) -> Int64:
    """Compress the times of rows that would pass the first of their later events."""
    later = np.array([condition.later.times[0] if condition.later.times else 0 for condition in conditions], np.int64)
    if not at.size:
        return at
    start = np.where(anchors > 0, anchors, at[:, 0])
    span = at[:, -1] - start
    passed = (later > 0) & (at[:, -1] > later)
    room = np.maximum(later - start, 0)
    share = np.where(passed, room / np.maximum(span, 1), 1.0)
    compressed = start[:, None] + ((at - start[:, None]) * share[:, None]).astype(np.int64)
    result: Int64 = np.where(passed[:, None], np.minimum(compressed, later[:, None]), at)
    return result
