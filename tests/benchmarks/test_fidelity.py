"""The benchmark of fidelity: what it keeps, that it goes on where it was, and what its tables show."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.fidelity import complete, kept_results, kept_set, page_of_set, part_of, share_cell
from models.evaluation.report_page import markdown_page
from models.evaluation.synthesis import SynthesisPlan
from testing.interactions import ring

START = 1_700_000_000_000
PLAN = SynthesisPlan(generators={"markov": {"window": 10_000}}, users=40, epochs=0, canaries=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is kept of a synthesizer that works and of one whose parameters are refused."""
    folder = tmp_path_factory.mktemp("fidelity") / "ring"
    complete(folder, events(100), PLAN, ["popularity-draw", "markov"])
    return folder


def events(users: int) -> pd.DataFrame:
    frame = ring(users, 8)
    return frame.assign(at=frame["at"] + START)


def test_figures_failures_and_events_are_kept(folder: Path) -> None:
    markov, popular = kept_results(folder)
    assert (markov.name, markov.results) == ("markov", None)
    assert "window" in markov.failure
    assert popular.results is not None
    assert popular.results.fidelity["items"] > popular.results.fidelity["transitions"]
    figures = kept_set(folder)
    assert (figures.users, figures.items, figures.compared) == (101, 12, 20)
    tables = {path.stem: pd.read_parquet(path) for path in (folder / "tables").glob("*.parquet")}
    assert set(tables) == {"real", "ceiling", "learned", "popularity-draw"}
    assert {frame["user_id"].nunique() for frame in tables.values()} == {20}


def test_the_page_names_failures_and_shows_shares(folder: Path) -> None:
    text = markdown_page(page_of_set("ring", kept_set(folder), kept_results(folder)))
    assert "`markov` failed: " in text
    assert "| `popularity-draw` |" in text
    assert "| ceiling |" in text


def test_a_folder_of_other_users_is_refused(folder: Path) -> None:
    with pytest.raises(SystemExit, match="holds figures of 101 users and seed 0"):
        complete(folder, events(120), PLAN, [])


def test_a_share_is_bold_where_it_reaches_the_goal() -> None:
    assert share_cell("items", 0.76, 0.8) == "**0.95**"
    assert share_cell("items", 0.75, 0.8) == "0.94"
    assert share_cell("gaps", 0.73, 0.8) == "**0.91**"
    assert share_cell("coverage", 0.63, 0.8) == "0.79"


def test_a_part_has_whole_users_and_the_most_frequent_items() -> None:
    frame = ring(30, 4)
    part = part_of(frame, users=10, items=12, seed=0)
    assert part["user_id"].nunique() == 10
    assert len(part) == len(frame[frame["user_id"].isin(part["user_id"])])
    assert part_of(frame, users=100, items=1, seed=0)["item_id"].unique().tolist() == ["i0"]
