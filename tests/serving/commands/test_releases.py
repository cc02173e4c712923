"""`coldstream releases` on a folder of releases, without a system."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from models.releases import arms, release_store, rollout
from models.releases.manifest import ITEM_KNN, read_manifest
from serving.cli import app
from serving.commands.rollout_figures import trial_lines
from testing.ports import free_port
from testing.random_release import write_random_release

CUT_MS = 1_767_225_600_000
"""2026-01-01 00:00:00 UTC."""
DAY_MS = 24 * 60 * 60 * 1000


def told(state: Path, *words: str, port: int | None = None) -> str:
    options = ["--state", str(state), "--port", str(port or free_port())]
    found = CliRunner().invoke(app, [*options, "releases", *words], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, str, str]:
    """A state folder with two releases that differ in data, parent and one interval; the second serves."""
    root, rng = tmp_path / "releases", np.random.default_rng(0)
    one, other = write_random_release(root, 30, ITEM_KNN, rng), write_random_release(root, 30, ITEM_KNN, rng)
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
        card = read_manifest(root / "shop" / name)
        release_store.update_manifest(root, msgspec.structs.replace(card, metrics=metrics, **about))
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


@pytest.fixture
def trials(two: tuple[Path, str, str]) -> tuple[Path, str]:
    """A state folder where a release is canary, may be promoted, and is a shadow; its canary before was rolled back."""
    state, one, _ = two
    root = state / "releases"
    before = rollout.begin_canary(root, "shop", one, 0.1, CUT_MS)
    rollout.roll_back_canary(root, "shop", before.salt, "canary-clicks", "worse")
    arm = rollout.begin_canary(root, "shop", one, 0.2, CUT_MS)
    rollout.mark_ready(root, "shop", arm.salt, "not worse")
    rollout.begin_shadow(root, "shop", one, 0.3, CUT_MS + DAY_MS)
    return state, one


def test_the_list_carries_trials_and_why_they_ended(trials: tuple[Path, str]) -> None:
    state, one = trials
    found = json.loads(told(state, "list", "--json"))
    assert [row["state"] for row in found["releases"]] == ["serving", "canary"]
    assert (found["domain"], found["serving"]) == ("shop", found["releases"][0]["id"])
    tried = found["rollout"]
    for role, share, began_at in (("canary", 0.2, CUT_MS), ("shadow", 0.3, CUT_MS + DAY_MS)):
        assert (tried[role]["release"], tried[role]["share"], tried[role]["began_at"]) == (one, share, began_at)
    assert tried["ready"] == "not worse"
    (ended,) = tried["ended"]
    assert (ended["release"], ended["action"], ended["reason"]) == (one, "rolled-back", "canary-clicks")
    assert (ended["role"], ended["detail"]) == ("canary", "worse")
    assert found["figures"] is None  # no API runs
    text = told(state, "list")
    assert f"canary: {one}, share 0.2, since 2026-01-01 00:00:00Z; may be promoted: not worse\n" in text
    assert f"shadow: {one}, share 0.3, since 2026-01-02 00:00:00Z\n" in text
    assert text.count("figures: no running API has this trial") == 2
    assert f"canary {one} rolled-back: canary-clicks worse" in text


def test_without_trials_no_api_is_asked_for_figures(two: tuple[Path, str, str]) -> None:
    state, *_ = two
    found = json.loads(told(state, "list", "--json"))
    assert found["rollout"] == {"canary": None, "shadow": None, "ready": None, "ended": []}
    assert "no running API" not in told(state, "list")


def test_figures_stand_below_their_trial(trials: tuple[Path, str]) -> None:
    state, one = trials
    lines = list(trial_lines(arms.read(state / "releases", "shop"), {"shadow": {"overlap@10": 0.75, "hits": 3}}))
    assert lines[1].startswith(f"shadow: {one}")
    assert lines[2] == "  shadow   overlap@10 0.75, hits 3"


class Stranger(BaseHTTPRequestHandler):
    """Something else that listens at the API's port."""

    said = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.said)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b'{"shop": null}', b'{"shop": {"rollout": {}}}'])
def test_what_another_program_says_at_the_port_is_no_figure(trials: tuple[Path, str], body: bytes) -> None:
    class Answering(Stranger):
        said = body

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = json.loads(told(trials[0], "list", "--json", port=server.server_port))
        server.shutdown()
    assert found["figures"] is None
    assert found["rollout"]["canary"]["release"] == trials[1]
