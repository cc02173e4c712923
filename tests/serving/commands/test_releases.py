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


def run_releases(state: Path, *words: str, port: int | None = None) -> str:
    options = ["--state", str(state), "--port", str(port or free_port())]
    answer = CliRunner().invoke(app, [*options, "releases", *words], catch_exceptions=False)
    assert answer.exit_code == 0, answer.output
    return answer.output


@pytest.fixture
def two_releases(tmp_path: Path) -> tuple[Path, str, str]:
    """A state folder with two releases that differ in data, parent and one interval; the second is live."""
    root, rng = tmp_path / "releases", np.random.default_rng(0)
    older, newer = write_random_release(root, 30, ITEM_KNN, rng), write_random_release(root, 30, ITEM_KNN, rng)
    metrics = {"ndcg@10": 0.2, "hr@10": 0.4}
    first = {"held_out_from": CUT_MS, "data": "aaaa", "intervals": {"ndcg@10": (0.1, 0.3)}}
    second = {
        "held_out_from": CUT_MS + DAY_MS,
        "data": "bbbb",
        "intervals": {"ndcg@10": (0.15, 0.25)},
        "parent": older,
        "warm_start": older,
    }
    for name, about in ((older, first), (newer, second)):
        card = read_manifest(root / "shop" / name)
        release_store.update_manifest(root, msgspec.structs.replace(card, metrics=metrics, **about))
    return tmp_path, older, newer


def test_a_difference_names_data_cut_parent_and_intervals(two_releases: tuple[Path, str, str]) -> None:
    state, older, newer = two_releases
    answer = json.loads(run_releases(state, "diff", older, newer, "--json"))
    assert answer["releases"] == [older, newer]
    assert (answer["params"], answer["metrics"]) == ({}, {})
    assert answer["intervals"] == {"ndcg@10": [[0.1, 0.3], [0.15, 0.25]]}
    assert answer["data"] == {"held_out_from": [CUT_MS, CUT_MS + DAY_MS], "data": ["aaaa", "bbbb"]}
    assert answer["made"] == {"parent": [None, older], "warm_start": [None, older]}
    assert (answer["items"]["kept"], answer["items"]["gained"]) == (30, 0)


def test_a_difference_shows_times_in_utc(two_releases: tuple[Path, str, str]) -> None:
    state, older, newer = two_releases
    text = re.sub(" +", " ", run_releases(state, "diff", older, newer))
    for line in (
        f"{older} -> {newer}",
        "params the same",
        " ndcg@10 0.2000 (0.1000 to 0.3000) -> 0.2000 (0.1500 to 0.2500)",
        " held_out_from 2026-01-01 00:00:00Z -> 2026-01-02 00:00:00Z",
        " data aaaa -> bbbb",
        f" parent none -> {older}",
        f" warm_start none -> {older}",
        " kept 30",
    ):
        assert line in text.splitlines()
    assert "hr@10" not in text
    assert str(CUT_MS) not in text


def test_a_release_and_itself_do_not_differ(two_releases: tuple[Path, str, str]) -> None:
    state, older, _ = two_releases
    text = run_releases(state, "diff", older, older)
    assert [line.split()[0] for line in text.splitlines() if line.endswith("the same")] == [
        "params",
        "metrics",
        "data",
        "made",
    ]


def test_a_card_shows_times_in_utc_and_metrics_with_intervals(two_releases: tuple[Path, str, str]) -> None:
    state, older, _ = two_releases
    text = re.sub(" +", " ", run_releases(state, "show", older))
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
    raw = json.loads(run_releases(state, "show", older, "--json"))
    assert (raw["held_out_from"], raw["intervals"]) == (CUT_MS, {"ndcg@10": [0.1, 0.3]})


@pytest.fixture
def rollout_state(two_releases: tuple[Path, str, str]) -> tuple[Path, str]:
    """A state folder where a release is canary, may be promoted, and is a shadow; its canary before was rolled back."""
    state, older, _ = two_releases
    root = state / "releases"
    before = rollout.begin_canary(root, "shop", older, 0.1, CUT_MS)
    rollout.roll_back_canary(root, "shop", before.salt, "canary-clicks", "worse")
    arm = rollout.begin_canary(root, "shop", older, 0.2, CUT_MS)
    rollout.mark_ready(root, "shop", arm.salt, "not worse")
    rollout.begin_shadow(root, "shop", older, 0.3, CUT_MS + DAY_MS)
    return state, older


def test_the_list_shows_rollouts_and_why_they_ended(rollout_state: tuple[Path, str]) -> None:
    state, older = rollout_state
    answer = json.loads(run_releases(state, "list", "--json"))
    assert [row["state"] for row in answer["releases"]] == ["serving", "canary"]
    assert (answer["domain"], answer["serving"]) == ("shop", answer["releases"][0]["id"])
    shown = answer["rollout"]
    for role, share, began_at in (("canary", 0.2, CUT_MS), ("shadow", 0.3, CUT_MS + DAY_MS)):
        assert (shown[role]["release"], shown[role]["share"], shown[role]["began_at"]) == (
            older,
            share,
            began_at,
        )
    assert shown["ready"] == "not worse"
    (ended,) = shown["ended"]
    assert (ended["release"], ended["action"], ended["reason"]) == (older, "rolled-back", "canary-clicks")
    assert (ended["role"], ended["detail"]) == ("canary", "worse")
    assert answer["figures"] is None  # no API runs
    text = run_releases(state, "list")
    assert f"canary: {older}, share 0.2, since 2026-01-01 00:00:00Z; may be promoted: not worse\n" in text
    assert f"shadow: {older}, share 0.3, since 2026-01-02 00:00:00Z\n" in text
    assert text.count("figures: no running API has this trial") == 2
    assert f"canary {older} rolled-back: canary-clicks worse" in text


def test_without_a_rollout_the_api_is_not_called(two_releases: tuple[Path, str, str]) -> None:
    state, *_ = two_releases
    answer = json.loads(run_releases(state, "list", "--json"))
    assert answer["rollout"] == {"canary": None, "shadow": None, "ready": None, "ended": []}
    assert "no running API" not in run_releases(state, "list")


def test_figures_are_shown_below_their_release(rollout_state: tuple[Path, str]) -> None:
    state, older = rollout_state
    lines = list(trial_lines(arms.read(state / "releases", "shop"), {"shadow": {"overlap@10": 0.75, "hits": 3}}))
    assert lines[1].startswith(f"shadow: {older}")
    assert lines[2] == "  shadow   overlap@10 0.75, hits 3"


class OtherProgram(BaseHTTPRequestHandler):
    """A server that is not the API, at the API's port."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b'{"shop": null}', b'{"shop": {"rollout": {}}}'])
def test_answers_of_another_program_are_not_figures(rollout_state: tuple[Path, str], body: bytes) -> None:
    class Answering(OtherProgram):
        content = body

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        answer = json.loads(run_releases(rollout_state[0], "list", "--json", port=server.server_port))
        server.shutdown()
    assert answer["figures"] is None
    assert answer["rollout"]["canary"]["release"] == rollout_state[1]
