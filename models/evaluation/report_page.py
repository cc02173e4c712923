"""A report as a page: sentences, plots and tables, as Markdown and as one self-contained HTML page."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.files import write_atomically

TEMPLATE: Final = Path(__file__).with_name("report.html.j2")


class ReportTable(msgspec.Struct, frozen=True):
    """A titled table of text."""

    title: str
    head: list[str]
    rows: list[list[str]]


class ReportPage(msgspec.Struct, frozen=True):
    """A page: its title, sentences, plots (inline SVG), tables, and named parameters as JSON."""

    title: str
    facts: list[str]
    plots: list[str]
    tables: list[ReportTable]
    parameters: list[tuple[str, str]] = []


def markdown_page(page: ReportPage) -> str:
    """The page as Markdown, without plots."""
    lines = [f"# {page.title}", "", *page.facts, ""]
    for table in page.tables:
        lines += [f"## {table.title}", "", _row(table.head), _row(["---"] * len(table.head))]
        lines += [*(_row(row) for row in table.rows), ""]
    if page.parameters:
        lines += ["## Parameters", "", *(f"- `{name}`: `{params}`" for name, params in page.parameters)]
    return "\n".join(lines) + "\n"


def html_page(page: ReportPage) -> str:
    """The page as HTML without external resources; all text but the plots is escaped."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, keep_trailing_newline=True)
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(page=page)


def write_pages(page: ReportPage, report: msgspec.Struct, folder: Path) -> list[Path]:
    """Write report.md, report.html and report.json (of `report`) into `folder`, each atomically; their paths."""
    texts = {"report.md": markdown_page(page).encode(), "report.html": html_page(page).encode()}
    texts["report.json"] = msgspec.json.format(msgspec.json.encode(report)) + b"\n"
    for name, raw in texts.items():
        write_atomically(folder / name, raw)
    return [folder / name for name in texts]


def canvas(height: float, title: str) -> tuple[Any, Any]:
    """A Matplotlib figure of a page's width and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", alpha=0.25)
    return figure, axes


def styles() -> Iterable[dict[str, Any]]:
    """Colors and markers of lines, each different."""
    colors = (
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
    for number, colour in enumerate(colors * 2):
        yield {"color": colour, "marker": "os^Dvx"[number % 6], "markersize": 4, "linewidth": 1.6}


def svg(figure: Any) -> str:
    """A figure as inline SVG."""
    raw = io.StringIO()
    figure.savefig(raw, format="svg", metadata={"Date": None})
    text = raw.getvalue()
    return text[text.index("<svg") :]


def number(value: float | None) -> str:
    """Four decimals; empty for None and nan."""
    return "" if value is None or value != value else f"{value:.4f}"  # noqa: PLR0124 - nan


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
