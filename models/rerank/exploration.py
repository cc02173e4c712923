"""Exploration with known propensities, and what a log of it says of another way of ranking.

Every slot of a list but the first explores by itself, with probability `share`: it then shows an item drawn from a pool
of its own, so that slots are independent and each propensity is exact: the probability that this item stands in this
slot when this look-up is made. Pools are disjoint: no item comes twice.
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
"""This part of a draw is even over the pool: no propensity comes near zero, so no weight 1 / propensity explodes."""


class ExplorationDraw(msgspec.Struct, frozen=True):
    """What a slot shows: `place` in the slot's pool, or None for the item that stands there anyway."""

    place: int | None
    propensity: float


class PolicyEstimate(msgspec.Struct, frozen=True):
    """The value of a policy from another one's log, its standard error, and the effective number of observations."""

    value: float
    error: float
    effective: float


def seed_from(request_id: str) -> int:
    """64 bits from a request's id: the same id draws the same, so that any answer can be checked afterwards."""
    return int.from_bytes(blake2b(request_id.encode(), digest_size=8).digest(), "little")


def draw_probabilities(scores: Float32, logits: bool) -> Float64:
    """float64 [m], summing to one: how likely each item of a pool is to be drawn.

    A softmax over scores that are `logits`, in proportion to scores that are shares (a softmax of their logarithms);
    NaN marks an item without a score, which weighs what the others weigh on average. `MIX` of it is even.
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
    found: Float64 = (1 - MIX) * weights / weights.sum() + MIX / len(weights)
    return found


def explore(
    pools: Sequence[Sequence[float]], logits: bool, share: float, rng: np.random.Generator
) -> list[ExplorationDraw]:
    """What each slot shows. `pools` are the scores of each slot's items, (see `draw_probabilities`); a slot with an
    empty pool does not explore.

    Two numbers are drawn for each slot, whatever they are used for: one slot's pool does not move another's draw.
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
    """float64 [items shown]: what an impression's context says under `propensities`, a JSON list as text.

    Raises:
        ModelError: there is none, or it does not fit the items.
    """
    text = impression.context.get("propensities")
    try:
        found = msgspec.json.decode(str(text), type=list[float])
    except msgspec.DecodeError as error:
        raise ModelError(
            f"impression {impression.event_id}: context.propensities is no list of numbers ({error}); "
            "send those of the answer, as JSON text"
        ) from None
    if len(found) != len(impression.item_ids) or not all(0 < one <= 1 for one in found):
        raise ModelError(
            f"impression {impression.event_id}: {len(found)} propensities for {len(impression.item_ids)} items; "
            "give one above 0 and at most 1 for each, in order"
        )
    return np.array(found)


def ips(rewards: Float64, logged: Float64, target: Float64) -> PolicyEstimate:
    """Inverse propensity scoring: the mean reward that a target policy would have had (Horvitz & Thompson, 1952).

    Args:
        rewards: float64 [n], such as 1 for a click.
        logged: float64 [n], the propensity that the log gives for what was shown; above zero.
        target: float64 [n], the probability with which the target policy would have shown it.

    Unbiased wherever the log's policy shows everything that the target policy does.

    Raises:
        ModelError: a logged propensity is not above zero.
    """
    weights = _weights(logged, target)
    each = weights * rewards
    error = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else float("inf")
    return PolicyEstimate(float(each.mean()), error, _effective(weights))


def snips(rewards: Float64, logged: Float64, target: Float64) -> PolicyEstimate:
    """The same over the mean weight: a little bias for much less variance (Swaminathan & Joachims, NIPS 2015)."""
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
    found: Float64 = target / logged
    return found


def _effective(weights: Float64) -> float:
    squares = float(np.square(weights).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0
