"""`coldstream releases` on a folder of releases, without a system."""

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks.lookups import release
from models import releases
from models.releases import COUNTS
from serving.cli import app

CUT_MS = 1_767_225_600_000
"""2026-01-01 00:00:00 UTC."""
DAY_MS = 24 * 60 * 60 * 1000


def told(state: Path, *words: str) -> str:
    found = CliRunner().invoke(app, ["--state", str(state), "releases", *words], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, str, str]:
    """A state folder with two releases that differ in data, parent and one interval; the second serves."""
    root, rng = tmp_path / "releases", np.random.default_rng(0)
    one, other = release(root, 30, COUNTS, rng), release(root, 30, COUNTS, rng)
    metrics = {"ndcg@10": 0.2, "hr@10": 0.4}
    first = {"held_out_from": CUT_MS, "data": "aaaa", "intervals": {"ndcg@10": (0.1, 0.3)}}
    second = {
        "held_out_from": CUT_MS + DAY_MS,
        "data": "bbbb",
        "intervals": {"ndcg@10": (0.15, 0.25)},
        "parent": one,
        "warm_start": one,
    }
    for name, about in ((one, first), (other, second)):
        card = releases.read_manifest(root / "shop" / name)
        releases.annotate(root, msgspec.structs.replace(card, metrics=metrics, **about))
    return tmp_path, one, other


def test_a_difference_names_data_cut_parent_and_intervals(two: tuple[Path, str, str]) -> None:
    state, one, other = two
    found = json.loads(told(state, "diff", one, other, "--json"))
    assert found["releases"] == [one, other]
    assert (found["params"], found["metrics"]) == ({}, {})
    assert found["intervals"] == {"ndcg@10": [[0.1, 0.3], [0.15, 0.25]]}
    assert found["data"] == {"held_out_from": [CUT_MS, CUT_MS + DAY_MS], "data": ["aaaa", "bbbb"]}
    assert found["made"] == {"parent": [None, one], "warm_start": [None, one]}
    assert (found["items"]["kept"], found["items"]["gained"]) == (30, 0)


def test_a_difference_is_read_in_utc(two: tuple[Path, str, str]) -> None:
    state, one, other = two
    text = re.sub(" +", " ", told(state, "diff", one, other))
    for line in (
        f"{one} -> {other}",
        "params the same",
        " ndcg@10 0.2000 (0.1000 to 0.3000) -> 0.2000 (0.1500 to 0.2500)",
        " held_out_from 2026-01-01 00:00:00Z -> 2026-01-02 00:00:00Z",
        " data aaaa -> bbbb",
        f" parent none -> {one}",
        f" warm_start none -> {one}",
        " kept 30",
    ):
        assert line in text.splitlines()
    assert "hr@10" not in text
    assert str(CUT_MS) not in text


def test_a_release_and_itself_do_not_differ(two: tuple[Path, str, str]) -> None:
    state, one, _ = two
    text = told(state, "diff", one, one)
    assert [line.split()[0] for line in text.splitlines() if line.endswith("the same")] == [
        "params",
        "metrics",
        "data",
        "made",
    ]


def test_a_card_is_read_in_utc_and_its_metrics_with_intervals(two: tuple[Path, str, str]) -> None:
    state, one, _ = two
    text = re.sub(" +", " ", told(state, "show", one))
    for line in (
        "held_out_from 2026-01-01 00:00:00Z",
        "cutoff_at not known",
        "data aaaa",
        " ndcg@10 0.2000 (0.1000 to 0.3000)",
        " hr@10 0.4000",
        "parent none",
        "whole true",
    ):
        assert line in text.splitlines()
    assert re.search(r"^created_at 20\d\d-\d\d-\d\d \d\d:\d\d:\d\dZ$", text, re.MULTILINE)
    raw = json.loads(told(state, "show", one, "--json"))
    assert (raw["held_out_from"], raw["intervals"]) == (CUT_MS, {"ndcg@10": [0.1, 0.3]})
