"""The gate: what a candidate has to show before it serves. Arrays in, a report out; nothing here reads or writes files.

Each check has a stable name, a value and a bound. Sanity checks look at the release as it would serve. Comparison
checks put two recommenders before the same held-out cases, of which both have seen nothing.
"""

from typing import Final

import msgspec
import numpy as np
from scipy import sparse

from models.arrays import Bool, Float64, Int64

K: Final = 10
"""Length of the lists that are checked."""
RESAMPLES: Final = 2_000
BLOCK: Final = 4_096
LEAST_TRUE_FIT: Final = 1.2
"""If real next choices fit the histories less than this, relative to chance, the personalization check passes."""
POPULAR_TARGET: Final = 0.05
"""A top-ten item is exempt from the dominant-item check if at least this share of users chose it next."""
CHECKS: Final = ("not-finite", "dominant-item", "not-personalized", "slow", "not-better", "coverage")


class GateThresholds(msgspec.Struct, frozen=True):
    """What the checks require.

    Attributes:
        margin: a candidate's mean NDCG@10 has to exceed the champion's times 1 + `margin`...
        confidence: ...with this one-sided confidence.
        tolerance: if the champion's data are stale, it only has to exceed the champion's times 1 - `tolerance`.
        coverage: at least this share of the distinct items that the champion shows.
        latency_ms: upper bound of the 95th percentile of a look-up.
        dominant_item: no item in more than this share of the lists.
        personalization: at least this share of the fit to histories (beyond chance) that real next choices show.
    """

    margin: float = 0.0
    confidence: float = 0.95
    tolerance: float = 0.03
    coverage: float = 0.5
    latency_ms: float = 25.0
    dominant_item: float = 0.95
    personalization: float = 0.1


class HoldoutAnswers(msgspec.Struct, frozen=True):
    """What a recommender returned for the held-out cases.

    Attributes:
        ndcg: float64 [cases], NDCG@10.
        shown: int64 [cases, k], item numbers, best first, -1 where there are fewer; both sides of a comparison number
            items alike.
        broken: number of scores that were not finite.
    """

    ndcg: Float64
    shown: Int64
    broken: int = 0


class HoldoutCases(msgspec.Struct, frozen=True):
    """The held-out cases, in item numbers.

    Attributes:
        histories: int64 [cases, events], -1 where there are fewer.
        targets: int64 [cases, targets], what users really chose next, -1 where there are fewer.
        evidence: [users, items], 1 where a user chose an item before the holdout.
        items: number of items.
    """

    histories: Int64
    targets: Int64
    evidence: sparse.csr_matrix
    items: int


class Check(msgspec.Struct, frozen=True):
    """One check: `name` is stable and safe as a metric label; `detail` is a sentence with the value and the bound."""

    name: str
    passed: bool
    value: float
    bound: float
    detail: str = ""


class GateReport(msgspec.Struct, frozen=True):
    """The checks of one candidate.

    Attributes:
        champion: the serving release it was compared with; None if there was no comparison.
        comparison: how the champion was evaluated, or why there was no comparison.
        users: number of held-out cases.
    """

    checks: list[Check]
    champion: str | None = None
    comparison: str = ""
    users: int = 0

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """The names of the checks that failed."""
        return [check.name for check in self.checks if not check.passed]

    @property
    def detail(self) -> str:
        """What failed, with values and bounds."""
        return "; ".join(f"{check.name}: {check.detail}" for check in self.checks if not check.passed)


def sanity_checks(
    answers: HoldoutAnswers,
    cases: HoldoutCases,
    latency_ms: float,
    thresholds: GateThresholds,
    *,
    personalized: bool = True,
) -> list[Check]:
    """The checks that need no champion, of the release as it would serve.

    A recommender that shows everyone the same list by design is not `personalized`, and skips two of the checks.
    """
    finite = Check("not-finite", answers.broken == 0, float(answers.broken), 0.0, f"{answers.broken} scores not finite")
    latency = f"the p95 latency of a look-up is {latency_ms:.1f} ms (limit {thresholds.latency_ms:g} ms)"
    slow = Check("slow", latency_ms <= thresholds.latency_ms, latency_ms, thresholds.latency_ms, latency)
    if not personalized or not len(answers.shown):
        return [finite, slow]
    return [
        finite,
        dominant_item_check(answers.shown, cases, thresholds.dominant_item),
        personalization_check(answers.shown, cases, thresholds.personalization),
        slow,
    ]


def comparison_checks(
    challenger: HoldoutAnswers,
    champion: HoldoutAnswers,
    thresholds: GateThresholds,
    rng: np.random.Generator,
    *,
    stale: bool = False,
) -> list[Check]:
    """The checks against the serving release, on the same cases; `stale`: its data are old enough to be replaced."""
    return [
        improvement_check(challenger.ndcg, champion.ndcg, thresholds, rng, stale=stale),
        coverage_check(challenger.shown, champion.shown, thresholds),
    ]


def improvement_check(
    challenger: Float64, champion: Float64, thresholds: GateThresholds, rng: np.random.Generator, *, stale: bool = False
) -> Check:
    """The lower bound of the relative gain in mean NDCG@10, by a paired Poisson bootstrap over users.

    It has to be above `margin`, so an equal candidate fails; above `-tolerance` if the champion is stale.

    Args:
        challenger: float64 [cases], NDCG@10; `champion` likewise.
    """
    bound = -thresholds.tolerance if stale else thresholds.margin
    lower = relative_gain(challenger, champion, thresholds.confidence, rng)[1]
    detail = (
        f"NDCG@10 {_mean(challenger):.4f} against {_mean(champion):.4f}; "
        f"the lower bound of the relative gain is {lower:+.4f} (has to be above {bound:g})"
    )
    return Check("not-better", lower > bound, lower, bound, detail)


def relative_gain(
    challenger: Float64, champion: Float64, confidence: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """The relative gain in the mean of paired values, with one-sided lower and upper bounds at `confidence`."""
    if not len(challenger):
        return 0.0, 0.0, 0.0
    pair = np.stack([challenger, champion], axis=1)
    sums = np.zeros((RESAMPLES, 2))
    for start in range(0, len(pair), BLOCK):
        part = pair[start : start + BLOCK]
        sums += rng.poisson(1.0, (RESAMPLES, len(part))) @ part
    gains = _relative(sums[:, 0], sums[:, 1])
    low, high = np.quantile(gains, [1 - confidence, confidence])
    return float(_relative(challenger.sum(), champion.sum())), float(low), float(high)


def coverage_check(challenger: Int64, champion: Int64, thresholds: GateThresholds) -> Check:
    """The distinct items that the challenger shows, as a share of those that the champion shows."""
    share = _distinct(challenger) / max(1, _distinct(champion))
    detail = f"it shows {share:.1%} as many different items as the champion (at least {thresholds.coverage:.1%})"
    return Check("coverage", share >= thresholds.coverage, share, thresholds.coverage, detail)


def dominant_item_check(shown: Int64, cases: HoldoutCases, limit: float) -> Check:
    """The largest share of lists that hold the same item.

    The limit rises to twice the item's real share of next choices, and to 1 in a catalogue of less than 4 k items:
    users who have seen nearly everything get much the same lists. Exempt are the k items that most users chose next, if
    at least a twentieth of the users did (milk, in a grocery).
    """
    lists = max(1, len(shown))
    shares = np.bincount(shown[shown >= 0], minlength=cases.items) / lists
    chosen = _target_counts(cases.targets, cases.items) / max(1, len(cases.targets))
    limits = np.minimum(1.0, np.maximum(np.maximum(limit, 2 * chosen), 4 * shown.shape[1] / max(1, cases.items)))
    top_k = np.sort(chosen)[-min(shown.shape[1], len(chosen)) :].min(initial=1.0)
    limits[chosen >= max(top_k, POPULAR_TARGET)] = 1.0
    worst = int(np.argmax(shares - limits))
    share, allowed = float(shares[worst]), float(limits[worst])
    detail = f"the same item is in {share:.1%} of the lists (limit {allowed:.1%})"
    return Check("dominant-item", share <= allowed, share, allowed, detail)


def personalization_check(shown: Int64, cases: HoldoutCases, share: float) -> Check:
    """Whether the lists of users with a history match that history.

    The measure is `history_fit` of the lists. The bound depends on the fit of what users really chose next: `share` of
    its excess over 1. If even that fits poorly (below 1.2), the check passes.
    """
    known = (cases.histories >= 0).any(axis=1)
    true_fit = history_fit(cases.targets[known], cases.histories[known], cases.evidence)
    fit = history_fit(shown[known], cases.histories[known], cases.evidence)
    bound = 1 + share * (true_fit - 1) if true_fit >= LEAST_TRUE_FIT else 0.0
    detail = f"fit to histories, 1 being chance: {fit:.3g}; of real next choices: {true_fit:.3g}"
    if fit < bound:
        detail = (
            "recommendations are barely better than chance at matching users' histories "
            f"(below {share:.0%} of the fit that real next choices show; {detail})"
        )
    return Check("not-personalized", fit >= bound, fit, bound, detail)


def history_fit(lists: Int64, histories: Int64, evidence: sparse.csr_matrix) -> float:
    """Mean similarity of lists to their own histories, divided by that to other users' histories.

    1 is chance: the same list for everyone, or lists shuffled among users. The similarity of two items is the cosine of
    the sets of users who chose them; an item is not compared with itself. Both means are sums over pairs of items, so
    they are matrix products: no loop over pairs, and no sampling.

    Args:
        lists: int64 [n, k], item numbers, -1 where there are fewer.
        histories: int64 [n, events], likewise.
        evidence: [users, items], 1 where a user chose an item.
    """
    n, items = len(lists), evidence.shape[1]
    if n < 2:
        return 1.0
    counts = np.sqrt(np.asarray(evidence.sum(axis=0)).ravel())
    scaled = evidence @ sparse.diags(np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0))
    shown, past = (_shares(rows, items, counts > 0) for rows in (lists, histories))
    same_item = float(shown.multiply(past).sum())
    users_of_shown, users_of_past = (scaled @ shown.T).tocsc(), (scaled @ past.T).tocsc()
    own = float(users_of_shown.multiply(users_of_past).sum()) - same_item
    by_user = [np.asarray(table.sum(axis=1)).ravel() for table in (users_of_shown, users_of_past)]
    by_item = [np.asarray(table.sum(axis=0)).ravel() for table in (shown, past)]
    every = float(by_user[0] @ by_user[1]) - float(by_item[0] @ by_item[1])
    others = (every - own) / (n * (n - 1))
    return own / n / others if others > 1e-12 else 1.0


def _shares(lists: Int64, items: int, counted: Bool) -> sparse.csr_matrix:
    """float [lists, items]: each row spreads 1 evenly over the list's distinct known items."""
    rows, columns = np.nonzero(lists >= 0)
    numbers = lists[rows, columns]
    kept = counted[numbers]
    table = sparse.csr_matrix((np.ones(int(kept.sum())), (rows[kept], numbers[kept])), (len(lists), items))
    table.data[:] = 1.0
    lengths = np.maximum(np.asarray(table.sum(axis=1)).ravel(), 1.0)
    return sparse.csr_matrix(sparse.diags(1 / lengths) @ table)


def _target_counts(targets: Int64, items: int) -> Float64:
    """float64 [items]: the number of cases in which an item is a target."""
    return np.bincount(targets[targets >= 0], minlength=items).astype(np.float64)


def _distinct(shown: Int64) -> int:
    return len(np.unique(shown[shown >= 0]))


def _relative(challenger: Float64, champion: Float64) -> Float64:
    """challenger / champion - 1; where the champion has 0, any gain counts as 1."""
    gains: Float64 = np.where(
        champion > 0, challenger / np.maximum(champion, 1e-12) - 1, np.where(challenger > 0, 1.0, 0.0)
    )
    return gains


def _mean(values: Float64) -> float:
    return float(values.mean()) if len(values) else 0.0
