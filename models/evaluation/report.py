"""The report of an evaluation: Markdown, one self-contained HTML page with plots, and JSON."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from models.evaluation.metrics import KS, Segment
from stream.cleaning_report import CleaningReport
from stream.files import write_atomically

INTERVALS: Final = ("ndcg", "hr", "recall", "mrr")
RANKING: Final = ("accuracy", "precision", "recall", "f1", "ndcg", "hr", "mrr", "map")
BEYOND: Final = ("coverage", "gini", "novelty", "diversity", "calibration")
TEMPLATE: Final = Path(__file__).with_name("report.html.j2")


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


class ReportTable(msgspec.Struct, frozen=True):
    """A titled table of text."""

    title: str
    head: list[str]
    rows: list[list[str]]


def ranked(report: EvaluationReport) -> list[RecommenderResults]:
    """Results by descending NDCG@10, ties by name."""
    return sorted(report.figures, key=lambda results: (-results.metrics.get("ndcg@10", 0.0), results.recommender))


def tables(report: EvaluationReport) -> list[ReportTable]:
    """All tables of the report, in order."""
    figures = ranked(report)
    main = [
        [results.recommender, *(_with_interval(results, f"{name}@10") for name in INTERVALS), _number(results.tuning),
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
    lines = [f"# Evaluation of {report.source}", "", *_facts(report), ""]
    for table in tables(report):
        lines += [f"## {table.title}", "", _row(table.head), _row(["---"] * len(table.head))]
        lines += [*(_row(row) for row in table.rows), ""]
    lines += ["## Parameters", ""]
    lines += [f"- `{results.recommender}`: `{_params(results)}`" for results in ranked(report)]
    return "\n".join(lines) + "\n"


def html(report: EvaluationReport) -> str:
    """The report as one page without external resources; plots are inline SVG, and all other text is escaped."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, keep_trailing_newline=True)
    template = environment.from_string(TEMPLATE.read_text("utf-8"))
    return template.render(
        report=report,
        facts=_facts(report),
        plots=plots(report),
        tables=tables(report),
        parameters=[(results.recommender, _params(results)) for results in ranked(report)],
    )


def write(report: EvaluationReport, folder: Path) -> list[Path]:
    """Write report.md, report.html and report.json into `folder`, each atomically; returns their paths."""
    texts = {"report.md": markdown(report).encode(), "report.html": html(report).encode()}
    texts["report.json"] = msgspec.json.format(msgspec.json.encode(report)) + b"\n"
    for name, raw in texts.items():
        write_atomically(folder / name, raw)
    return [folder / name for name in texts]


def plots(report: EvaluationReport) -> list[str]:
    """Inline SVGs: NDCG@10 with intervals, NDCG@10 by history length, and learning curves if there are any."""
    figures = ranked(report)
    charts = [_bars(figures), _by_length(figures)]
    if any(results.curve for results in figures):
        charts.append(_curves([results for results in figures if results.curve]))
    return charts


def _bars(figures: Sequence[RecommenderResults]) -> str:
    figure, axes = _canvas(0.42 * len(figures) + 1.2, "NDCG@10 on the test cases, 95% intervals")
    for place, results in enumerate(figures):
        value = results.metrics.get("ndcg@10", 0.0)
        low, high = results.intervals.get("ndcg@10", (value, value))
        error = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.barh(place, value, xerr=error, color="#3b6ea8", ecolor="#1c2430", capsize=3, height=0.6)
    axes.set_yticks(range(len(figures)), [results.recommender for results in figures])
    axes.invert_yaxis()
    return _svg(figure)


def _by_length(figures: Sequence[RecommenderResults]) -> str:
    figure, axes = _canvas(3.6, "NDCG@10 by length of the history")
    names = list(
        dict.fromkeys(part.name for results in figures for part in results.segments if part.by == "history length")
    )
    for results, style in zip(figures, _styles(), strict=False):
        values = {part.name: part.metrics.get("ndcg@10") for part in results.segments if part.by == "history length"}
        axes.plot(names, [values.get(name) for name in names], label=results.recommender, **style)
    axes.set_xlabel("events known")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return _svg(figure)


def _curves(figures: Sequence[RecommenderResults]) -> str:
    figure, axes = _canvas(3.2, "NDCG@10 on tuning cases, by epoch")
    for results, style in zip(figures, _styles(), strict=False):
        epochs = [point["epoch"] + 1 for point in results.curve]
        axes.plot(epochs, [point["ndcg@10"] for point in results.curve], label=results.recommender, **style)
    axes.set_xlabel("epoch")
    axes.legend(fontsize=8, frameon=False, bbox_to_anchor=(1, 1), loc="upper left")
    return _svg(figure)


def _canvas(height: float, title: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", alpha=0.25)
    return figure, axes


def _styles() -> Iterable[dict[str, Any]]:
    colours = (
        "#3b6ea8",
        "#c65d21",
        "#3c8d4f",
        "#8b5aa8",
        "#a83b52",
        "#6b6b6b",
        "#b39b1d",
        "#2c9a9a",
        "#d98bb0",
        "#222222",
    )
    for number, colour in enumerate(colours * 2):
        yield {"color": colour, "marker": "os^Dvx"[number % 6], "markersize": 4, "linewidth": 1.6}


def _svg(figure: Any) -> str:
    raw = io.StringIO()
    figure.savefig(raw, format="svg", metadata={"Date": None})
    text = raw.getvalue()
    return text[text.index("<svg") :]


def _facts(report: EvaluationReport) -> list[str]:
    seen = "cannot" if report.mask_seen else "can"
    chosen = f" Chosen on the tuning cases: {report.chosen}." if report.chosen else ""
    size = f"{report.events:,} events, {report.users:,} users, {report.items:,} items."
    how = f"Split {report.protocol}, {report.cases:,} test cases, seed {report.seed}, full catalogue"
    return [f"{size} {how}; what a user took {seen} be recommended again.{chosen}", *report.notes]


def _metrics(title: str, names: Sequence[str], figures: Sequence[RecommenderResults]) -> ReportTable:
    rows = [[results.recommender, *(_number(results.metrics.get(name)) for name in names)] for results in figures]
    return ReportTable(title, ["recommender", *names], rows)


def _segment_tables(figures: Sequence[RecommenderResults]) -> list[ReportTable]:
    segment_tables = []
    for by in dict.fromkeys(part.by for results in figures for part in results.segments):
        parts = [part for part in figures[0].segments if part.by == by]
        head = ["recommender", *(f"{part.name} ({part.users:,})" for part in parts)]
        rows = []
        for results in figures:
            values = {part.name: part.metrics.get("ndcg@10") for part in results.segments if part.by == by}
            rows.append([results.recommender, *(_number(values.get(part.name)) for part in parts)])
        segment_tables.append(ReportTable(f"NDCG@10 by {by} (users)", head, rows))
    return segment_tables


def _with_interval(results: RecommenderResults, name: str) -> str:
    if name not in results.intervals:
        return _number(results.metrics.get(name))
    low, high = results.intervals[name]
    return f"{results.metrics[name]:.4f} [{low:.4f}, {high:.4f}]"


def _number(value: float | None) -> str:
    return "" if value is None or value != value else f"{value:.4f}"  # noqa: PLR0124 - nan


def _params(results: RecommenderResults) -> str:
    return msgspec.json.encode(results.params).decode()


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
