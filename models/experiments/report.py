"""The report of an experiment: the verdict on top, failures first, then every arm with its interval."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from models.evaluation.bootstrap import Comparison, ratio_text
from models.evaluation.cold_report import TITLES
from models.evaluation.cold_values import METRICS, PRIMARY, UserValues
from models.evaluation.report_page import ReportPage, ReportTable, canvas, number, styles, svg
from models.experiments.measures import ANY_K, NEXT, compared, horizon_metric
from models.experiments.run import Unit
from models.experiments.verdicts import Verdict

WITH_INTERVAL: Final = (PRIMARY, NEXT)
SHOWN_HORIZONS: Final = (1, 2, 3, 5)


class ExperimentReport(msgspec.Struct, kw_only=True):
    """An experiment's results. `verdict`: sentences, failures first. `missing`: units that the budget left out.

    `tables`: every arm by metric. `figures`: anything else, as JSON values.
    """

    experiment: str
    source: str
    events: int
    users: int
    items: int
    cold_users: int
    warm_users: int
    units: list[str]
    missing: list[str]
    verdict: list[str]
    verdicts: list[Verdict]
    tables: list[ReportTable]
    settings: dict[str, Any] = {}
    notes: list[str] = []
    figures: dict[str, Any] = {}
    created_at: int = msgspec.field(default_factory=lambda: int(time.time() * 1000))


def page(report: ExperimentReport, plots: Sequence[str] = ()) -> ReportPage:
    """The report as a page."""
    size = (
        f"{report.events:,} events, {report.users:,} users, {report.items:,} items; {report.cold_users:,} cold and "
        f"{report.warm_users:,} warm users in {len(report.units)} units of work (fold and seed)."
    )
    settings = [(name, msgspec.json.encode(value).decode()) for name, value in report.settings.items()]
    facts = [*report.verdict, missing_sentence(report.missing), size, *report.notes]
    title = f"{report.experiment.capitalize()} on {report.source}"
    return ReportPage(title, [fact for fact in facts if fact], list(plots), report.tables, settings)


def text_report(report: ExperimentReport) -> str:
    """What the command prints: verdict, what is missing, and the first table."""
    lines = [*report.verdict, missing_sentence(report.missing), *report.notes]
    for table in report.tables[:1]:
        widths = [max(len(row[column]) for row in [table.head, *table.rows]) for column in range(len(table.head))]
        lines += ["", table.title]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in [table.head, *table.rows]]
    return "\n".join(line for number, line in enumerate(lines) if line or number > 0)


def missing_sentence(missing: Sequence[str]) -> str:
    """Which units the budget left out; empty where none is missing."""
    if not missing:
        return ""
    return f"The budget was over before {len(missing)} units of work ({', '.join(missing)}); the same command goes on."


def unit_names(units: Sequence[Unit]) -> list[str]:
    """The names of units."""
    return [unit.name for unit in units]


def verdict_table(verdicts: Sequence[Verdict], title: str = "Verdicts") -> ReportTable:
    """Every verdict, failures first."""
    head = ["arm", "k", "passes", "ratio to the best other", "p (Holm)", "the other", "next event", "warm", "why not"]
    rows = [
        [
            f"{verdict.arm} {verdict.scenario}".strip(),
            str(verdict.k),
            "yes" if verdict.passed else "no",
            ratio_text(verdict.ratio),
            number(verdict.ratio.holm),
            verdict.other,
            ratio_text(verdict.next),
            ratio_text(verdict.warm) if verdict.warm is not None else "",
            ", ".join(verdict.reasons),
        ]
        for verdict in sorted(verdicts, key=lambda verdict: verdict.passed)
    ]
    return ReportTable(title, head, rows)


def arm_tables(
    values: UserValues, warm: UserValues | None, rng: np.random.Generator, *, items: int, label: str = ""
) -> list[ReportTable]:
    """A table for each metric: arms by k; the primary one and the next event with intervals, coverage, tail share."""
    spread = {metric: values.intervals(rng, metric) for metric in WITH_INTERVAL}
    head = ["", *(f"k = {k}" for k in values.ks)]
    suffix = f". {label}" if label else ""
    tables = []
    for metric in METRICS:
        shown = metric == PRIMARY and warm is not None and bool(warm.users)
        rows = []
        for arm in values.arms:
            cells = [_cell(values.mean(arm, k, metric), spread.get(metric, {}).get((arm, k))) for k in values.ks]
            rows.append([arm, *cells, *([number(warm.mean(arm, ANY_K))] if shown and warm is not None else [])])
        tables.append(ReportTable(f"{TITLES[metric]}{suffix}", [*head, "warm"] if shown else head, rows))
    coverage = [[arm, *(number(values.coverage(arm, k, items)) for k in values.ks)] for arm in values.arms]
    tails = [[arm, *(number(_tail(values, arm, k)) for k in values.ks)] for arm in values.arms]
    tables.append(ReportTable(f"Coverage of the first ten{suffix}", head, coverage))
    tables.append(ReportTable(f"Share of the tail in the first ten{suffix}", head, tails))
    return tables


def horizon_ratios(
    values: UserValues, arms: Sequence[str], others: Mapping[int, str], rng: np.random.Generator
) -> dict[str, dict[int, dict[int, Comparison]]]:
    """By arm, horizon and k: the ratio of NDCG@10 to the other arm of that k."""
    keys = [(arm, horizon, k) for arm in arms for horizon in SHOWN_HORIZONS for k in others]
    ratios = compared(values, [(arm, others[k], k, horizon_metric(horizon)) for arm, horizon, k in keys], rng)
    by_key = dict(zip(keys, ratios, strict=True))
    return {arm: {horizon: {k: by_key[arm, horizon, k] for k in others} for horizon in SHOWN_HORIZONS} for arm in arms}


def horizon_table(ratios: Mapping[str, Mapping[int, Mapping[int, Comparison]]], title: str) -> ReportTable:
    """Ratios by arm and horizon, a column for each k."""
    ks = list(next(iter(next(iter(ratios.values())).values()))) if ratios else []
    rows = [
        [arm, str(horizon), *(ratio_text(by_k[k]) for k in ks)]
        for arm, by_horizon in ratios.items()
        for horizon, by_k in by_horizon.items()
    ]
    return ReportTable(title, ["arm", "horizon", *(f"k = {k}" for k in ks)], rows)


def horizon_plot(ratios: Mapping[str, Mapping[int, Mapping[int, Comparison]]], k: int, other: str) -> str:
    """Ratio by horizon at k, a line for each arm, with intervals."""
    figure, axes = canvas(3.6, f"NDCG@10 by horizon at k = {k}, to {other}")
    axes.axhline(1.0, color="#1c2430", linewidth=1)
    for (arm, by_horizon), style in zip(ratios.items(), styles(), strict=False):
        points = [by_k[k] for by_k in by_horizon.values()]
        low = [point.ratio - point.low for point in points]
        high = [point.high - point.ratio for point in points]
        axes.errorbar(list(by_horizon), [point.ratio for point in points], yerr=[low, high], label=arm, **style)
    axes.set_xlabel("events after the known ones")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)


def arm_plot(values: UserValues, arms: Sequence[str], metric: str = PRIMARY) -> str:
    """A metric by number of known events, a line for each arm."""
    figure, axes = canvas(3.8, TITLES[metric])
    for arm, style in zip(arms, styles(), strict=False):
        axes.plot([str(k) for k in values.ks], [values.mean(arm, k, metric) for k in values.ks], label=arm, **style)
    axes.set_xlabel("events known")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)


def _cell(value: float, interval: tuple[float, float] | None) -> str:
    return number(value) + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval is not None else "")


def _tail(values: UserValues, arm: str, k: int) -> float:
    column = values.tail[:, values.ks.index(k), values.arms.index(arm)]
    return float(np.nanmean(column)) if not np.isnan(column).all() else float("nan")
