"""The report of the experiment with new items: the verdict on top, every arm, and the price as a curve."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from models.evaluation.bootstrap import Comparison, ratio_text
from models.evaluation.report_page import ReportPage, ReportTable, canvas, number, styles, svg
from models.experiments.new_items import (
    CurvePoint,
    NewItemsValues,
    NewItemsVerdict,
    at_loss,
    curve_of,
    judge_arms,
    prices,
    sentences_of,
    spread_of,
)
from models.experiments.new_items_arms import BORROWED, CONTROLS, HONEST, OPPONENT_BLEND
from models.experiments.report import missing_sentence

LOSSES: Final = (0.01, 0.02, 0.05)
"""Prices at which arms are compared in the full catalogue."""


class NewItemsReport(msgspec.Struct, kw_only=True):
    """The results on a data set. `arms`: metrics by name for each arm; `curves`: points by arm; `at_price`: each
    arm where known items lose so much (`LOSSES`); `prices`: what known items keep, by places of their own."""

    source: str
    events: int
    users: int
    items: int
    asked_users: int
    units: list[str]
    missing: list[str]
    verdict: list[str]
    verdicts: list[NewItemsVerdict]
    arms: dict[str, dict[str, float]]
    intervals: dict[str, tuple[float, float]]
    curves: dict[str, list[CurvePoint]]
    at_price: dict[str, list[CurvePoint]]
    prices: dict[int, Comparison]
    tuned: list[dict[str, Any]]
    settings: dict[str, Any] = {}
    notes: list[str] = []
    created_at: int = msgspec.field(default_factory=lambda: int(time.time() * 1000))


def new_items_report(values: NewItemsValues, seed: int, **facts: Any) -> NewItemsReport:
    """The report of all units; `facts` are further fields."""
    rng = np.random.default_rng(seed)
    verdicts = judge_arms(values, rng)
    slot_prices = prices(values, rng)
    best = max(verdicts, key=lambda verdict: verdict.value)
    shown = dict.fromkeys((best.arm, best.other, OPPONENT_BLEND, BORROWED))
    curves = {arm: curve_of(values.units, arm) for arm in values.arms}
    return NewItemsReport(
        verdict=sentences_of(verdicts, slot_prices),
        verdicts=verdicts,
        arms={arm: _metrics(values, arm) for arm in values.arms},
        intervals=spread_of(values, rng),
        curves={arm: curves[arm] for arm in shown},
        at_price={arm: [at_loss(points, loss) for loss in LOSSES] for arm, points in curves.items()},
        prices=slot_prices,
        tuned=[unit.facts["tuned"] for unit in values.units],
        asked_users=int(max(verdict.users for verdict in verdicts)),
        **facts,
    )


def page_of(report: NewItemsReport) -> ReportPage:
    """The report as a page."""
    size = (
        f"{report.events:,} events, {report.users:,} users, {report.items:,} items; {report.asked_users:,} users whose "
        f"target is hidden, in {len(report.units)} units of work (fold and seed)."
    )
    facts = [*report.verdict, missing_sentence(report.missing), size, *report.notes]
    settings = [(name, msgspec.json.encode(value).decode()) for name, value in report.settings.items()]
    plots = [_price_plot(report.curves), _arm_plot(report)]
    tables = [
        arm_table(report),
        verdict_table_of(report.verdicts),
        price_table(report),
        *(_curve_table(*pair) for pair in report.curves.items()),
    ]
    return ReportPage(f"New items on {report.source}", [fact for fact in facts if fact], plots, tables, settings)


def arm_table(report: NewItemsReport) -> ReportTable:
    """Every arm, best first."""
    head = [
        "arm",
        "kind",
        "NDCG@10 among new items",
        "HR@10",
        "coverage",
        "full catalogue: NDCG@10",
        "known items keep",
    ]
    head += ["1 of 10 places: NDCG@10", "HR", "2 of 10 places: NDCG@10", "HR"]
    rows = []
    for arm, own in sorted(report.arms.items(), key=lambda pair: -pair[1]["ndcg@10"]):
        low, high = report.intervals[arm]
        cells = [f"{number(own['ndcg@10'])} [{number(low)}, {number(high)}]", number(own["hr@10"])]
        names = (
            "coverage",
            "full ndcg@10",
            "known items",
            "1 slot ndcg@10",
            "1 slot hr",
            "2 slots ndcg@10",
            "2 slots hr",
        )
        rows.append([arm, kind_of(arm), *cells, *(number(own[name]) for name in names)])
    return ReportTable("Every arm", head, rows)


def verdict_table_of(verdicts: Sequence[NewItemsVerdict]) -> ReportTable:
    """Every verdict, failures first."""
    head = ["arm", "passes", "ratio to the best other", "p (Holm)", "the other", f"ratio to {OPPONENT_BLEND}"]
    head += ["1 place", "2 places", "why not"]
    rows = [
        [
            verdict.arm,
            "yes" if verdict.passed else "no",
            ratio_text(verdict.ratio),
            number(verdict.ratio.holm),
            verdict.other,
            *map(ratio_text, (verdict.to_blend, *verdict.slots.values())),
            ", ".join(verdict.reasons),
        ]
        for verdict in sorted(verdicts, key=lambda verdict: verdict.passed)
    ]
    return ReportTable("Verdicts: NDCG@10 of new targets", head, rows)


def price_table(report: NewItemsReport) -> ReportTable:
    """Every arm in the full catalogue at the same price."""
    head = ["arm", *(f"at {loss:.0%}: {name}" for loss in LOSSES for name in ("NDCG@10", "HR@10", "of the first ten"))]
    rows = [
        [
            arm,
            *(
                text
                for point in points
                for text in (number(point.new_ndcg), number(point.new_hit), f"{point.reach:.1%}")
            ),
        ]
        for arm, points in sorted(report.at_price.items(), key=lambda pair: -pair[1][0].new_ndcg)
    ]
    return ReportTable(
        "Full catalogue: new targets, where warm targets lose 1%, 2% and 5% of their NDCG@10", head, rows
    )


def text_of(report: NewItemsReport) -> str:
    """What the command prints."""
    lines = [*report.verdict, missing_sentence(report.missing), *report.notes]
    for table in (arm_table(report), verdict_table_of(report.verdicts)):
        widths = [max(len(row[column]) for row in [table.head, *table.rows]) for column in range(len(table.head))]
        lines += ["\n" + table.title]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in [table.head, *table.rows]]
    return "\n".join(line for line in lines if line)


def kind_of(arm: str) -> str:
    """Whether an arm is an opponent, a control, or ours."""
    if arm in CONTROLS:
        return "control"
    return "opponent" if arm in HONEST or arm.startswith("opponent") else "ours"


def _metrics(values: NewItemsValues, arm: str) -> dict[str, float]:
    own = values.arms[arm]
    slots = {
        f"{slot} slot{'s' if slot > 1 else ''} {name}": float(np.nanmean(column))
        for slot, reach in own.slots.items()
        for name, column in (("ndcg@10", reach.new_ndcg), ("hr", reach.new_hit))
    }
    return {
        "ndcg@10": float(np.nanmean(own.ndcg)),
        "hr@10": float(np.nanmean(own.hit)),
        "coverage": own.coverage,
        "full ndcg@10": float(np.nanmean(own.full.new_ndcg)),
        "full hr@10": float(np.nanmean(own.full.new_hit)),
        "known items": float(np.nanmean(own.full.warm_ndcg) / max(float(np.nanmean(values.warm)), 1e-12)),
        **slots,
    }


def _curve_table(arm: str, points: Sequence[CurvePoint]) -> ReportTable:
    head = ["share of new items", "new items in the first ten", "NDCG@10 of new targets", "HR@10", "known items keep"]
    rows = [
        [f"{point.share:g}", f"{point.reach:.1%}", number(point.new_ndcg), number(point.new_hit), number(point.warm)]
        for point in points
    ]
    return ReportTable(f"The price of {arm} in the full catalogue", head, rows)


def _price_plot(curves: Mapping[str, Sequence[CurvePoint]]) -> str:
    figure, axes = canvas(3.8, "NDCG@10 of new targets in the full catalogue, by what known items lose")
    for (arm, points), style in zip(curves.items(), styles(), strict=False):
        axes.plot(
            [100 * (1 - point.warm) for point in points], [point.new_ndcg for point in points], label=arm, **style
        )
    axes.set_xlabel("NDCG@10 that warm targets lose, %")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)


def _arm_plot(report: NewItemsReport) -> str:
    figure, axes = canvas(4.2, "NDCG@10 among new items, with 95% intervals")
    arms = sorted(report.arms, key=lambda arm: report.arms[arm]["ndcg@10"])
    middle = np.array([report.arms[arm]["ndcg@10"] for arm in arms])
    ends = np.array([report.intervals[arm] for arm in arms])
    colors = {"opponent": "#6b6b6b", "control": "#b39b1d", "ours": "#3b6ea8"}
    axes.barh(arms, middle, color=[colors[kind_of(arm)] for arm in arms])
    axes.errorbar(middle, arms, xerr=[middle - ends[:, 0], ends[:, 1] - middle], fmt="none", color="#1c2430")
    return svg(figure)
