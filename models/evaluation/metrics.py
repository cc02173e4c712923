"""Ranking metrics over the full catalogue: per user, aggregated, with intervals, and by segment."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from models.arrays import Bool, Float32, Float64, Int32, Int64
from models.data.splits import EvaluationCase
from models.data.vocabulary import Vocabulary
from models.recommenders.top_k import top_k

BLOCK: Final = 256
KS: Final = (5, 10, 20)
CALIBRATION_SMOOTHING: Final = 0.01
"""Share of the history's distribution that is mixed into the list's, which keeps calibration finite."""
LENGTHS: Final = ((1, 2), (3, 5), (6, 10), (11, 20), (21, None))

Score = Callable[[int, int], Float32]
"""Returns float32 [stop - start, items] for cases[start:stop]; the caller may overwrite it."""


class RankedLists(msgspec.Struct, frozen=True):
    """Recommended lists: `items` int64 [cases, k], best first, padded with -1; `auc` float64 [cases]."""

    items: Int64
    auc: Float64
    k: int


class Segment(msgspec.Struct, frozen=True):
    """A segment of users and its mean metrics."""

    by: str
    name: str
    users: int
    metrics: dict[str, float]


def rank(
    score: Score, vocabulary: Vocabulary, held_out: Sequence[EvaluationCase], k: int = 20, *, mask_seen: bool = False
) -> RankedLists:
    """The k best of the full catalogue for each case, ties by lower index.

    `mask_seen` excludes items of the user's history. AUC (the share of target-negative pairs in the right order, ties
    count half) uses unmasked scores; it is nan for a case without a known negative or target.
    """
    index = vocabulary.index
    items = np.full((len(held_out), k), -1, np.int64)
    auc = np.full(len(held_out), np.nan)
    for start in range(0, len(held_out), BLOCK):
        part = held_out[start : start + BLOCK]
        table = np.array(score(start, start + len(part)), np.float32)
        for row, case in enumerate(part):
            if case.negatives:
                auc[start + row] = _auc(table[row], case, index)
            if mask_seen:
                table[row, [index[item] for item in case.seen if item in index]] = -np.inf
        items[start : start + len(part)] = top_k(table, k)[0]
    return RankedLists(items, auc, k)


def per_user(
    ranked: RankedLists,
    vocabulary: Vocabulary,
    held_out: Sequence[EvaluationCase],
    ks: Sequence[int] = KS,
    *,
    popularity: Float32 | None = None,
    categories: Int32 | None = None,
) -> dict[str, Float64]:
    """Each metric as float64 [cases], named `ndcg@10`.

    accuracy is (true positives + true negatives) / items, those of the catalogue and targets outside it; precision,
    recall, f1, hr as usual; ndcg as in Järvelin & Kekäläinen, TOIS 2002, with binary gains and an ideal of
    min(k, targets) hits; mrr 1 / rank of the first hit; map the mean precision at hits over min(k, targets). With
    `popularity` [items]: novelty, the mean of -log2 of a shown item's share of events (Vargas & Castells, RecSys 2011).
    With `categories` [items] (0 is unknown): diversity, the share of pairs in a list that differ in category, and
    calibration, the divergence of the list's categories from the history's (Steck, RecSys 2018; 0 is best). Both ignore
    items without a category, and are nan if too few items are left. They and AUC are absent if no case has a value.
    Targets outside the vocabulary count as missed.
    """
    hits, sizes = _hits(ranked, vocabulary, held_out)
    outside = [len({item for item in case.targets if item not in vocabulary.index}) for case in held_out]
    decisions = np.maximum(len(vocabulary) + np.array(outside, np.int64), 1)
    out: dict[str, Float64] = {}
    for k in ks:
        top, ideal_hits = hits[:, :k], np.minimum(sizes, k)
        right = top.sum(axis=1).astype(np.float64)
        shown = (ranked.items[:, :k] >= 0).sum(axis=1)
        discount = 1 / np.log2(np.arange(2, top.shape[1] + 2))
        out[f"accuracy@{k}"] = 1 - ((shown - right) + (sizes - right)) / decisions
        out[f"precision@{k}"] = right / k
        out[f"recall@{k}"] = right / sizes
        out[f"f1@{k}"] = 2 * right / (k + sizes)
        out[f"hr@{k}"] = (right > 0).astype(np.float64)
        out[f"ndcg@{k}"] = top @ discount / np.cumsum(1 / np.log2(np.arange(2, k + 2)))[ideal_hits - 1]
        out[f"mrr@{k}"] = np.where(right > 0, 1 / (1 + top.argmax(axis=1)), 0.0)
        precisions = top.cumsum(axis=1) / np.arange(1, top.shape[1] + 1)
        out[f"map@{k}"] = (precisions * top).sum(axis=1) / ideal_hits
        if popularity is not None:
            out[f"novelty@{k}"] = _novelty(ranked.items[:, :k], popularity)
        if categories is not None:
            out |= _present(f"diversity@{k}", _diversity(ranked.items[:, :k], categories))
            out |= _present(f"calibration@{k}", _calibration(ranked.items[:, :k], categories, vocabulary, held_out))
    return out | _present("auc", ranked.auc)


def aggregate(
    values: Mapping[str, Float64], ranked: RankedLists, vocabulary: Vocabulary, ks: Sequence[int] = KS
) -> dict[str, float]:
    """Means over the users that have a value; over the catalogue: coverage, and the Gini index of impressions."""
    out = {name: _mean(column) for name, column in values.items()}
    for k in ks:
        shown = ranked.items[:, :k].ravel()
        counts = np.sort(np.bincount(shown[shown >= 0], minlength=len(vocabulary))).astype(np.float64)
        out[f"coverage@{k}"] = float((counts > 0).mean()) if len(counts) else 0.0
        places = np.arange(1, len(counts) + 1)
        total = max(counts.sum() * len(counts), 1.0)
        out[f"gini@{k}"] = float(((2 * places - len(counts) - 1) * counts).sum() / total)
    return {**out, "users": float(len(ranked.items))}


def intervals(
    values: Mapping[str, Float64], rng: np.random.Generator, resamples: int = 2_000
) -> dict[str, tuple[float, float]]:
    """95% intervals of the means by a Poisson bootstrap over users; all metrics share the draws."""
    names = list(values)
    if not names or not len(values[names[0]]):
        return {}
    table = np.stack([values[name] for name in names], axis=1)
    there = ~np.isnan(table)
    drawn = _resampled(np.where(there, table, 0.0), there.astype(np.float64), rng, resamples)
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return {name: (float(low[n]), float(high[n])) for n, name in enumerate(names)}


def mean_ratio(
    ours: Float64, theirs: Float64, rng: np.random.Generator, resamples: int = 2_000
) -> tuple[float, float, float]:
    """mean(ours) / mean(theirs) and its 95% interval, by a paired Poisson bootstrap over users."""
    table = np.stack([ours, theirs], axis=1)
    drawn = _resampled(table, np.ones_like(table), rng, resamples)
    quotients = drawn[:, 0] / np.maximum(drawn[:, 1], 1e-12)
    low, high = np.percentile(quotients, [2.5, 97.5])
    return float(ours.mean() / max(theirs.mean(), 1e-12)), float(low), float(high)


def segments(
    values: Mapping[str, Float64],
    held_out: Sequence[EvaluationCase],
    vocabulary: Vocabulary,
    popularity: Float32,
    profiles: Mapping[str, str] | None = None,
) -> list[Segment]:
    """Mean metrics by history length, by profile (user id -> label), and by whether the first target is in the head.

    The head is the set of most popular items that make up half of the events.
    """
    lengths = np.array(
        [sum(1 for kind in case.history.kinds if vocabulary.kind_weights[kind] > 0) for case in held_out]
    )
    out = []
    for least, most in LENGTHS:
        name = f"{least}-{most}" if most else f"{least}+"
        inside = (lengths >= least) & (lengths <= (most or 10**9))
        out.append(_segment("history length", name, inside, values))
    if profiles:
        labels = np.array([profiles.get(case.user_id, "unknown") for case in held_out])
        out += [_segment("profile", str(name), labels == name, values) for name in np.unique(labels)]
    order = np.argsort(-popularity, kind="stable")
    share = np.cumsum(popularity[order]) / max(float(popularity.sum()), 1e-12)
    head = set(order[: int(np.searchsorted(share, 0.5)) + 1].tolist())
    places = [vocabulary.index.get(case.targets[0]) for case in held_out]
    kinds = np.array(["new" if place is None else "head" if place in head else "tail" for place in places])
    out += [_segment("target item", name, kinds == name, values) for name in ("head", "tail", "new")]
    return [segment for segment in out if segment.users]


def evaluate(
    score: Score, vocabulary: Vocabulary, held_out: Sequence[EvaluationCase], k: int = 10, *, mask_seen: bool = False
) -> dict[str, float]:
    """The main metrics only: ndcg, hr, recall, mrr and coverage at k, and the number of users."""
    ranked = rank(score, vocabulary, held_out, k, mask_seen=mask_seen)
    whole = aggregate(per_user(ranked, vocabulary, held_out, (k,)), ranked, vocabulary, (k,))
    return {
        name: whole[name]
        for name in (*(f"{metric}@{k}" for metric in ("ndcg", "hr", "recall", "mrr", "coverage")), "users")
    }


def _present(name: str, column: Float64) -> dict[str, Float64]:
    """A metric, or nothing if no case has a value."""
    return {} if np.isnan(column).all() else {name: column}


def _auc(scores: Float32, case: EvaluationCase, index: Mapping[str, int]) -> float:
    positives = scores[[index[item] for item in case.targets if item in index]]
    negatives = scores[[index[item] for item in case.negatives if item in index]]
    if not len(positives) or not len(negatives):
        return float("nan")
    above = (positives[:, None] > negatives[None]).mean()
    return float(above + 0.5 * (positives[:, None] == negatives[None]).mean())


def _hits(ranked: RankedLists, vocabulary: Vocabulary, held_out: Sequence[EvaluationCase]) -> tuple[Bool, Int64]:
    """bool [cases, k]: which shown items are targets; int64 [cases]: the number of targets."""
    items = len(vocabulary)
    index = vocabulary.index
    keys = [row * items + index[item] for row, case in enumerate(held_out) for item in case.targets if item in index]
    shown = np.arange(len(held_out))[:, None] * items + ranked.items
    hits = np.isin(shown, np.array(keys, np.int64)) & (ranked.items >= 0)
    return hits, np.array([len(case.targets) for case in held_out], np.int64)


def _novelty(shown: Int64, popularity: Float32) -> Float64:
    share = (popularity + 1) / (popularity.sum() + len(popularity))
    there = shown >= 0
    bits = np.where(there, -np.log2(share[np.maximum(shown, 0)]), 0.0)
    return np.where(there.any(axis=1), bits.sum(axis=1) / np.maximum(there.sum(axis=1), 1), np.nan)


def _diversity(shown: Int64, categories: Int32) -> Float64:
    codes = np.where(shown >= 0, categories[np.maximum(shown, 0)], 0)
    known = codes > 0
    n = known.sum(axis=1)
    same = ((codes[:, :, None] == codes[:, None]) & known[:, :, None] & known[:, None]).sum(axis=(1, 2)) - n
    return np.where(n > 1, 1 - same / np.maximum(n * (n - 1), 1), np.nan)


def _calibration(
    shown: Int64, categories: Int32, vocabulary: Vocabulary, held_out: Sequence[EvaluationCase]
) -> Float64:
    out = np.full(len(held_out), np.nan)
    for row, case in enumerate(held_out):
        took = categories[[vocabulary.index[item] for item in case.history.items if item in vocabulary.index]]
        given = categories[shown[row][shown[row] >= 0]]
        took, given = took[took > 0], given[given > 0]
        if not len(took) or not len(given):
            continue
        p = np.bincount(took) / len(took)
        q = np.bincount(given, minlength=len(p))[: len(p)] / len(given)
        kept = p > 0
        mixed = (1 - CALIBRATION_SMOOTHING) * q[kept] + CALIBRATION_SMOOTHING * p[kept]
        out[row] = float((p[kept] * np.log2(p[kept] / mixed)).sum())
    return out


def _resampled(table: Float64, there: Float64, rng: np.random.Generator, resamples: int) -> Float64:
    """Means of each column under Poisson(1) weights per user, float64 [resamples, columns]; in blocks of users."""
    sums, counts = np.zeros((resamples, table.shape[1])), np.zeros((resamples, table.shape[1]))
    for start in range(0, len(table), 4_096):
        part = table[start : start + 4_096]
        weights = rng.poisson(1.0, (resamples, len(part))).astype(np.float64)
        sums += weights @ part
        counts += weights @ there[start : start + 4_096]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _segment(by: str, name: str, inside: Bool, values: Mapping[str, Float64]) -> Segment:
    metrics = {metric: _mean(column[inside]) for metric, column in values.items()} if inside.any() else {}
    return Segment(by, name, int(inside.sum()), metrics)


def _mean(column: Float64) -> float:
    there = column[~np.isnan(column)]
    return float(there.mean()) if len(there) else float("nan")
