"""The report of cold users: every member and blend by number of known events, and the strongest of them."""

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from models.arrays import Float64
from models.evaluation.bootstrap import Comparison, intervals, ratio_text
from models.evaluation.cold_values import METRICS, PRIMARY, UserValues
from models.evaluation.report_page import ReportPage, ReportTable, canvas, number, styles, svg

NEXT: Final = "next ndcg@10"
STRONGEST: Final = "A0"
"""The name of the maximum of the best single recommender and the best blend."""
TITLES: Final = {
    PRIMARY: "NDCG@10, mean over the next five events",
    NEXT: "NDCG@10, the next event",
    "same ndcg@10": "NDCG@10, the sixth event (the same target for every k)",
    "hr@10": "HR@10, mean over the next five events",
    "mrr": "MRR, mean over the next five events",
    "recall@20": "Recall@20 over the next five events",
}


class ColdArm(msgspec.Struct):
    """A member or blend. `metrics`, `intervals`: by metric, a value for each k; `warm` is NDCG@10 of warm users."""

    arm: str
    metrics: dict[str, list[float]]
    intervals: dict[str, list[tuple[float, float]]]
    coverage: list[float]
    tail_share: list[float]
    warm: float
    warm_interval: tuple[float, float]


class SeenResults(msgspec.Struct):
    """Results where items of the history are masked, or kept. By k: the arm of A0 and of the next event alone, the best
    single recommender, and A0's ratio to it. `shares`: the blend's shares of its members at each k, of scaled
    probabilities."""

    seen: str
    arms: list[ColdArm]
    strongest: list[str]
    strongest_next: list[str]
    best_single: list[str]
    to_best_single: list[Comparison]
    shares: dict[str, list[float]]


class ColdUsersReport(msgspec.Struct):
    """An evaluation of cold users: data, folds, and the results of each way to treat seen items."""

    source: str
    events: int
    users: int
    items: int
    cold_users: int
    warm_users: int
    folds: int
    seed: int
    ks: list[int]
    results: list[SeenResults]
    notes: list[str] = []
    created_at: int = 0


def seen_results(
    seen: str,
    values: UserValues,
    warm: Float64,
    shares: dict[str, list[float]],
    *,
    singles: Sequence[str],
    items: int,
    seed: int,
) -> SeenResults:
    """The results from users' values; `warm` float64 [users, arms] is NDCG@10 of warm users' last events."""
    ks, rng = values.ks, np.random.default_rng(seed)
    spread = {metric: values.intervals(rng, metric) for metric in (PRIMARY, NEXT)}
    warm_spread = intervals({arm: warm[:, n] for n, arm in enumerate(values.arms)}, rng) if len(warm) else {}
    tail = np.array([[_mean(values.tail[:, k, n]) for k in range(len(ks))] for n in range(len(values.arms))])
    arms = [
        ColdArm(
            arm,
            {metric: [values.mean(arm, k, metric) for k in ks] for metric in METRICS},
            {metric: [spread[metric][arm, k] for k in ks] for metric in spread},
            [values.coverage(arm, k, items) for k in ks],
            tail[place].tolist(),
            _mean(warm[:, place]),
            warm_spread.get(arm, (float("nan"), float("nan"))),
        )
        for place, arm in enumerate(values.arms)
    ]
    strongest = {k: values.best(values.arms, k) for k in ks}
    single = {k: values.best(singles, k) for k in ks}
    compared = values.compare(strongest, single, rng)
    return SeenResults(
        seen,
        arms,
        list(strongest.values()),
        [values.best(values.arms, k, NEXT) for k in ks],
        list(single.values()),
        [compared[k] for k in ks],
        shares,
    )


def text_table(report: ColdUsersReport) -> str:
    """The report as a text table: NDCG@10 by k, and A0 with its interval."""
    lines = [
        f"{report.cold_users:,} cold users in {report.folds} folds, {report.warm_users:,} warm users; {TITLES[PRIMARY]}"
    ]
    for results in report.results:
        lines += ["", _seen_sentence(results.seen)]
        lines.append(f"{'':<18}" + "".join(f"{f'k={k}':>9}" for k in report.ks) + f"{'warm':>9}")
        for arm in results.arms:
            lines.append(f"{arm.arm:<18}" + "".join(f"{number(v):>9}" for v in (*arm.metrics[PRIMARY], arm.warm)))
        lines.append("")
        for place, (k, name) in enumerate(zip(report.ks, results.strongest, strict=True)):
            arm = _arm(results, name)
            low, high = arm.intervals[PRIMARY][place]
            ratio = results.to_best_single[place]
            lines.append(
                f"{STRONGEST} at k={k}: {name} {number(arm.metrics[PRIMARY][place])} [{low:.4f}, {high:.4f}], "
                f"{ratio_text(ratio)} times {results.best_single[place]}"
            )
    return "\n".join(lines)


def page(report: ColdUsersReport) -> ReportPage:
    """The report as a page of sentences, a plot and tables."""
    size = f"{report.events:,} events, {report.users:,} users, {report.items:,} items."
    how = (
        f"{report.cold_users:,} users with six or more events are cold, each in one of {report.folds} folds; seed "
        f"{report.seed}, full catalogue. {STRONGEST} is the maximum of the best single recommender and the best blend."
    )
    tables = [table for results in report.results for table in _tables(report, results)]
    plots = [_plot(report, results) for results in report.results]
    return ReportPage(f"Cold users of {report.source}", [f"{size} {how}", *report.notes], plots, tables)


def _tables(report: ColdUsersReport, results: SeenResults) -> list[ReportTable]:
    head = ["", *(f"k = {k}" for k in report.ks)]
    label = _seen_sentence(results.seen)
    tables = [
        ReportTable(
            f"{title}. {label}",
            [*head, "warm"] if metric == PRIMARY else head,
            [
                [arm.arm, *_cells(arm, metric), *([_cell(arm.warm, arm.warm_interval)] if metric == PRIMARY else [])]
                for arm in results.arms
            ],
        )
        for metric, title in TITLES.items()
    ]
    rows = [
        [STRONGEST, *results.strongest],
        ["best single recommender", *results.best_single],
        ["ratio", *map(ratio_text, results.to_best_single)],
        ["p, corrected over k (Holm)", *(number(ratio.holm) for ratio in results.to_best_single)],
        [f"{STRONGEST} of the next event", *results.strongest_next],
    ]
    tables.insert(0, ReportTable(f"The strongest. {label}", head, rows))
    for title, name in (
        ("Coverage of the first ten", "coverage"),
        ("Share of the tail in the first ten", "tail_share"),
    ):
        tables.append(
            ReportTable(
                f"{title}. {label}", head, [[arm.arm, *map(number, getattr(arm, name))] for arm in results.arms]
            )
        )
    shares = [[member, *map(number, row)] for member, row in results.shares.items()]
    return [*tables, ReportTable(f"Shares of the blend, over scaled probabilities. {label}", head, shares)]


def _plot(report: ColdUsersReport, results: SeenResults) -> str:
    figure, axes = canvas(3.8, f"{TITLES[PRIMARY]}. {_seen_sentence(results.seen)}")
    for arm, style in zip(results.arms, styles(), strict=False):
        axes.plot([str(k) for k in report.ks], arm.metrics[PRIMARY], label=arm.arm, **style)
    axes.set_xlabel("events known")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)


def _seen_sentence(seen: str) -> str:
    return "Items of the history can be recommended again" if seen == "keep" else "Items of the history are masked"


def _cells(arm: ColdArm, metric: str) -> list[str]:
    if metric not in arm.intervals:
        return [number(value) for value in arm.metrics[metric]]
    return [_cell(value, each) for value, each in zip(arm.metrics[metric], arm.intervals[metric], strict=True)]


def _cell(value: float, interval: tuple[float, float]) -> str:
    return f"{number(value)} [{number(interval[0])}, {number(interval[1])}]"


def _arm(results: SeenResults, name: str) -> ColdArm:
    return next(arm for arm in results.arms if arm.arm == name)


def _mean(column: Float64) -> float:
    return float(np.nanmean(column)) if len(column) and not np.isnan(column).all() else float("nan")
