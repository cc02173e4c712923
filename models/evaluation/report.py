"""The report of an evaluation: Markdown, one self-contained HTML page with plots, and JSON."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from models.evaluation.metrics import KS, Segment
from models.evaluation.report_page import (
    ReportPage,
    ReportTable,
    canvas,
    html_page,
    markdown_page,
    number,
    styles,
    svg,
    write_pages,
)
from stream.cleaning_report import CleaningReport

INTERVALS: Final = ("ndcg", "hr", "recall", "mrr")
RANKING: Final = ("accuracy", "precision", "recall", "f1", "ndcg", "hr", "mrr", "map")
BEYOND: Final = ("coverage", "gini", "novelty", "diversity", "calibration")


class RecommenderResults(msgspec.Struct):
    """The results of one recommender. `curve`: epoch, loss and ndcg@10 of each epoch, empty without epochs."""

    recommender: str
    params: dict[str, Any]
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    segments: list[Segment] = []
    curve: list[dict[str, float]] = []
    tuning: float = 0.0
    trials: int = 0
    seconds: float = 0.0


class EvaluationReport(msgspec.Struct):
    """An evaluation: data, protocol, and the results of each recommender. `chosen` is the best on the tuning cases."""

    source: str
    events: int
    users: int
    items: int
    cases: int
    protocol: str
    seed: int
    mask_seen: bool
    chosen: str | None
    figures: list[RecommenderResults]
    notes: list[str] = []
    created_at: int = 0
    cleaning: CleaningReport | None = None


def ranked(report: EvaluationReport) -> list[RecommenderResults]:
    """Results by descending NDCG@10, ties by name."""
    return sorted(report.figures, key=lambda results: (-results.metrics.get("ndcg@10", 0.0), results.recommender))


def tables(report: EvaluationReport) -> list[ReportTable]:
    """All tables of the report, in order."""
    figures = ranked(report)
    main = [
        [results.recommender, *(_with_interval(results, f"{name}@10") for name in INTERVALS), number(results.tuning),
         str(results.trials), f"{results.seconds:.0f}"]
        for results in figures
    ]  # fmt: skip
    report_tables = [
        ReportTable("At 10, with 95% intervals over users", ["recommender", *(f"{name}@10" for name in INTERVALS),
              "tuning ndcg@10", "trials", "seconds"], main)
    ]  # fmt: skip
    for k in KS:
        names = [f"{name}@{k}" for name in RANKING]
        if k == KS[-1] and any("auc" in results.metrics for results in figures):
            names.append("auc")
        report_tables.append(_metrics(f"Ranking at {k}", names, figures))
    beyond = [f"{name}@10" for name in BEYOND if any(f"{name}@10" in results.metrics for results in figures)]
    report_tables.append(_metrics("Beyond accuracy", beyond, figures))
    return report_tables + _segment_tables(figures)


def markdown(report: EvaluationReport) -> str:
    """The report as Markdown."""
    return markdown_page(_page(report))


def _page(report: EvaluationReport) -> ReportPage:
    parameters = [(results.recommender, _params(results)) for results in ranked(report)]
    return ReportPage(f"Evaluation of {report.source}", _facts(report), plots(report), tables(report), parameters)


def html(report: EvaluationReport) -> str:
    """The report as one page without external resources; plots are inline SVG, and all other text is escaped."""
    return html_page(_page(report))


def write(report: EvaluationReport, folder: Path) -> list[Path]:
    """Write report.md, report.html and report.json into `folder`, each atomically; returns their paths."""
    return write_pages(_page(report), report, folder)


def plots(report: EvaluationReport) -> list[str]:
    """Inline SVGs: NDCG@10 with intervals, NDCG@10 by history length, and learning curves if there are any."""
    figures = ranked(report)
    charts = [_bars(figures), _by_length(figures)]
    if any(results.curve for results in figures):
        charts.append(_curves([results for results in figures if results.curve]))
    return charts


def _bars(figures: Sequence[RecommenderResults]) -> str:
    figure, axes = canvas(0.42 * len(figures) + 1.2, "NDCG@10 on the test cases, 95% intervals")
    for place, results in enumerate(figures):
        value = results.metrics.get("ndcg@10", 0.0)
        low, high = results.intervals.get("ndcg@10", (value, value))
        error = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.barh(place, value, xerr=error, color="#3b6ea8", ecolor="#1c2430", capsize=3, height=0.6)
    axes.set_yticks(range(len(figures)), [results.recommender for results in figures])
    axes.invert_yaxis()
    return svg(figure)


def _by_length(figures: Sequence[RecommenderResults]) -> str:
    figure, axes = canvas(3.6, "NDCG@10 by length of the history")
    names = list(
        dict.fromkeys(part.name for results in figures for part in results.segments if part.by == "history length")
    )
    for results, style in zip(figures, styles(), strict=False):
        values = {part.name: part.metrics.get("ndcg@10") for part in results.segments if part.by == "history length"}
        axes.plot(names, [values.get(name) for name in names], label=results.recommender, **style)
    axes.set_xlabel("events known")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)


def _curves(figures: Sequence[RecommenderResults]) -> str:
    figure, axes = canvas(3.2, "NDCG@10 on tuning cases, by epoch")
    for results, style in zip(figures, styles(), strict=False):
        epochs = [point["epoch"] + 1 for point in results.curve]
        axes.plot(epochs, [point["ndcg@10"] for point in results.curve], label=results.recommender, **style)
    axes.set_xlabel("epoch")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return svg(figure)


def _facts(report: EvaluationReport) -> list[str]:
    seen = "cannot" if report.mask_seen else "can"
    chosen = f" Chosen on the tuning cases: {report.chosen}." if report.chosen else ""
    size = f"{report.events:,} events, {report.users:,} users, {report.items:,} items."
    how = f"Split {report.protocol}, {report.cases:,} test cases, seed {report.seed}, full catalogue"
    return [f"{size} {how}; what a user took {seen} be recommended again.{chosen}", *report.notes]


def _metrics(title: str, names: Sequence[str], figures: Sequence[RecommenderResults]) -> ReportTable:
    rows = [[results.recommender, *(number(results.metrics.get(name)) for name in names)] for results in figures]
    return ReportTable(title, ["recommender", *names], rows)


def _segment_tables(figures: Sequence[RecommenderResults]) -> list[ReportTable]:
    segment_tables = []
    for by in dict.fromkeys(part.by for results in figures for part in results.segments):
        parts = [part for part in figures[0].segments if part.by == by]
        head = ["recommender", *(f"{part.name} ({part.users:,})" for part in parts)]
        rows = []
        for results in figures:
            values = {part.name: part.metrics.get("ndcg@10") for part in results.segments if part.by == by}
            rows.append([results.recommender, *(number(values.get(part.name)) for part in parts)])
        segment_tables.append(ReportTable(f"NDCG@10 by {by} (users)", head, rows))
    return segment_tables


def _with_interval(results: RecommenderResults, name: str) -> str:
    if name not in results.intervals:
        return number(results.metrics.get(name))
    low, high = results.intervals[name]
    return f"{results.metrics[name]:.4f} [{low:.4f}, {high:.4f}]"


def _params(results: RecommenderResults) -> str:
    return msgspec.json.encode(results.params).decode()
