"""Exploration with known propensities, and estimators of another policy's value from the exploration log.

Each slot of a list but the first explores independently with probability `share`: it then shows an item drawn from its
own pool. The propensity is therefore exact: the probability that the look-up shows this item in this slot. Pools are
disjoint, so no item is shown twice.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import msgspec
import numpy as np

from models.arrays import Float32, Float64
from models.errors import ModelError
from stream.events import Impression

MIX: Final = 0.2
"""Uniform part of the draw: it bounds propensities away from zero, and so the weights 1 / propensity."""


class ExplorationDraw(msgspec.Struct, frozen=True):
    """What a slot shows: `place` in the slot's pool, or None for its ranked item."""

    place: int | None
    propensity: float


class PolicyEstimate(msgspec.Struct, frozen=True):
    """A policy's value estimated from another policy's log, its standard error, and the effective sample size."""

    value: float
    error: float
    effective: float


def seed_from(request_id: str) -> int:
    """A 64-bit seed from a request's id: the same id gives the same draw, so that any answer can be reproduced."""
    return int.from_bytes(blake2b(request_id.encode(), digest_size=8).digest(), "little")


def draw_probabilities(scores: Float32, logits: bool) -> Float64:
    """float64 [m], summing to one: the probability of each item of a pool to be drawn.

    A softmax over `logits`; probabilities are used in proportion (a softmax of their logarithms). An item without a
    score (NaN) gets the average weight of the others. A part of `MIX` is uniform.
    """
    values = scores.astype(np.float64)
    known = np.isfinite(values)
    weights = np.zeros(len(values))
    if known.any():
        inside = values[known]
        weights[known] = np.exp(inside - inside.max()) if logits else np.maximum(inside, 0.0)
    total = weights.sum()
    weights[known] = weights[known] / total if total > 0 else 1.0 / max(1, int(known.sum()))
    weights[~known] = 1.0 / max(1, int(known.sum()))
    probabilities: Float64 = (1 - MIX) * weights / weights.sum() + MIX / len(weights)
    return probabilities


def explore(
    pools: Sequence[Sequence[float]], logits: bool, share: float, rng: np.random.Generator
) -> list[ExplorationDraw]:
    """What each slot shows. `pools` are the scores of each slot's items (see `draw_probabilities`).

    A slot with an empty pool does not explore. Each slot draws two random numbers whether it uses them or not, so that
    its pool does not change the draws of other slots.
    """
    drawn: list[ExplorationDraw] = []
    for pool, (first, second) in zip(pools, rng.random((len(pools), 2)).tolist(), strict=True):
        if not len(pool) or share <= 0:
            drawn.append(ExplorationDraw(None, 1.0))
        elif first >= share:
            drawn.append(ExplorationDraw(None, 1.0 - share))
        else:
            odds = draw_probabilities(np.array(pool, np.float32), logits)
            place = min(int(np.searchsorted(np.cumsum(odds), second, side="right")), len(pool) - 1)
            drawn.append(ExplorationDraw(place, share * float(odds[place])))
    return drawn


def propensities_of(impression: Impression) -> Float64:
    """float64 [items shown]: the propensities in an impression's context (`propensities`, a JSON list as text).

    Raises:
        ModelError: they are missing, malformed, or do not match the items.
    """
    text = impression.context.get("propensities")
    try:
        propensities = msgspec.json.decode(str(text), type=list[float])
    except msgspec.DecodeError as error:
        raise ModelError(
            f"impression {impression.event_id}: context.propensities is no list of numbers ({error}); "
            "send those of the answer, as JSON text"
        ) from None
    if len(propensities) != len(impression.item_ids) or not all(0 < propensity <= 1 for propensity in propensities):
        raise ModelError(
            f"impression {impression.event_id}: {len(propensities)} propensities for {len(impression.item_ids)} items; "
            "give one above 0 and at most 1 for each, in order"
        )
    return np.array(propensities)


def ips(rewards: Float64, logged: Float64, target: Float64) -> PolicyEstimate:
    """Inverse propensity scoring: the mean reward of a target policy (Horvitz & Thompson, 1952).

    Args:
        rewards: float64 [n], such as 1 for a click.
        logged: float64 [n], the logged propensity of the shown item; above zero.
        target: float64 [n], the probability that the target policy shows it.

    Unbiased if the logging policy can show everything that the target policy shows.

    Raises:
        ModelError: a logged propensity is not above zero.
    """
    weights = _weights(logged, target)
    each = weights * rewards
    error = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else float("inf")
    return PolicyEstimate(float(each.mean()), error, _effective(weights))


def snips(rewards: Float64, logged: Float64, target: Float64) -> PolicyEstimate:
    """Self-normalized `ips`: a small bias for much less variance (Swaminathan & Joachims, NIPS 2015)."""
    weights = _weights(logged, target)
    total = float(weights.sum())
    if total == 0:
        return PolicyEstimate(float("nan"), float("inf"), 0.0)
    value = float(weights @ rewards) / total
    error = float(np.sqrt(np.square(weights * (rewards - value)).sum())) / total
    return PolicyEstimate(value, error, _effective(weights))


def _weights(logged: Float64, target: Float64) -> Float64:
    if len(logged) == 0 or not (logged > 0).all():
        raise ModelError(
            "a propensity in the log is not above zero, or there is no log; take answers with `propensity`"
        )
    weights: Float64 = target / logged
    return weights


def _effective(weights: Float64) -> float:
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0
