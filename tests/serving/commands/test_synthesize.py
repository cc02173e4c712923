"""`coldstream synthesize` and `coldstream probe` on a small file, as a user calls them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from serving.cli import app
from stream.errors import ColdstreamError
from testing.interactions import ring

START = 1_700_000_000_000


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "events.csv"
    frame = ring(80, 6)
    frame.assign(at=frame["at"] + START).drop(columns="value").to_csv(path, index=False)
    return path


def call(*arguments: str) -> Any:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def test_users_are_written_as_import_reads_them(events: Path, tmp_path: Path) -> None:
    out = tmp_path / "synthetic.csv"
    summary = call("synthesize", "--events", str(events), "--n", "30", "--out", str(out), "--length", "3")
    frame = pd.read_csv(out)
    assert summary["users"] == 30
    assert len(frame) == summary["events"] == 90
    assert frame["user_id"].nunique() == 30
    assert set(frame["item_id"]) <= {f"i{n}" for n in range(12)}
    assert set(frame["kind"]) == {"view"}
    again = tmp_path / "again.parquet"
    call("synthesize", "--events", str(events), "--n", "30", "--out", str(again), "--length", "3")
    assert pd.read_parquet(again)["item_id"].tolist() == frame["item_id"].tolist()


def test_a_report_says_what_the_users_are_good_for(events: Path, tmp_path: Path) -> None:
    summary = call(
        "synthesize", "--events", str(events), "--report", str(tmp_path / "report"), "--compared", "15", "--quick"
    )
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "report.json", "report.md"]
    assert set(summary["verdicts"]["markov"]) == {
        "test data",
        "training without real events",
        "more training data",
        "publication",
    }


def test_probe_shows_users_that_follow_the_first_events(events: Path) -> None:
    users = call("probe", "--events", str(events), "--n", "20", "--first", "i3", "--length", "2")
    assert len(users) == 20
    following = [user["events"][0]["item_id"] for user in users]
    assert following.count("i4") > 10


def test_a_fitted_synthesizer_is_kept_and_used_again(events: Path, tmp_path: Path) -> None:
    model = str(tmp_path / "model")
    first = call("probe", "--events", str(events), "--n", "5", "--model", model)
    assert call("probe", "--events", str(events), "--n", "5", "--model", model) == first
    next((tmp_path / "model").glob("*.npy")).write_bytes(b"damaged")
    with pytest.raises(ColdstreamError, match="no readable synthesizer"):
        call("probe", "--events", str(events), "--n", "5", "--model", model)


def test_rules_of_a_file_hold(events: Path, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\ntype = "weight"\nitems = ["i4", "i5"]\nweight = 0.0\n')
    users = call("probe", "--events", str(events), "--n", "30", "--constraints", str(rules))
    items = {event["item_id"] for user in users for event in user["events"]}
    assert "i3" in items
    assert not items & {"i4", "i5"}
    rules.write_text('[[rule]]\ntype = "weigth"\n')
    with pytest.raises(ColdstreamError, match="weigth"):
        call("probe", "--events", str(events), "--constraints", str(rules))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --out FILE"),
        (["--out", "x.txt"], r"ends in \.parquet or \.csv"),
        (["--out", "x.csv", "--synthesizer", "oracle"], "no synthesizer is called 'oracle'"),
        (["--out", "x.csv", "--synthesizer", "markov,walk"], "one synthesizer, not of 2"),
        (["--out", "x.csv", "--params", "{window"], "no JSON object"),
        (["--out", "x.csv", "--params", '{"windows": 1}'], "no parameter 'windows'"),
        (["--out", "x.csv", "--profile", "gold"], "no NAME=VALUE"),
    ],
)
def test_wrong_options_are_refused_with_the_cure(events: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(ColdstreamError, match=message):
        call("synthesize", "--events", str(events), *arguments)
