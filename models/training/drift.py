"""Drift: how much the newest events differ from the training data of the serving release, and its hit rate on them.

Every feature belongs to a single event, so that short and long periods are comparable: the kind and category of the
event, whether its item is among the most popular, how many events its user had before, and the time since the last.
All functions are pure: frames and arrays in, numbers out.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
import pandas as pd

from features.activity import History
from models.arrays import Float32, Objects
from models.data import splits
from models.data.splits import EvaluationCase
from models.data.vocabulary import DEFAULT_KIND_WEIGHTS
from models.evaluation import metrics
from models.recommenders.base import Scorer
from models.releases.manifest import DEFAULT_HISTORY_LENGTH, TRAINING_FILE_PREFIX
from stream.events import KIND_CODES

REFERENCE: Final = f"{TRAINING_FILE_PREFIX}reference.json"
SHARE: Final = 0.1
"""Share of the training events, the newest ones, that serves as the reference."""
HEAD: Final = 20
"""Number of most popular items, and of categories, that have a bin of their own."""
LONGEST: Final = 64
OTHER: Final = "other"
FEATURES: Final = ("kind", "category", "item", "history", "gap")
K: Final = 10
MAX_CASES: Final = 500
"""Enough events for a hit rate accurate to four percentage points."""
HIT_RATE: Final = f"next_hr@{K}"
"""Name of the metric on a release's card: the share of next items among the best 10, over the holdout."""

BinCounts = dict[str, int]


class DriftReference(msgspec.Struct, frozen=True):
    """Counts of the newest training events of a release, by feature and bin.

    `until_at`: time of the newest event, epoch ms.
    """

    until_at: int
    events: int
    features: dict[str, BinCounts]


class DriftLimits(msgspec.Struct, frozen=True):
    """Limits of drift.

    Attributes:
        index: the largest stability index that a feature may have.
        hit_drop: the largest relative drop of the hit rate; the drop must also be significant.
        least: the number of new events below which drift is not reported.
    """

    index: float = 0.25
    hit_drop: float = 0.2
    least: int = 1_000


class Drift(msgspec.Struct, frozen=True):
    """How much the newest events differ from the reference.

    Attributes:
        events: number of new events.
        index: stability index by feature.
        hit_rate: of the serving release, on `hit_rate_cases` new events.
        held_out_hit_rate: of the release on its own holdout; None: unknown.
        reasons: the features above their limit, and `hit-rate`.
    """

    events: int
    index: dict[str, float]
    hit_rate: float | None = None
    held_out_hit_rate: float | None = None
    hit_rate_cases: int = 0
    reasons: list[str] = []


def reference_of(frame: pd.DataFrame, share: float = SHARE) -> DriftReference:
    """Counts of the newest `share` of interactions [user_id, item_id, kind, at, category], which are in time order.

    Histories and gaps cover all of `frame`.
    """
    start = len(frame) - max(1, round(share * len(frame)))
    newest = slice(max(0, start), None)
    bins = bin_events(frame)
    heads = {name: _head(bins[name][newest]) for name in ("category", "item")}
    counts = {name: _counted(bins[name][newest], heads.get(name)) for name in FEATURES}
    return DriftReference(int(frame["at"].max()) if len(frame) else 0, len(frame) - max(0, start), counts)


def bin_events(frame: pd.DataFrame) -> dict[str, Objects]:
    """The bin of each event for each feature, object [events].

    `history`: the number of earlier events of the user, in powers of two up to 64. `gap`: seconds since the user's
    previous event, in powers of four; `first` if there is none.
    """
    users = pd.factorize(frame["user_id"])[0]
    at = frame["at"].to_numpy(np.int64)
    order = np.argsort(users, kind="stable")
    first = np.append(True, np.diff(users[order]) != 0)[: len(order)]
    number = np.arange(len(order))
    place = number - np.maximum.accumulate(np.where(first, number, 0))
    passed = np.diff(at[order], prepend=0) / 1000
    gaps = np.where(first, -1, (np.log2(1 + np.maximum(passed, 0)) / 2).astype(np.int64))
    lengths = np.floor(np.log2(1 + np.minimum(place, LONGEST))).astype(np.int64)
    history, gap = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    history[order], gap[order] = lengths, gaps
    category = frame["category"] if "category" in frame else pd.Series(None, index=frame.index, dtype=object)
    return {
        "kind": frame["kind"].to_numpy(object),
        "category": category.fillna("none").astype(str).to_numpy(object),
        "item": frame["item_id"].to_numpy(object),
        "history": np.array([f"{2**bin_number - 1}+" for bin_number in history], object),
        "gap": np.array(["first" if bin_number < 0 else f"{4**bin_number - 1}s+" for bin_number in gap], object),
    }


def compare(frame: pd.DataFrame, reference: DriftReference) -> tuple[int, dict[str, float]]:
    """The number of events after the reference, and the stability index of each feature between the two."""
    newest = (frame["at"] > reference.until_at).to_numpy()
    if not newest.any():
        return 0, {}
    bins = bin_events(frame)
    index = {}
    for name, counts in reference.features.items():
        head = set(counts) - {OTHER} if name in {"category", "item"} else None
        index[name] = stability_index(counts, _counted(bins[name][newest], head))
    return int(newest.sum()), index


def stability_index(then: BinCounts, now: BinCounts) -> float:
    """The population stability index: the sum over bins of (q - p) ln(q / p), p and q the shares then and now.

    Half an event is added to every bin, which keeps empty bins finite. The index expected by chance for n and m events,
    (bins - 1) (1 / n + 1 / m) (Yurdakul, 2018), is subtracted; the result is at least 0.
    """
    bins = sorted(set(then) | set(now))
    n, m = sum(then.values()), sum(now.values())
    if not n or not m:
        return 0.0
    p = np.array([then.get(label, 0) + 0.5 for label in bins])
    q = np.array([now.get(label, 0) + 0.5 for label in bins])
    p, q = p / p.sum(), q / q.sum()
    chance = (len(bins) - 1) * (1 / n + 1 / m)
    return max(0.0, float(((q - p) * np.log(q / p)).sum()) - chance)


def hit_rate(
    recommender: Scorer,
    cases: Sequence[EvaluationCase],
    *,
    history_length: int = DEFAULT_HISTORY_LENGTH,
    mask_seen: bool,
) -> float:
    """The share of cases whose item is among the recommender's best 10."""
    batch = splits.batch_cases(cases, recommender.vocabulary, history_length)

    def score(start: int, stop: int) -> Float32:
        return recommender.score(batch.slice(start, stop))

    ranked = metrics.rank(score, recommender.vocabulary, cases, K, mask_seen=mask_seen)
    hits = metrics.per_user(ranked, recommender.vocabulary, cases, (K,))[f"hr@{K}"]
    return float(hits.mean()) if len(hits) else 0.0


def next_event_cases(
    frame: pd.DataFrame,
    since_at: int,
    rng: np.random.Generator,
    most: int = MAX_CASES,
    weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS,
    history_length: int = DEFAULT_HISTORY_LENGTH,
) -> list[EvaluationCase]:
    """Next-event cases: up to `most` sampled events from `since_at` (epoch ms) on, each with its user's earlier events.

    Only events of positive kind weight (`weights`, by event code) are sampled; cases without earlier events are
    dropped. Simultaneous events do not count as earlier.
    """
    relevant = np.array(weights)[frame["kind"].map(KIND_CODES).to_numpy(np.int64)] > 0
    at = frame["at"].to_numpy(np.int64)
    places = np.flatnonzero(relevant & (at >= since_at))
    if len(places) > most:
        places = np.sort(rng.choice(places, most, replace=False))
    users, items = frame["user_id"].to_numpy(object), frame["item_id"].to_numpy(object)
    codes = frame["kind"].map(KIND_CODES).to_numpy(np.int64)
    rows = frame.groupby("user_id", sort=False).indices
    cases = []
    for place in places:
        own = rows[users[place]]
        before = own[(own < place) & (at[own] < at[place])]
        if not len(before):
            continue
        last = before[-history_length:]
        history = History(items[last].tolist(), codes[last].tolist(), at[last].tolist(), [None] * len(last))
        seen = frozenset(items[before].tolist())
        cases.append(EvaluationCase(str(users[place]), history, [str(items[place])], int(at[place]), seen))
    return cases


def with_reasons(drift: Drift, limits: DriftLimits) -> Drift:
    """A copy with its `reasons` set."""
    if drift.events < limits.least:
        return msgspec.structs.replace(drift, reasons=[])
    reasons = [name for name, value in sorted(drift.index.items()) if value > limits.index]
    if drift.hit_rate is not None and drift.held_out_hit_rate is not None and _fell(drift, limits.hit_drop):
        reasons.append("hit-rate")
    return msgspec.structs.replace(drift, reasons=reasons)


def _fell(drift: Drift, share: float) -> bool:
    """Whether the hit rate fell by more than `share` in relative terms, and by more than two standard errors."""
    now, then = drift.hit_rate or 0.0, drift.held_out_hit_rate or 0.0
    error = float(np.sqrt(max(now * (1 - now), 1e-6) / max(1, drift.hit_rate_cases)))
    return now < (1 - share) * then and now + 2 * error < then


def _head(values: Objects) -> set[str]:
    counts = pd.Series(values).value_counts()
    return {str(name) for name in counts.index[:HEAD]}


def _counted(values: Objects, head: set[str] | None) -> BinCounts:
    counts = pd.Series(values).value_counts()
    if head is None:
        return {str(name): int(count) for name, count in counts.items()}
    head_counts = {str(name): int(count) for name, count in counts.items() if str(name) in head}
    return {**head_counts, OTHER: int(counts.sum()) - sum(head_counts.values())}
