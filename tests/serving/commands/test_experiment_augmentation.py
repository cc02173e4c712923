"""`coldstream experiment augmentation` on a file: the report, the lists, resuming, and what is refused."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from serving.cli import app

NOON = 1_760_000_000_000
RING = 30


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users go round a ring of items; no item repeats within a user."""
    starts = np.random.default_rng(0).integers(RING, size=60).tolist()
    rows = ["user_id,item_id,at,kind"]
    for user, start in enumerate(starts):
        steps = range(25 if user % 5 == 0 else 8)
        rows += [f"u{user},i{(start + step) % RING},{NOON + 3_600_000 * step + user},purchase" for step in steps]
    path = tmp_path_factory.mktemp("augmentation") / "events.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def experiment(events: Path, report: Path, *more: str) -> Result:
    command = ["experiment", "augmentation", "--events", str(events), "--k", "1", "--seeds", "1", "--folds", "2"]
    what = ["--shares", "0.5", "--ratios", "1", "--synthesizers", "markov", "--kinds", "users,tail"]
    members = ["--recommender", "popularity,item-knn", "--first-folds", "1", "--seen", "mask"]
    return CliRunner().invoke(app, [*command, *what, *members, "--report", str(report), *more])


def test_a_report_says_where_not_to_augment_and_resumes(events: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    result = experiment(events, tmp_path / "report", "--json", "--predictions", str(lists))
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["units"] == ["seed-0-fold-0-share=0.5-ratio=1"]
    assert [verdict["arm"] for verdict in content["verdicts"]] == [
        "users by markov, ratio 1",
        "tail by markov, ratio 1",
    ]
    failed = [verdict for verdict in content["verdicts"] if verdict["reasons"]]
    assert f"{len(failed)} of 2 combinations of share, ratio, kind and k fail" in content["verdict"][0]
    assert content["warm_users"] > 0
    for name in ("report.md", "report.html", "report.json"):
        assert (tmp_path / "report" / name).is_file()
    shown = pl.read_parquet(lists)
    assert {"item-knn", "blend", "users by duplicated, ratio 1", "tail by shuffled markov, ratio 1"} < set(shown["arm"])
    assert shown.group_by("group", "arm", "user_id", "k").len()["len"].max() == 20
    units = tmp_path / "report" / "units"
    before = {file: file.stat().st_mtime_ns for file in units.rglob("*.parquet")}
    again = experiment(events, tmp_path / "report", "--json", "--predictions", str(lists))
    assert json.loads(again.stdout)["verdicts"] == content["verdicts"]
    assert {file: file.stat().st_mtime_ns for file in units.rglob("*.parquet")} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--shares", "2"), "--shares 2: give numbers above 0 and up to 1, as in --shares 0.5,1"),
        (("--ratios", "none"), "--ratios none: give numbers above 0"),
        (("--kinds", "sessions"), "nothing of kind 'sessions' can be added; there are users, lengthened, tail"),
        (("--synthesizers", "article-gan"), "article-gan cannot continue a history, which 'tail' needs"),
        (("--synthesizers", "dice"), "no synthesizer is called 'dice'"),
    ],
)
def test_what_does_not_fit_is_refused(events: Path, tmp_path: Path, options: tuple[str, str], message: str) -> None:
    result = experiment(events, tmp_path / "report", *options)
    assert message in str(result.exception)
