"""Paired bootstrap over users, and Holm's correction over several comparisons."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from models.arrays import Float64

RESAMPLES: Final = 10_000
BLOCK: Final = 1_024
"""Users whose draws are made at a time, which bounds memory."""


class Comparison(msgspec.Struct, frozen=True):
    """The ratio of two means over the same users, its 95% interval, and the two-sided p-value of their difference.

    `holm`: the p-value corrected for all comparisons that were made together.
    """

    ratio: float
    low: float
    high: float
    p: float
    holm: float = float("nan")


def resampled_means(columns: Float64, rng: np.random.Generator, resamples: int = RESAMPLES) -> Float64:
    """float64 [resamples, columns]: means of `columns` float64 [users, columns] over users that are drawn again.

    All columns share the draws, so differences between them are paired. A user counts as often as a Poisson(1) draw
    says; nan is no value.
    """
    there = ~np.isnan(columns)
    values = np.where(there, columns, 0.0).astype(np.float32)
    sums = np.zeros((resamples, columns.shape[1]), np.float32)
    counts = np.zeros_like(sums)
    for start in range(0, len(columns), BLOCK):
        part = slice(start, start + BLOCK)
        drawn = rng.poisson(1.0, (resamples, len(values[part]))).astype(np.float32)
        sums += drawn @ values[part]
        counts += drawn @ there[part].astype(np.float32)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float64)


def intervals(
    columns: Mapping[str, Float64], rng: np.random.Generator, resamples: int = RESAMPLES
) -> dict[str, tuple[float, float]]:
    """The 95% interval of each column's mean over users."""
    if not columns:
        return {}
    drawn = resampled_means(np.stack(list(columns.values()), axis=1), rng, resamples)
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return {name: (float(low[number]), float(high[number])) for number, name in enumerate(columns)}


def compare(
    ours: Sequence[Float64], others: Sequence[Float64], rng: np.random.Generator, resamples: int = RESAMPLES
) -> list[Comparison]:
    """Compare pairs of columns over the same users; p-values are corrected for all of them (Holm, 1979)."""
    pairs = [(number, len(ours) + number) for number in range(len(ours))]
    return corrected(compare_pairs(dict(enumerate([*ours, *others])), pairs, rng, resamples))


def compare_pairs(
    columns: Mapping[Any, Float64],
    pairs: Sequence[tuple[Any, Any]],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> list[Comparison]:
    """Compare pairs of columns (by their keys) over the same users, each resampled once; p-values are not corrected."""
    if not pairs:
        return []
    places = {key: number for number, key in enumerate(columns)}
    drawn = resampled_means(np.stack(list(columns.values()), axis=1), rng, resamples)
    comparisons = []
    for mine, other in pairs:
        left, right = drawn[:, places[mine]], drawn[:, places[other]]
        low, high = np.nanpercentile(left / np.maximum(right, 1e-12), [2.5, 97.5])
        below = (1 + (left <= right).sum()) / (1 + len(left))
        above = (1 + (left >= right).sum()) / (1 + len(left))
        ratio = float(np.nanmean(columns[mine])) / max(float(np.nanmean(columns[other])), 1e-12)
        comparisons.append(Comparison(ratio, float(low), float(high), float(min(1.0, 2 * min(below, above)))))
    return comparisons


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons that were made together, with their p-values corrected for all of them (Holm)."""
    p_values = holm([comparison.p for comparison in comparisons])
    return [msgspec.structs.replace(each, holm=p) for each, p in zip(comparisons, p_values, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for several comparisons (Holm, Scandinavian Journal of Statistics 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        adjusted[number] = largest
    return adjusted


def ratio_text(comparison: Comparison) -> str:
    """A ratio with its interval."""
    return f"{comparison.ratio:.3f} [{comparison.low:.3f}, {comparison.high:.3f}]"
