"""The pass rule: an arm against the best of the others, for each number of known events; the verdict as a sentence."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np

from models.evaluation.bootstrap import Comparison, corrected, ratio_text
from models.evaluation.cold_values import PRIMARY, UserValues
from models.experiments.measures import ANY_K, NEXT, compared

GAIN: Final = 1.05
"""The ratio of the means that an arm has to reach."""
LOSS: Final = 0.99
"""The ratio below which the next event, or warm users, lose too much."""
SIGNIFICANT: Final = 0.05


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """An arm against the best other one at k known events.

    `ratio`: of NDCG@10, mean over horizons 1 to 5, with its interval and p-value corrected over k. `next`: of the next
    event. `warm`: of warm users' last events; None without warm users. `users`: cold users. `reasons`: why it fails.
    """

    scenario: str
    k: int
    arm: str
    other: str
    users: int
    value: float
    other_value: float
    ratio: Comparison
    next: Comparison
    warm: Comparison | None
    reasons: list[str]

    @property
    def passed(self) -> bool:
        return not self.reasons


def judge(
    values: UserValues,
    warm: UserValues | None,
    candidates: Sequence[Mapping[int, str]],
    others: Sequence[str],
    rng: np.random.Generator,
    scenario: str = "",
) -> list[Verdict]:
    """A verdict for each k of each candidate, which is the arm that stands for it at each k.

    The best of `others` is the one with the highest mean at this k. P-values are corrected over the k of a candidate
    (Holm). The next event and warm users are compared with the same arm.
    """
    best = {k: values.best(others, k) for k in values.ks}
    judged = [(arm, best[k], k) for candidate in candidates for k, arm in candidate.items()]
    pairs = [(*key, metric) for metric in (PRIMARY, NEXT) for key in judged]
    ratios = compared(values, pairs, rng)
    ratios, nexts = ratios[: len(judged)], ratios[len(judged) :]
    sizes = np.cumsum([len(candidate) for candidate in candidates])[:-1].tolist()
    ratios = [ratio for start, stop in pairwise([0, *sizes, len(judged)]) for ratio in corrected(ratios[start:stop])]
    has_warm = warm is not None and bool(warm.users)
    warm_pairs = [(arm, other, ANY_K, PRIMARY) for arm, other, _k in judged]
    warm_ratios = compared(warm, warm_pairs, rng) if warm is not None and has_warm else [None] * len(judged)
    return [
        Verdict(
            scenario=scenario,
            k=k,
            arm=arm,
            other=other,
            users=int((~np.isnan(values.column(arm, k))).sum()),
            value=values.mean(arm, k),
            other_value=values.mean(other, k),
            ratio=ratio,
            next=next_event,
            warm=warm_ratio,
            reasons=_reasons(ratio, next_event, warm_ratio),
        )
        for (arm, other, k), ratio, next_event, warm_ratio in zip(judged, ratios, nexts, warm_ratios, strict=True)
    ]


def _reasons(ratio: Comparison, next_event: Comparison, warm: Comparison | None) -> list[str]:
    reasons = []
    if ratio.low <= 1 or ratio.holm >= SIGNIFICANT:
        reasons.append("the gain is not proven")
    if ratio.ratio < GAIN:
        reasons.append(f"the gain is below {GAIN - 1:.0%}")
    if next_event.ratio < LOSS:
        reasons.append(f"the next event loses {1 - next_event.ratio:.1%}")
    if warm is not None and warm.ratio < LOSS:
        reasons.append(f"warm users lose {1 - warm.ratio:.1%}")
    return reasons


def sentences(verdicts: Sequence[Verdict], use: str = "inject") -> list[str]:
    """One sentence on where not to do it, first, then one for each k where it passes."""
    failed = [verdict for verdict in verdicts if not verdict.passed]
    lines = []
    if failed:
        ks = ", ".join(str(verdict.k) for verdict in failed)
        everywhere = len(failed) == len(verdicts)
        lines.append(f"Do not {use}{'' if everywhere else f' at k = {ks}'}: {'; '.join(map(_because, failed))}.")
    passed = [verdict for verdict in verdicts if verdict.passed]
    return lines + [f"{use.capitalize()} at k = {verdict.k}: {_figures(verdict)}." for verdict in passed]


def _because(verdict: Verdict) -> str:
    return f"k = {verdict.k} {_figures(verdict)} ({', '.join(verdict.reasons)})"


def _figures(verdict: Verdict) -> str:
    warm = f", warm users {verdict.warm.ratio:.3f}" if verdict.warm is not None else ""
    return (
        f"{verdict.arm} gives {ratio_text(verdict.ratio)} times {verdict.other}, "
        f"next event {verdict.next.ratio:.3f}{warm}"
    )
