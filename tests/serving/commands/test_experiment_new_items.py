"""`coldstream experiment new-items` on files: figures checked against the lists, resuming, and what is refused."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from models.experiments.new_items_arms import ARMS, ndcg_of_list
from serving.cli import app
from tests.models.experiments.test_new_items import shop


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The shop in which text decides, as a file of events and a catalogue."""
    frame, features = shop(noise=False, users=150)
    folder = tmp_path_factory.mktemp("new-items")
    events, items = folder / "events.csv", folder / "items.csv"
    pl.from_pandas(frame.assign(at=1_760_000_000_000 + 60_000 * frame["at"])).write_csv(events)
    pl.DataFrame({"item_id": list(features.titles), "title": list(features.titles.values())}).write_csv(items)
    return events, items


def new_items(events: Path, *more: str) -> Result:
    return CliRunner().invoke(app, ["experiment", "new-items", "--events", str(events), "--first-folds", "1", *more])


def test_figures_follow_from_the_lists(files: tuple[Path, Path], tmp_path: Path) -> None:
    events, items = files
    options = ["--items", str(items), "--report", str(tmp_path / "report"), "--predictions", str(tmp_path / "lists")]
    result = new_items(events, *options, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    lists = pl.read_parquet(tmp_path / "lists" / "seed-0-fold-0.parquet")
    assert set(lists["arm"].unique()) == {*ARMS, "known-items"}
    shown = lists.filter(pl.col("arm") == "ridge").sort("user_id", "rank")
    hidden = set(lists.filter(pl.col("group") == "new")["item_id"].unique())
    newest = pl.read_csv(events).sort("at", maintain_order=True).group_by("user_id").tail(2)
    targets = {
        user: [item for item in own if item in hidden]
        for user, own in newest.group_by("user_id").agg("item_id").iter_rows()
    }
    numbers = {item: number for number, item in enumerate(sorted(hidden))}
    values = [
        ndcg_of_list(np.array([numbers[item] for item in own]), [numbers[item] for item in targets[user]])
        for user, own in shown.group_by("user_id", maintain_order=True).agg("item_id").iter_rows()
        if targets[user]
    ]
    assert content["arms"]["ridge"]["ndcg@10"] == pytest.approx(sum(values) / len(values), abs=1e-6)
    assert content["asked_users"] == len(values)
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.startswith("# New items on")
    assert text.split("\n")[2] == content["verdict"][0]
    again = new_items(events, *options, "--json")
    assert json.loads(again.stdout)["arms"] == content["arms"]


def test_without_a_catalogue_there_is_nothing_to_learn_from(files: tuple[Path, Path]) -> None:
    result = new_items(files[0])
    assert result.exit_code == 1
    assert "nothing to learn from; give a catalogue with --items FILE" in str(result.exception)
