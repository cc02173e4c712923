"""The pass rule: an arm against the best of the others, for each number of known events; the verdict as a sentence."""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from models.evaluation.bootstrap import Comparison, compare
from models.evaluation.cold_values import UserValues
from models.experiments.measures import ANY_K, NEXT

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
    arms: Mapping[int, str],
    others: Sequence[str],
    rng: np.random.Generator,
    scenario: str = "",
) -> list[Verdict]:
    """A verdict for each k, on the arm that stands for it; p-values are corrected over these k (Holm).

    The best of `others` is the one with the highest mean at this k, over the users that are judged. The next event and
    warm users are compared with the same arm.
    """
    best = {k: values.best(others, k) for k in arms}
    ratios, nexts = values.compare(arms, best, rng), values.compare(arms, best, rng, NEXT)
    warm_ratios = _warm_ratios(warm, arms, best, rng)
    return [
        Verdict(
            scenario=scenario,
            k=k,
            arm=arm,
            other=best[k],
            users=int((~np.isnan(values.column(arm, k))).sum()),
            value=values.mean(arm, k),
            other_value=values.mean(best[k], k),
            ratio=ratios[k],
            next=nexts[k],
            warm=warm_ratios.get(k),
            reasons=_reasons(ratios[k], nexts[k], warm_ratios.get(k)),
        )
        for k, arm in arms.items()
    ]


def _warm_ratios(
    warm: UserValues | None, arms: Mapping[int, str], best: Mapping[int, str], rng: np.random.Generator
) -> dict[int, Comparison]:
    if warm is None or not warm.users:
        return {}
    mine = [warm.column(arms[k], ANY_K) for k in arms]
    theirs = [warm.column(best[k], ANY_K) for k in arms]
    return dict(zip(arms, compare(mine, theirs, rng), strict=True))


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


def ratio_text(comparison: Comparison) -> str:
    """A ratio with its interval."""
    return f"{comparison.ratio:.3f} [{comparison.low:.3f}, {comparison.high:.3f}]"
