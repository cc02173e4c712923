"""Whether a canary goes on, goes back or serves everyone. Pure: counts in, verdict out; `docs/decisions` says the rule.

Click-through is compared by an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024, theorem 2.2): its
bounds hold at all times at once, so one may look after every click and stop when one likes.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from features.outcomes import ImpressionCounts

LEAST_IMPRESSIONS: Final = 200
"""Of each arm, before click-through is judged: the bounds are asymptotic."""
LEAST_CLICKS: Final = 20
LEAST_ANSWERS: Final = 100
LEAST_ERRORS: Final = 5
LEAST_RANKINGS: Final = 300
SURE: Final = 4.0
"""Standard errors by which slow rankings must be more than a twentieth: a burst of load is no verdict."""
LATENCY_FLOOR_S: Final = 0.002
"""A difference of p95 below this is not felt, whatever the ratio."""


class Bounds(msgspec.Struct, frozen=True):
    """What is asked of a canary.

    `alpha`: how often a canary that is as good may be rolled back, over a whole trial of any length. `impressions`: of
    the canary before it may be promoted. `margin`: how much of the control's click-through it may lack then. `errors`:
    how far its share of failed answers may lie above the control's. `latency`: how many times the control's p95.
    `hours`: how long it may go on without a verdict; 0: as long as it likes.
    """

    alpha: float = 0.05
    impressions: int = 2_000
    margin: float = 0.1
    errors: float = 0.01
    latency: float = 2.0
    hours: float = 72.0


class Side(msgspec.Struct, frozen=True):
    """One arm since the trial began: lists shown and clicked, answers tried and failed, seconds of newest rankings."""

    counts: ImpressionCounts = msgspec.field(default_factory=ImpressionCounts)
    answers: int = 0
    errors: int = 0
    seconds: Sequence[float] = ()


class Rate(msgspec.Struct, frozen=True):
    """A click-through and the variance of its estimate."""

    value: float
    variance: float
    impressions: int
    clicks: int


class Verdict(msgspec.Struct, frozen=True):
    """`action` is wait, rollback or promote; the reason in a word and in a sentence; the bounds of the difference."""

    action: Literal["wait", "rollback", "promote"]
    reason: str
    detail: str
    low: float | None = None
    high: float | None = None


def rate(counts: ImpressionCounts) -> Rate:
    """Clicked lists per list; its variance from the spread between groups of users (random groups, linearized)."""
    shown, clicked = np.array(counts.impressions, float), np.array(counts.clicks, float)
    impressions, clicks = float(shown.sum()), float(clicked.sum())
    if not impressions:
        return Rate(0.0, math.inf, 0, 0)
    value = clicks / impressions
    groups = len(shown)
    spread = float(((clicked - value * shown) ** 2).sum()) * groups / (groups - 1) / impressions**2
    least = max(value * (1 - value), 1 / impressions) / impressions  # never surer than independent lists would be
    return Rate(value, max(spread, least), int(impressions), int(clicks))


def bounds_of(canary: Rate, control: Rate, alpha: float, planned: int) -> tuple[float, float]:
    """The confidence sequence of canary - control at this moment; it is tightest near `planned` impressions."""
    seen = max(1, canary.impressions)
    rho = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned
    grown = seen * rho + 1
    width = math.sqrt(2 * grown / (seen * rho) * math.log(math.sqrt(grown) / alpha))
    radius = width * math.sqrt(canary.variance + control.variance)
    difference = canary.value - control.value
    return difference - radius, difference + radius


def judge(canary: Side, control: Side, bounds: Bounds, hours: float = 0.0) -> Verdict:
    """The verdict of this moment, `hours` after the trial began. Errors and latency first: they hurt at once.

    A trial that goes on for ever keeps every later candidate waiting: without a verdict in time it ends.
    """
    found = _errors(canary, control, bounds) or _latency(canary, control, bounds) or _clicks(canary, control, bounds)
    if found.action != "wait" or not 0 < bounds.hours <= hours:
        return found
    detail = f"no verdict within {bounds.hours:g} h (canary_hours): {found.detail}"
    return Verdict("rollback", "time", detail, found.low, found.high)


def p95(seconds: Sequence[float]) -> float:
    """The 95th percentile; 0 of nothing."""
    return float(np.percentile(np.asarray(seconds), 95)) if len(seconds) else 0.0


def _errors(canary: Side, control: Side, bounds: Bounds) -> Verdict | None:
    if canary.answers < LEAST_ANSWERS and canary.errors < 2 * LEAST_ERRORS:
        return None
    ours = canary.errors / max(1, canary.answers)
    theirs = control.errors / max(1, control.answers)
    if canary.errors < LEAST_ERRORS or ours <= theirs + bounds.errors:
        return None
    detail = f"{canary.errors} of {canary.answers} answers failed ({ours:.1%}, control {theirs:.1%})"
    return Verdict("rollback", "errors", detail)


def _latency(canary: Side, control: Side, bounds: Bounds) -> Verdict | None:
    rankings = len(canary.seconds)
    if min(rankings, len(control.seconds)) < LEAST_RANKINGS:
        return None
    ours, theirs = p95(canary.seconds), p95(control.seconds)
    allowed = max(bounds.latency * theirs, theirs + LATENCY_FLOOR_S)
    slow = sum(one > allowed for one in canary.seconds) / rankings
    if slow <= 0.05 + SURE * math.sqrt(0.05 * 0.95 / rankings):
        return None
    return Verdict("rollback", "latency", f"p95 {1000 * ours:.1f} ms, control {1000 * theirs:.1f} ms")


def _clicks(canary: Side, control: Side, bounds: Bounds) -> Verdict:
    ours, theirs = rate(canary.counts), rate(control.counts)
    few = min(ours.impressions, theirs.impressions) < LEAST_IMPRESSIONS or ours.clicks + theirs.clicks < LEAST_CLICKS
    if few:
        return Verdict("wait", "few", f"{ours.impressions} lists of the canary, {theirs.impressions} of the control")
    low, high = bounds_of(ours, theirs, bounds.alpha, bounds.impressions)
    said = (
        f"click-through {ours.value:.4f} of {ours.impressions} lists, control {theirs.value:.4f} of "
        f"{theirs.impressions}; difference within {low:+.4f}..{high:+.4f}"
    )
    if high < 0:
        return Verdict("rollback", "clicks", said, low, high)
    if ours.impressions >= bounds.impressions and low > -bounds.margin * theirs.value:
        return Verdict("promote", "not-worse", said, low, high)
    return Verdict("wait", "undecided", said, low, high)
