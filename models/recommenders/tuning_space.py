"""Tuning spaces that several recommenders share."""

from typing import TYPE_CHECKING, Any, Final

from models.recommenders.base import TuningContext

if TYPE_CHECKING:
    from optuna import Trial

DAY_MS: Final = 24 * 60 * 60 * 1000
MIN_DAYS: Final = 5 / (24 * 60)
"""No half-life below five minutes is tried."""


def half_life(trial: "Trial", context: TuningContext) -> float | None:
    """A half-life in ms, from a ten-thousandth of the events' span (at least five minutes) to all of it; or None."""
    if not trial.suggest_categorical("fades", [True, False]):
        return None
    shortest = max(MIN_DAYS, context.days / 10_000)
    days: float = trial.suggest_float("half_life_days", shortest, max(2 * shortest, context.days), log=True)
    return days * DAY_MS


def history_weights(trial: "Trial", context: TuningContext, min_decay: float) -> dict[str, Any]:
    """`decay` of older events, and `own`, the weight of an item's own events, where items may be repeated."""
    own = trial.suggest_float("own", 0.01, 3.0, log=True) if context.repeats else 0.0
    return {"decay": trial.suggest_float("decay", min_decay, 1.0), "own": own}
