"""`coldstream experiment cold-start` on a file: the figures, checked against the lists; resuming; what is refused."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from serving.cli import app
from testing.small_shops import write_ring_events


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users go round a ring of items; no item repeats within a user."""
    return write_ring_events(tmp_path_factory.mktemp("experiment") / "events.csv", 60)


def experiment(events: Path, report: Path, *more: str) -> Result:
    command = ["experiment", "cold-start", "--events", str(events), "--k", "0,1", "--seeds", "1", "--folds", "2"]
    members = ["--recommender", "item-knn,sequential-rules", "--hosts", "sequential-rules", "--steps", "1,2"]
    return CliRunner().invoke(app, [*command, *members, "--synthesizers", "walk", "--report", str(report), *more])


@pytest.fixture(scope="module")
def outcome(events: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("outcome")
    result = experiment(events, folder / "report", "--json", "--predictions", str(folder / "lists"))
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content, folder


def test_every_arm_is_judged_and_its_lists_are_written(outcome: tuple[dict[str, Any], Path], events: Path) -> None:
    content, folder = outcome
    counts = pl.read_csv(events).group_by("user_id").len()
    assert content["cold_users"] == counts.filter(pl.col("len") >= 6).height
    assert content["missing"] == []
    assert content["units"] == ["seed-0-fold-0", "seed-0-fold-1"]
    means = content["figures"]["means"]["ndcg@10"]
    arms = {"item-knn", "sequential-rules", "live-7d", "blend", "blend by horizon", "A1s walk", "A4 walk"}
    assert arms < set(means)
    assert means["sequential-rules"][1] > means["live-7d"][1]
    lists = pl.concat([pl.read_parquet(file) for file in sorted((folder / "lists").iterdir())])
    cold = lists.filter((pl.col("group") == "cold") & (pl.col("k") == 1))
    assert set(cold["arm"].unique()) >= arms
    assert cold.filter(pl.col("arm") == "A1s walk")["user_id"].n_unique() == content["cold_users"]
    assert cold["rank"].max() == 20


def test_the_verdict_stands_on_top_with_failures_first(outcome: tuple[dict[str, Any], Path]) -> None:
    content, folder = outcome
    text = (folder / "report" / "report.md").read_text()
    assert text.startswith("# Cold start on")
    assert text.split("\n")[2] == content["verdict"][0]
    first = [verdict for verdict in content["verdicts"] if verdict["arm"].startswith("A1 (chosen")]
    assert [verdict["k"] for verdict in first] == [0, 1]
    failed = [verdict for verdict in first if verdict["reasons"]]
    assert content["verdict"][0].startswith("Do not inject" if failed else "Inject")
    assert "<svg" in (folder / "report" / "report.html").read_text()


def test_it_goes_on_where_it_was_and_another_plan_is_refused(
    outcome: tuple[dict[str, Any], Path], events: Path, tmp_path: Path
) -> None:
    content, folder = outcome
    again = experiment(events, folder / "report", "--json", "--predictions", str(tmp_path), "--budget-minutes", "0")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["figures"] == content["figures"]
    other = experiment(events, folder / "report", "--seen", "keep", "--predictions", str(tmp_path))
    assert other.exit_code == 1
    assert "another masked" in str(other.exception)


def test_a_budget_without_a_unit_and_wrong_options_say_so(events: Path, tmp_path: Path) -> None:
    for options, message in (
        (["--budget-minutes", "0"], "no unit of work was begun"),
        (["--steps", "0"], "whole numbers other than 0"),
        (["--synthesizers", "markof"], "no synthesizer is called 'markof'"),
        (["--k", "-1"], "numbers of known events from 0"),
    ):
        result = experiment(events, tmp_path / options[0], *options)
        assert result.exit_code == 1
        assert message in str(result.exception)
