"""The gate: what a candidate has to show before it serves. Arrays in, a verdict out; nothing here reads or writes.

Each check has a stable name, a value and a bound. Sanity checks are of the release as it would serve; the contest is
between two recommenders that were asked the same held-out cases and had seen none of them.
"""

from typing import Final

import msgspec
import numpy as np
from scipy import sparse

from models.arrays import Bool, Float64, Int64

K: Final = 10
"""Answers are judged by so many items."""
RESAMPLES: Final = 2_000
BLOCK: Final = 4_096
STRUCTURE: Final = 1.2
"""Where what users took next is nearer to their histories than chance by less than this, nearness says nothing."""
FAVOURITE: Final = 0.05
"""An item that fewer users took next is no favourite, whatever its rank."""
CHECKS: Final = ("not-finite", "one-item", "strangers", "slow", "not-better", "coverage")


class GateThresholds(msgspec.Struct, frozen=True):
    """What the checks ask for.

    A candidate's mean NDCG@10 has to be above the serving release's times 1 + `margin` with `confidence` (one-sided);
    where the serving release's data are `stale`, above it times 1 - `tolerance`. `coverage`: at least this share of
    the distinct items that the serving release shows. `latency_ms`: the most for the 95th percentile of a look-up.
    `one_item`: no item in more than this share of the answers. `known`: at least this share of the nearness to the
    history by which what users really took exceeds chance.
    """

    margin: float = 0.0
    confidence: float = 0.95
    tolerance: float = 0.03
    coverage: float = 0.5
    latency_ms: float = 25.0
    one_item: float = 0.95
    known: float = 0.1


class Answers(msgspec.Struct, frozen=True):
    """What a recommender said to the held-out cases.

    `ndcg` float64 [cases]: NDCG@10. `shown` int64 [cases, k]: item numbers, best first, -1 where there are fewer; both
    sides of a contest number items alike. `broken`: how many scores were not finite.
    """

    ndcg: Float64
    shown: Int64
    broken: int = 0


class Cases(msgspec.Struct, frozen=True):
    """The held-out cases in numbers: `histories` int64 [cases, events] and `targets` int64 [cases, targets], -1 where
    there are fewer; `evidence` float32 [users, items]: 1 where a user took an item before the cut; `items`: how many.
    """

    histories: Int64
    targets: Int64
    evidence: sparse.csr_matrix
    items: int


class Check(msgspec.Struct, frozen=True):
    """One check: `name` is stable, safe as a metric label; `detail` says what the value is."""

    name: str
    passed: bool
    value: float
    bound: float
    detail: str = ""


class GateReport(msgspec.Struct, frozen=True):
    """What the gate found. `opponent` is the serving release, None where there was none or the contest was waived;
    `how` says in what form it was asked, or why there was no contest; `users` is the number of held-out cases."""

    checks: list[Check]
    opponent: str | None = None
    how: str = ""
    users: int = 0

    @property
    def passed(self) -> bool:
        return all(one.passed for one in self.checks)

    @property
    def reasons(self) -> list[str]:
        """The names of the checks that failed."""
        return [one.name for one in self.checks if not one.passed]

    @property
    def detail(self) -> str:
        """What failed, with values and bounds."""
        failed = [one for one in self.checks if not one.passed]
        return "; ".join(f"{one.name}: {one.detail} {one.value:.4g}, bound {one.bound:.4g}" for one in failed)


def sane(
    served: Answers, cases: Cases, latency_ms: float, bounds: GateThresholds, *, personal: bool = True
) -> list[Check]:
    """The checks that need no opponent, of the release as it would serve.

    A recommender that gives everyone the same list on purpose is not `personal`: two checks do not ask it.
    """
    finite = Check("not-finite", served.broken == 0, float(served.broken), 0.0, "scores that are not finite")
    slow = Check("slow", latency_ms <= bounds.latency_ms, latency_ms, bounds.latency_ms, "p95 of a look-up in ms")
    if not personal or not len(served.shown):
        return [finite, slow]
    return [finite, one_item(served.shown, cases, bounds.one_item), strangers(served.shown, cases, bounds.known), slow]


def contest(
    ours: Answers, theirs: Answers, bounds: GateThresholds, rng: np.random.Generator, *, stale: bool = False
) -> list[Check]:
    """The checks against the serving release, on the same cases."""
    return [better(ours.ndcg, theirs.ndcg, bounds, rng, stale=stale), coverage(ours.shown, theirs.shown, bounds)]


def better(
    ours: Float64, theirs: Float64, bounds: GateThresholds, rng: np.random.Generator, *, stale: bool = False
) -> Check:
    """The lower bound of the relative gain in mean NDCG@10, by a paired Poisson bootstrap over users.

    It has to be above `margin`, so an equal candidate fails; above `-tolerance` where the serving release is stale.
    """
    bound = -bounds.tolerance if stale else bounds.margin
    lower = gain(ours, theirs, bounds.confidence, rng)[1]
    detail = f"NDCG@10 {_mean(ours):.4f} against {_mean(theirs):.4f}; lower bound of the relative gain"
    return Check("not-better", lower > bound, lower, bound, detail)


def gain(ours: Float64, theirs: Float64, confidence: float, rng: np.random.Generator) -> tuple[float, float, float]:
    """The relative gain of mean(ours) over mean(theirs), and its one-sided lower and upper bounds at `confidence`."""
    if not len(ours):
        return 0.0, 0.0, 0.0
    pair = np.stack([ours, theirs], axis=1)
    sums = np.zeros((RESAMPLES, 2))
    for start in range(0, len(pair), BLOCK):
        part = pair[start : start + BLOCK]
        sums += rng.poisson(1.0, (RESAMPLES, len(part))) @ part
    gains = _relative(sums[:, 0], sums[:, 1])
    low, high = np.quantile(gains, [1 - confidence, confidence])
    return float(_relative(ours.sum(), theirs.sum())), float(low), float(high)


def coverage(ours: Int64, theirs: Int64, bounds: GateThresholds) -> Check:
    """The distinct items that the candidate shows, as a share of those that the serving release shows."""
    share = _distinct(ours) / max(1, _distinct(theirs))
    detail = "items shown, as a share of the serving release's"
    return Check("coverage", share >= bounds.coverage, share, bounds.coverage, detail)


def one_item(shown: Int64, cases: Cases, most: float) -> Check:
    """The largest share of answers that hold one item.

    More is allowed of an item that half as many really took, and in a small catalogue: with less than 4 k items it says
    nothing, for users who have seen everything are given much the same. Everyone may be shown a favourite: one of the k
    items that most users really took next, and at least a twentieth of them (milk, in a grocery).
    """
    answers = max(1, len(shown))
    held = np.bincount(shown[shown >= 0], minlength=cases.items) / answers
    took = _took(cases.targets, cases.items) / max(1, len(cases.targets))
    allowed = np.minimum(1.0, np.maximum(np.maximum(most, 2 * took), 4 * shown.shape[1] / max(1, cases.items)))
    favourite = np.sort(took)[-min(shown.shape[1], len(took)) :].min(initial=1.0)
    allowed[took >= max(favourite, FAVOURITE)] = 1.0
    worst = int(np.argmax(held - allowed))
    detail = "share of the answers that hold the same item"
    return Check("one-item", bool(held[worst] <= allowed[worst]), float(held[worst]), float(allowed[worst]), detail)


def strangers(shown: Int64, cases: Cases, share: float) -> Check:
    """Whether known users get what goes with their histories.

    The measure is `nearness` of the answers. What it has to reach hangs on what users really took next: `share` of
    that one's excess over 1. Where even that is not near (below 1.2), the check says nothing and passes.
    """
    known = (cases.histories >= 0).any(axis=1)
    truth = nearness(cases.targets[known], cases.histories[known], cases.evidence)
    ours = nearness(shown[known], cases.histories[known], cases.evidence)
    bound = 1 + share * (truth - 1) if truth >= STRUCTURE else 0.0
    detail = f"nearness to the history over chance (what users took next: {truth:.3g})"
    return Check("strangers", ours >= bound, ours, bound, detail)


def nearness(lists: Int64, histories: Int64, evidence: sparse.csr_matrix) -> float:
    """Mean cosine between a list's items and its own history's, over that between it and other users' histories.

    1 is chance: the same list for everyone, or lists that were shuffled among users. Two items are as near as the
    cosine of the sets of users who took them; an item is not compared with itself. Both means are sums over pairs of
    items, so they are products of matrices: no pair of items is looked at singly, and nothing is drawn at random.
    """
    n, items = len(lists), evidence.shape[1]
    if n < 2:
        return 1.0
    counts = np.sqrt(np.asarray(evidence.sum(axis=0)).ravel())
    scaled = evidence @ sparse.diags(np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0))
    taken = counts > 0
    given, had = (_shares(one, items, taken) for one in (lists, histories))
    shared = float(given.multiply(had).sum())
    through_given, through_had = (scaled @ given.T).tocsc(), (scaled @ had.T).tocsc()
    own = float(through_given.multiply(through_had).sum()) - shared
    sums = [np.asarray(one.sum(axis=1)).ravel() for one in (through_given, through_had)]
    totals = [np.asarray(one.sum(axis=0)).ravel() for one in (given, had)]
    every = float(sums[0] @ sums[1]) - float(totals[0] @ totals[1])
    others = (every - own) / (n * (n - 1))
    return own / n / others if others > 1e-12 else 1.0


def _shares(lists: Int64, items: int, counted: Bool) -> sparse.csr_matrix:
    """float [lists, items]: each list's distinct known items, together 1."""
    rows, columns = np.nonzero(lists >= 0)
    numbers = lists[rows, columns]
    kept = counted[numbers]
    table = sparse.csr_matrix((np.ones(int(kept.sum())), (rows[kept], numbers[kept])), (len(lists), items))
    table.data[:] = 1.0
    lengths = np.maximum(np.asarray(table.sum(axis=1)).ravel(), 1.0)
    return sparse.csr_matrix(sparse.diags(1 / lengths) @ table)


def _took(targets: Int64, items: int) -> Float64:
    """float64 [items]: in how many cases an item is wanted."""
    return np.bincount(targets[targets >= 0], minlength=items).astype(np.float64)


def _distinct(shown: Int64) -> int:
    return len(np.unique(shown[shown >= 0]))


def _relative(ours: Float64, theirs: Float64) -> Float64:
    """ours / theirs - 1; against nothing at all, any gain is a gain of 1."""
    found: Float64 = np.where(theirs > 0, ours / np.maximum(theirs, 1e-12) - 1, np.where(ours > 0, 1.0, 0.0))
    return found


def _mean(values: Float64) -> float:
    return float(values.mean()) if len(values) else 0.0
