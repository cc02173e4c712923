"""Exponential decay that gives the same bits however the events are cut into batches.

A decayed sum is kept at a landmark: a whole number of half-lives since 1970. An event at time t adds
2^(t / half_life - landmark). Moving the landmark multiplies by a power of two, which a binary float does without
rounding, so it commutes with every addition before and after it: a rebuild is byte-equal to the live state.
(Forward decay: Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay", ICDE 2009, section 3.)
"""

from math import exp2, ldexp


def landmark_of(at: int, half_life_ms: int) -> int:
    """The landmark (whole half-lives since 1970) of an instant `at` (epoch ms)."""
    return at // half_life_ms


def landmark_and_weight(at: int, half_life_ms: int) -> tuple[int, float]:
    """The landmark of an instant (epoch ms), and what an event then adds to a sum kept at that landmark: 1 to 2."""
    whole, rest = divmod(at, half_life_ms)
    return whole, exp2(rest / half_life_ms)


def weight(at: int, landmark: int, half_life_ms: int) -> float:
    """What an event at `at` (epoch ms) adds to a sum kept at `landmark`: 2^(at / half_life - landmark)."""
    whole, rest = divmod(at, half_life_ms)
    return ldexp(exp2(rest / half_life_ms), whole - landmark)


def rescale(total: float, old: int, new: int) -> float:
    """A sum kept at landmark `old`, as it reads at landmark `new`. Exact while the result is a normal float."""
    return ldexp(total, old - new)


def value_at(total: float, landmark: int, now_ms: int, half_life_ms: int) -> float:
    """The decayed sum as it stands at `now_ms`: each event weighs 2^(-age / half_life)."""
    return total / weight(now_ms, landmark, half_life_ms)
