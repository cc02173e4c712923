"""Whether a canary continues, is rolled back or is promoted. Pure: counts in, decision out.

Click-through rates are compared by an asymptotic confidence sequence (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 2024, theorem 2.2): its
bounds hold at all times at once, so it may be checked after every click and stopped at any time.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np

from features.outcomes import ImpressionCounts

LEAST_IMPRESSIONS: Final = 200
"""Of each arm, before click-through rates are compared: the bounds are asymptotic."""
LEAST_CLICKS: Final = 20
LEAST_ANSWERS: Final = 100
LEAST_ERRORS: Final = 5
LEAST_RANKINGS: Final = 300
LATENCY_ERRORS: Final = 4.0
"""Standard errors by which the share of slow rankings must exceed a twentieth: a burst of load decides nothing."""
LATENCY_FLOOR_S: Final = 0.002
"""Users do not notice a smaller difference of p95, whatever the ratio."""


class CanaryThresholds(msgspec.Struct, frozen=True):
    """What is required of a canary.

    Attributes:
        alpha: how often an equally good canary may be rolled back, over a whole trial of any length.
        impressions: of the canary, before it may be promoted.
        margin: how much of the control's click-through rate it may lack when it is promoted.
        errors: how far its share of failed answers may exceed the control's.
        latency: how many times the control's p95 its own may be.
        hours: the longest trial without a decision; 0: unlimited.
    """

    alpha: float = 0.05
    impressions: int = 2_000
    margin: float = 0.1
    errors: float = 0.01
    latency: float = 2.0
    hours: float = 72.0


class ArmStats(msgspec.Struct, frozen=True):
    """One arm since the trial began: impressions and clicks, answers, failed answers, newest rankings' seconds."""

    counts: ImpressionCounts = msgspec.field(default_factory=ImpressionCounts)
    answers: int = 0
    errors: int = 0
    seconds: Sequence[float] = ()


class ClickThroughRate(msgspec.Struct, frozen=True):
    """A click-through rate and the variance of its estimate."""

    value: float
    variance: float
    impressions: int
    clicks: int


class CanaryDecision(msgspec.Struct, frozen=True):
    """What to do with a canary, a short reason, a sentence, and the bounds of the difference in click-through rate."""

    action: Literal["wait", "rollback", "promote"]
    reason: str
    detail: str
    low: float | None = None
    high: float | None = None


def click_through_rate(counts: ImpressionCounts) -> ClickThroughRate:
    """Clicked lists per list; its variance from the spread between groups of users (random groups, linearized)."""
    shown, clicked = np.array(counts.impressions, float), np.array(counts.clicks, float)
    impressions, clicks = float(shown.sum()), float(clicked.sum())
    if not impressions:
        return ClickThroughRate(0.0, math.inf, 0, 0)
    value = clicks / impressions
    groups = len(shown)
    spread = float(((clicked - value * shown) ** 2).sum()) * groups / (groups - 1) / impressions**2
    least = max(value * (1 - value), 1 / impressions) / impressions  # at least that of independent lists
    return ClickThroughRate(value, max(spread, least), int(impressions), int(clicks))


def difference_bounds(
    canary: ClickThroughRate, control: ClickThroughRate, alpha: float, planned: int
) -> tuple[float, float]:
    """The confidence sequence of canary - control at this moment; it is tightest near `planned` impressions."""
    seen = max(1, canary.impressions)
    rho = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / planned
    grown = seen * rho + 1
    width = math.sqrt(2 * grown / (seen * rho) * math.log(math.sqrt(grown) / alpha))
    radius = width * math.sqrt(canary.variance + control.variance)
    difference = canary.value - control.value
    return difference - radius, difference + radius


def decide(canary: ArmStats, control: ArmStats, thresholds: CanaryThresholds, hours: float = 0.0) -> CanaryDecision:
    """The decision at this moment, `hours` after the trial began. Errors and latency come first: they hurt at once.

    A trial without a decision in time ends: it would keep every later candidate waiting.
    """
    decision = (
        _by_errors(canary, control, thresholds)
        or _by_latency(canary, control, thresholds)
        or _by_clicks(canary, control, thresholds)
    )
    if decision.action != "wait" or not 0 < thresholds.hours <= hours:
        return decision
    detail = f"no decision within {thresholds.hours:g} h (canary_hours): {decision.detail}"
    return CanaryDecision("rollback", "timeout", detail, decision.low, decision.high)


def p95(seconds: Sequence[float]) -> float:
    """The 95th percentile; 0 if empty."""
    return float(np.percentile(np.asarray(seconds), 95)) if len(seconds) else 0.0


def _by_errors(canary: ArmStats, control: ArmStats, thresholds: CanaryThresholds) -> CanaryDecision | None:
    if canary.answers < LEAST_ANSWERS and canary.errors < 2 * LEAST_ERRORS:
        return None
    canary_share = canary.errors / max(1, canary.answers)
    control_share = control.errors / max(1, control.answers)
    if canary.errors < LEAST_ERRORS or canary_share <= control_share + thresholds.errors:
        return None
    detail = f"{canary.errors} of {canary.answers} answers failed ({canary_share:.1%}, control {control_share:.1%})"
    return CanaryDecision("rollback", "errors", detail)


def _by_latency(canary: ArmStats, control: ArmStats, thresholds: CanaryThresholds) -> CanaryDecision | None:
    rankings = len(canary.seconds)
    if min(rankings, len(control.seconds)) < LEAST_RANKINGS:
        return None
    canary_p95, control_p95 = p95(canary.seconds), p95(control.seconds)
    allowed = max(thresholds.latency * control_p95, control_p95 + LATENCY_FLOOR_S)
    slow = sum(seconds > allowed for seconds in canary.seconds) / rankings
    if slow <= 0.05 + LATENCY_ERRORS * math.sqrt(0.05 * 0.95 / rankings):
        return None
    detail = f"p95 {1000 * canary_p95:.1f} ms, control {1000 * control_p95:.1f} ms"
    return CanaryDecision("rollback", "latency", detail)


def _by_clicks(canary: ArmStats, control: ArmStats, thresholds: CanaryThresholds) -> CanaryDecision:
    ours, theirs = click_through_rate(canary.counts), click_through_rate(control.counts)
    if min(ours.impressions, theirs.impressions) < LEAST_IMPRESSIONS or ours.clicks + theirs.clicks < LEAST_CLICKS:
        detail = f"{ours.impressions} impressions of the canary, {theirs.impressions} of the control"
        return CanaryDecision("wait", "too-few-impressions", detail)
    low, high = difference_bounds(ours, theirs, thresholds.alpha, thresholds.impressions)
    detail = (
        f"click-through rate {ours.value:.4f} of {ours.impressions} lists, control {theirs.value:.4f} of "
        f"{theirs.impressions}; difference within {low:+.4f}..{high:+.4f}"
    )
    if high < 0:
        return CanaryDecision("rollback", "clicks", detail, low, high)
    if ours.impressions >= thresholds.impressions and low > -thresholds.margin * theirs.value:
        return CanaryDecision("promote", "not-worse", detail, low, high)
    return CanaryDecision("wait", "undecided", detail, low, high)
