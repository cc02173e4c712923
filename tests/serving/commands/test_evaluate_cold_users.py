"""`coldstream evaluate --split cold-users` on a file: the figures, checked against the lists that it writes."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from serving.cli import app
from serving.commands.cold_evaluation import known_events
from stream.errors import ColdstreamError
from testing.small_shops import NOON, write_ring_events


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users go round a ring of items; no item repeats within a user."""
    return write_ring_events(tmp_path_factory.mktemp("cold") / "events.csv", 90)


def test_the_figures_match_the_lists(events: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "lists.parquet", tmp_path / "report"
    command = ["evaluate", "--events", str(events), "--split", "cold-users:0,1,5", "--folds", "3", "--trials", "1"]
    more = ["--recommender", "item-knn,sequential-rules", "--predictions", str(out), "--report", str(report), "--json"]
    result = CliRunner().invoke(app, [*command, *more])
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    counts = pl.read_csv(events).group_by("user_id").len()
    assert content["cold_users"] == counts.filter(pl.col("len") >= 6).height
    assert content["warm_users"] == counts.filter(pl.col("len") >= 20).height
    (results,) = content["results"]
    assert results["seen"] == "mask"
    arms = {arm["arm"]: arm for arm in results["arms"]}
    assert list(arms)[:2] == ["item-knn", "sequential-rules"]
    assert {"live-1d", "live-7d", "live-30d", "blend"} < set(arms)
    assert arms["sequential-rules"]["metrics"]["next ndcg@10"][1] > 0.9
    assert results["strongest"][1] in arms
    assert results["to_best_single"][0]["ratio"] >= 1
    lists = pl.read_parquet(out)
    rows = lists.filter((pl.col("recommender") == "blend") & (pl.col("k") == 1))
    assert rows["user_id"].n_unique() == content["cold_users"]
    shares = rows.group_by("user_id").agg(pl.col("hit").sum() / pl.col("targets").first().list.n_unique())
    assert shares["hit"].mean() == pytest.approx(arms["blend"]["metrics"]["recall@20"][1])
    text = (report / "report.md").read_text()
    assert "# Cold users of" in text
    assert "| A0 |" in text


def test_where_items_repeat_both_ways_are_reported(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [f"u{user},i{rng.integers(6)},{NOON + 60_000 * step + user}" for user in range(40) for step in range(8)]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,at", *rows]) + "\n")
    command = ["evaluate", "--events", str(tmp_path / "events.csv"), "--split", "cold-users:2", "--folds", "2"]
    result = CliRunner().invoke(app, [*command, "--trials", "1", "--recommender", "item-knn"])
    assert result.exit_code == 0, result.output
    assert "Items of the history are masked" in result.output
    assert "Items of the history can be recommended again" in result.output


def test_the_numbers_of_known_events() -> None:
    assert known_events("cold-users") == (0, 1, 2, 3, 5)
    assert known_events("cold-users:3, 1,1") == (1, 3)
    for wrong in ("cold-users:", "cold-users:-1", "cold-users:two"):
        with pytest.raises(ColdstreamError, match="give numbers of known events from 0 to 100, as in cold-users:0,1"):
            known_events(wrong)
