"""Drift: how far the newest events are from those that the serving release was trained on, and how it does on them.

Every feature is of single events, so a short stretch of events can be compared with a long one: what kind and category
an event has, whether its item is one of the most popular, how many events its user had before it, and how long ago the
last of them was. Frames and arrays in, numbers out.
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
"""The newest share of the events is what a release is compared with: older ones were another time."""
HEAD: Final = 20
"""So many of the most popular items, and so many categories, are told apart."""
LONGEST: Final = 64
OTHER: Final = "other"
FEATURES: Final = ("kind", "category", "item", "history", "gap")
K: Final = 10
ASKED: Final = 500
"""So many events are enough for a hit rate within four points."""
HIT_RATE: Final = f"next_hr@{K}"
"""The metric's name on a release's card: how often the next item was among the best 10, over its held-out window."""

BinCounts = dict[str, int]


class DriftReference(msgspec.Struct, frozen=True):
    """What the newest events of a release's training data looked like: counts by feature and bin.

    `until_at`: the time of the newest of them, epoch ms.
    """

    until_at: int
    events: int
    features: dict[str, BinCounts]


class DriftLimits(msgspec.Struct, frozen=True):
    """When drift is seen: a stability index above `index` in any feature, or a hit rate that fell by more than
    `hit_drop` of itself (and surely fell); not before there are `least` new events."""

    index: float = 0.25
    hit_drop: float = 0.2
    least: int = 1_000


class Drift(msgspec.Struct, frozen=True):
    """How the newest events differ: `index` by feature; `hit_rate` of the serving release on `asked` of them.

    `held_out_hit_rate` is what it was on the release's held-out window (None: not known). `reasons` are the features
    that passed their limit, and `hit-rate`.
    """

    events: int
    index: dict[str, float]
    hit_rate: float | None = None
    held_out_hit_rate: float | None = None
    asked: int = 0
    reasons: list[str] = []


def reference_of(frame: pd.DataFrame, share: float = SHARE) -> DriftReference:
    """The newest `share` of interactions [user_id, item_id, kind, at, category] in time order, in counts.

    Histories and gaps are counted over all of `frame`.
    """
    start = len(frame) - max(1, round(share * len(frame)))
    newest = slice(max(0, start), None)
    found = bin_events(frame)
    heads = {name: _head(found[name][newest]) for name in ("category", "item")}
    counts = {name: _counted(found[name][newest], heads.get(name)) for name in FEATURES}
    return DriftReference(int(frame["at"].max()) if len(frame) else 0, len(frame) - max(0, start), counts)


def bin_events(frame: pd.DataFrame) -> dict[str, Objects]:
    """For each feature the bin of each event, object [events].

    `history`: events of the user before it, in powers of two up to 64; `gap`: seconds since the one before, in powers
    of four; `first` where there is none.
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
        "history": np.array([f"{2**one - 1}+" for one in history], object),
        "gap": np.array(["first" if one < 0 else f"{4**one - 1}s+" for one in gap], object),
    }


def compare(frame: pd.DataFrame, reference: DriftReference) -> tuple[int, dict[str, float]]:
    """How many events came after the reference, and each feature's stability index between the two."""
    newest = (frame["at"] > reference.until_at).to_numpy()
    if not newest.any():
        return 0, {}
    found = bin_events(frame)
    index = {}
    for name, counts in reference.features.items():
        head = set(counts) - {OTHER} if name in {"category", "item"} else None
        index[name] = stability_index(counts, _counted(found[name][newest], head))
    return int(newest.sum()), index


def stability_index(then: BinCounts, now: BinCounts) -> float:
    """The population stability index: the sum over bins of (q - p) ln(q / p), p and q the shares then and now.

    Half an event is added to every bin of both, so that an empty bin is finite; what chance alone is expected to give,
    (bins - 1) (1 / n + 1 / m) for n and m events (Yurdakul, 2018), is taken off. 0 at least.
    """
    bins = sorted(set(then) | set(now))
    n, m = sum(then.values()), sum(now.values())
    if not n or not m:
        return 0.0
    p = np.array([then.get(one, 0) + 0.5 for one in bins])
    q = np.array([now.get(one, 0) + 0.5 for one in bins])
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
    most: int = ASKED,
    weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS,
    history_length: int = DEFAULT_HISTORY_LENGTH,
) -> list[EvaluationCase]:
    """Cases that move with time: up to `most` events from `since_at` on (epoch ms), each with its user's events before.

    Only events that speak for their item (by `weights`, of event codes), of users with something before them, are
    drawn; what has the event's own time is not before it.
    """
    speaks = np.array(weights)[frame["kind"].map(KIND_CODES).to_numpy(np.int64)] > 0
    at = frame["at"].to_numpy(np.int64)
    places = np.flatnonzero(speaks & (at >= since_at))
    if len(places) > most:
        places = np.sort(rng.choice(places, most, replace=False))
    users, items = frame["user_id"].to_numpy(object), frame["item_id"].to_numpy(object)
    codes = frame["kind"].map(KIND_CODES).to_numpy(np.int64)
    rows = frame.groupby("user_id", sort=False).indices
    found = []
    for place in places:
        own = rows[users[place]]
        before = own[(own < place) & (at[own] < at[place])]
        if not len(before):
            continue
        last = before[-history_length:]
        history = History(items[last].tolist(), codes[last].tolist(), at[last].tolist(), [None] * len(last))
        seen = frozenset(items[before].tolist())
        found.append(EvaluationCase(str(users[place]), history, [str(items[place])], int(at[place]), seen))
    return found


def with_reasons(drift: Drift, limits: DriftLimits) -> Drift:
    """The same with its `reasons`."""
    if drift.events < limits.least:
        return msgspec.structs.replace(drift, reasons=[])
    reasons = [name for name, value in sorted(drift.index.items()) if value > limits.index]
    if drift.hit_rate is not None and drift.held_out_hit_rate is not None and _fell(drift, limits.hit_drop):
        reasons.append("hit-rate")
    return msgspec.structs.replace(drift, reasons=reasons)


def _fell(drift: Drift, share: float) -> bool:
    """Whether the hit rate fell by more than `share` of itself, and by more than two standard errors of its own."""
    now, then = drift.hit_rate or 0.0, drift.held_out_hit_rate or 0.0
    error = float(np.sqrt(max(now * (1 - now), 1e-6) / max(1, drift.asked)))
    return now < (1 - share) * then and now + 2 * error < then


def _head(values: Objects) -> set[str]:
    counts = pd.Series(values).value_counts()
    return {str(name) for name in counts.index[:HEAD]}


def _counted(values: Objects, head: set[str] | None) -> BinCounts:
    counts = pd.Series(values).value_counts()
    if head is None:
        return {str(name): int(count) for name, count in counts.items()}
    found = {str(name): int(count) for name, count in counts.items() if str(name) in head}
    return {**found, OTHER: int(counts.sum()) - sum(found.values())}
