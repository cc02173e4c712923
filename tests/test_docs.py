"""The documents: links lead to pages and headings; paths, commands and metrics exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from serving import metrics
from serving.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
TOP = ("stream", "features", "models", "serving", "testing", "benchmarks", "tests", "docs", "deploy")
FILE = re.compile(rf"(?<![\w./-])((?:{'|'.join(TOP)})/[\w./-]*\w|docker-compose\.yml|pyproject\.toml|Makefile)")
MODULE = re.compile(r"python -m ((?:benchmarks|stream|testing)\.\w+)")
COMMAND = re.compile(r"(?<![\w./-])(?:\.venv/bin/)?coldstream((?: [a-z][a-z-]+){1,2})")
METRIC = re.compile(r"`(coldstream_\w+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def code_of(text: str) -> str:
    """Everything in backticks and code blocks."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))])


def anchors_of(text: str) -> set[str]:
    """The headings' anchors, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> Iterator[str]:
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file.read_text("utf-8"))):
            yield target


def unknown_commands(page: Path) -> Iterator[str]:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for words in COMMAND.findall(code_of(page.read_text("utf-8"))):
        first, *rest = words.split()
        group = getattr(commands.get(first), "commands", None)
        if first not in commands or (group is not None and rest and rest[0] not in group):
            yield words.strip()


def unknown_metrics(page: Path) -> Iterator[str]:
    families = {family.name for family in metrics.registry.collect()}
    for name in METRIC.findall(page.read_text("utf-8")):
        if name.removesuffix("_total") not in families:
            yield name


def missing_paths(page: Path) -> Iterator[str]:
    text = code_of(page.read_text("utf-8"))
    for path in FILE.findall(text):
        if not (ROOT / path).exists() and not (ROOT / f"{path}.py").exists():
            yield path
    for module in MODULE.findall(text):
        if not (ROOT / f"{module.replace('.', '/')}.py").exists():
            yield module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_pages_and_headings(page: Path) -> None:
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    assert list(unknown_commands(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_exist(page: Path) -> None:
    assert list(missing_paths(page)) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_metrics_exist(page: Path) -> None:
    assert list(unknown_metrics(page)) == []


def test_the_benchmark_page_is_short() -> None:
    assert len((ROOT / "docs" / "benchmarks.md").read_text("utf-8").split()) <= 800


def test_checks_find_what_is_broken(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "[a](none.md) [b](#nowhere) `coldstream frobnicate` `models/none.py` `coldstream releases none`"
    text += " `coldstream_nothing_total`"
    page.write_text(text, "utf-8")
    assert list(broken_links(page)) == ["none.md", "#nowhere"]
    assert list(unknown_commands(page)) == ["frobnicate", "releases none"]
    assert list(missing_paths(page)) == ["models/none.py"]
    assert list(unknown_metrics(page)) == ["coldstream_nothing_total"]
