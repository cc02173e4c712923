"""Weights of a mixture's members by segment, learned from how likely each member makes held-out events."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from models.arrays import AnyArray, Float64
from models.synthesizers.conditions import Conditions

MOST_KNOWN: Final = 5
"""Users with this many known events or more are one segment."""
ITERATIONS: Final = 200
LEAST: Final = 1e-12
LEAST_GAIN: Final = 1e-6
"""Nats below which a gain is rounding."""
CONFIDENCE: Final = 1.96
"""Standard errors below the mean gain, for a lower 95% bound."""


class SegmentWeights(msgspec.Struct, frozen=True):
    """One segment: `weights` float64 [members], the last one of no synthesis (popularity). `gain`: nats by which the
    held-out events of a case are more likely under the mixture than under popularity, with its lower 95% bound; of
    weights that were learned from other users. `cases`: how many."""

    weights: list[float]
    gain: float = 0.0
    lower_bound: float = 0.0
    cases: int = 0


def segment_of(condition: Conditions, attribute: str) -> str:
    """The name of a condition's segment: its number of known events, and the profile's value of `attribute` if given.

    >>> segment_of(Conditions(profile={"group": "young"}), "group")
    '0 group=young'
    """
    known = min(MOST_KNOWN, len(condition.first.items) + len(condition.later.items))
    value = (condition.profile or {}).get(attribute) if attribute else None
    return f"{known} {attribute}={value}" if value is not None else str(known)


def learn_weights(logs: Float64, segments: Sequence[str], users: AnyArray, shrink: float) -> dict[str, SegmentWeights]:
    """Weights for each segment and, by its number of known events alone, for users outside any.

    `logs` float64 [cases, members]: the log-probability of each case's held-out events under each member, the last one
    being popularity; `segments` and `users` int64 [cases]: of each case. Weights maximize the log-likelihood
    (expectation maximization: Dempster, Laird & Rubin, 1977), with `shrink` cases of the weights of all segments added.
    A segment whose gain over popularity has a lower 95% bound of 0 or less gets all of its weight on popularity: no
    synthesis.
    """
    likelihoods = np.exp(logs - logs.max(axis=1, keepdims=True))  # a factor of a case changes no weight
    pooled = mixture_weights(likelihoods, np.full(likelihoods.shape[1], 1 / likelihoods.shape[1]), 0.0)
    names = np.array([segment.partition(" ")[0] for segment in segments]), np.array(segments)
    return {
        name: _segment(likelihoods[of == name], users[of == name], pooled, shrink)
        for of in names
        for name in np.unique(of).tolist()
    }


def mixture_weights(likelihoods: Float64, prior: Float64, strength: float) -> Float64:
    """float64 [members]: the weights under which cases are most likely, with `strength` cases of `prior` added."""
    weights = prior
    for _ in range(ITERATIONS):
        shares = likelihoods * weights + LEAST
        shares /= shares.sum(axis=1, keepdims=True)
        weights = (shares.sum(axis=0) + strength * prior) / (len(likelihoods) + strength)
    return weights


def describe_weights(segments: Mapping[str, SegmentWeights], members: Sequence[str]) -> list[dict[str, object]]:
    """A row for each segment, in order: its weights by member, `none` for no synthesis, gain and cases."""
    names = [*members, "none"]
    return [
        {
            "segment": name,
            **{member: round(weight, 3) for member, weight in zip(names, segment.weights, strict=True)},
            "gain": round(segment.gain, 4),
            "lower_bound": round(segment.lower_bound, 4),
            "cases": segment.cases,
        }
        for name, segment in sorted(segments.items())
    ]


def _segment(likelihoods: Float64, users: AnyArray, pooled: Float64, shrink: float) -> SegmentWeights:
    gains = np.zeros(len(likelihoods))
    for half in (0, 1):
        others = mixture_weights(likelihoods[users % 2 != half], pooled, shrink)
        own = likelihoods[users % 2 == half]
        gains[users % 2 == half] = np.log(own @ others + LEAST) - np.log(own[:, -1] + LEAST)
    gain = float(gains.mean())
    lower = gain - CONFIDENCE * float(gains.std()) / len(gains) ** 0.5
    none = np.eye(likelihoods.shape[1])[-1]
    weights = mixture_weights(likelihoods, pooled, shrink) if lower > LEAST_GAIN else none
    return SegmentWeights(weights.tolist(), gain, lower, len(gains))
