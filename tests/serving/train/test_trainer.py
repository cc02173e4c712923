"""The trainer's loop and its lock, on real processes and an archive on disk; nothing here needs a broker."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from features.archive import Archive, ArchiveRow
from models.errors import ReleaseError, TrainingError
from models.releases import release_store
from models.releases.manifest import Manifest
from models.training.drift import Drift
from models.training.run import read_serving
from models.training.train import train_item_knn, train_tuned, training_rounds
from serving import metrics
from serving.cli import app
from serving.process.environment import training_environment
from serving.settings import Settings
from serving.train import drift, loop, trainer
from stream.errors import ColdstreamError
from stream.events import Interaction
from testing import training
from testing.ports import free_port

NOON = 1_760_000_000_000
MINUTE = 60_000


def write(state: Path, first: int, events: int, shift: int = 0, domain: str = "shop") -> None:
    rng = np.random.default_rng(first)
    kept, rows = Archive(state / "archive"), []
    for n in range(first, first + events):
        user, item = int(rng.integers(150)), int(rng.integers(30)) + shift
        item += 30 * (user % 2)
        event = Interaction(f"e{n}", f"u{user}", f"i{item}", "view", NOON + MINUTE * n, domain=domain)
        rows.append(ArchiveRow(0, n, NOON, event))
    kept.append("events", rows)
    kept.flush()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    state = tmp_path / "state"
    write(state, 0, 1_500)
    return Settings(state=str(state), recommender="counts", drift_every="1s", drift_events=300, kafka="127.0.0.1:9")


def serve(settings: Settings, domain: str = "shop") -> Manifest:
    """A release from counts that serves, without an announcement: there is no broker here."""
    run = trainer.training_run(settings, domain)
    trained = training.item_knn(run)
    assert training.decide(run, [trained]).serving == trained.manifest.id
    return trained.manifest


HOLD = "import sys, time; from serving.train import trainer; from serving.settings import read\n"
HOLD += "with trainer.only_trainer(read()):\n    print('held', flush=True); time.sleep(600)\n"


def test_one_trainer_at_a_time_and_a_killed_one_leaves_no_lock(settings: Settings) -> None:
    variables = {**os.environ, "COLDSTREAM_STATE": settings.state}
    holder = subprocess.Popen([sys.executable, "-c", HOLD], env=variables, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(TrainingError, match="another trainer is at work"):
            trainer.train_once(settings, "shop")
        assert release_store.list_releases(settings.state_path / "releases", "shop") == []
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    with trainer.only_trainer(settings):  # the kernel let go of it with the process
        pass


def test_what_is_tuned_does_not_wait_for_new_counts_while_counts_serve(settings: Settings) -> None:
    auto = msgspec.structs.replace(settings, recommender="auto")
    run = trainer.training_run(auto, "shop")
    counts, tuned = [train_item_knn], [train_tuned]
    assert training_rounds(run, read_serving(run.root, "shop")) == [counts, tuned]  # something has to serve
    serve(settings)
    assert training_rounds(run, read_serving(run.root, "shop")) == [tuned, counts]
    assert training_rounds(trainer.training_run(settings, "shop"), read_serving(run.root, "shop")) == [counts]


def test_drift_is_seen_in_new_events_and_named(settings: Settings) -> None:
    with pytest.raises(ReleaseError, match="no release serves yet"):
        drift.measure_drift(settings, "shop")
    release_id = serve(settings)
    assert drift.measure_drift(settings, "shop") == Drift(0, {}, None, release_id.metrics["next_hr@10"])
    write(settings.state_path, 1_500, 400)
    same = drift.measure_drift(settings, "shop")
    assert same.events == 400
    assert same.hit_rate is not None
    assert same.reasons == []
    write(settings.state_path, 1_900, 800, shift=100)
    moved = drift.measure_drift(settings, "shop")
    assert moved.events == 1_200
    assert (
        {"item", "hit-rate"} <= set(moved.reasons) <= {"item", "hit-rate", "history"}
    )  # the system is young: it grows
    assert moved.hit_rate is not None
    assert moved.hit_rate < same.hit_rate
    summary = drift.summary(moved)
    assert summary.startswith("1200 events since; stability index kind 0.000")


def test_the_loop_trains_early_where_a_domain_drifts(settings: Settings) -> None:
    serve(settings)
    write(settings.state_path, 1_500, 800, shift=100)
    stop = threading.Event()
    monitor = drift.DriftMonitor(settings, stop)
    before = (
        metrics.registry.get_sample_value("coldstream_drift_detected_total", {"domain": "shop", "reason": "item"}) or 0
    )
    started = time.monotonic()
    assert monitor.wait(started + 120, ["shop"]) == "shop"
    value = metrics.registry.get_sample_value("coldstream_drift_stability_index", {"domain": "shop", "feature": "item"})
    assert value is not None
    assert value > settings.drift_index
    drifts = metrics.registry.get_sample_value("coldstream_drift_detected_total", {"domain": "shop", "reason": "item"})
    assert drifts == before + 1
    assert monitor.wait(time.monotonic() + 2.5, ["shop"]) is None  # nothing is new: it is not looked at again
    stop.set()
    assert monitor.wait(time.monotonic() + 120, ["shop"]) is None
    off = drift.DriftMonitor(msgspec.structs.replace(settings, drift_every="0s"), threading.Event())
    assert off.wait(time.monotonic() + 0.2, ["shop"]) is None


@pytest.mark.timeout(120)
def test_a_loop_with_a_domain_trains_that_one_only(settings: Settings) -> None:
    write(settings.state_path, 1_500, 1_500, domain="music")
    serve(settings, "music")
    own = {"COLDSTREAM_TRAINER_METRICS_PORT": str(free_port()), "COLDSTREAM_DRIFT_EVERY": "0s"}
    command = [sys.executable, "-m", "serving.cli", "train", "--every", "1h", "--domain", "music"]
    child = subprocess.Popen(command, env=training_environment(settings) | own)
    try:
        root = settings.state_path / "releases"
        while len(release_store.list_releases(root, "music")) < 2:  # a second one is made after every domain's first
            assert child.poll() is None
            time.sleep(0.1)
        assert release_store.list_releases(root, "shop") == []
    finally:
        child.terminate()
        child.wait(20)


def test_a_loop_has_no_one_result_to_print(settings: Settings) -> None:
    result = CliRunner().invoke(app, ["--state", settings.state, "train", "--every", "15m", "--json"])
    assert isinstance(result.exception, ColdstreamError)
    assert "give --once" in str(result.exception)


def test_what_the_gate_says_of_a_run_is_counted(settings: Settings) -> None:
    serve(settings)

    def value(name: str, **labels: str) -> float:
        return metrics.registry.get_sample_value(name, {"domain": "shop", **labels}) or 0.0

    before = value("coldstream_gate_failed_checks_total", check="not-better"), value("coldstream_gate_passed_total")
    assert loop.run_training(settings, "shop", threading.Event(), "counts")
    after = value("coldstream_gate_failed_checks_total", check="not-better"), value("coldstream_gate_passed_total")
    assert after == (before[0] + 1, before[1])


def test_the_gate_is_what_the_settings_say() -> None:
    chosen = Settings(gate_margin=0.01, gate_confidence=0.9, gate_coverage=0.7, gate_latency_ms=9.0)
    chosen = msgspec.structs.replace(chosen, gate_dominant_item=0.6, gate_personalization=0.3, gate_tolerance=0.02)
    thresholds = trainer.gate_thresholds(chosen)
    assert msgspec.structs.asdict(thresholds) == {
        "margin": 0.01,
        "confidence": 0.9,
        "tolerance": 0.02,
        "coverage": 0.7,
        "latency_ms": 9.0,
        "dominant_item": 0.6,
        "personalization": 0.3,
    }
