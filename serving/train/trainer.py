"""The trainer: one run now (`--once`), or one every so often. Each run is a process of its own.

The child frees TensorFlow's memory when it ends, and its crash leaves the loop alive. A lock that the kernel lets go of
with the process keeps two trainers apart, also after kill -9.
"""

import argparse
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

import msgspec
import polars as pl
from prometheus_client import start_http_server

from features import dataset
from features.archive import parts
from models.errors import ModelError, TrainingError
from models.evaluation.experiment import Progress
from models.releases import release_store
from models.releases.gate import GateThresholds
from models.releases.manifest import ITEM_KNN
from models.training.drift import Drift
from models.training.run import LEAST_EVENTS, TrainingResult, TrainingRun
from models.training.train import train
from serving import metrics
from serving.domain_presets import preset_for
from serving.messages import publish, release_announcement
from serving.process import logs, memory
from serving.process.environment import training_environment
from serving.settings import Settings, read, seconds_of
from serving.train.drift import summary, tell
from stream import topics
from stream.errors import BrokerError, ColdstreamError

GROWTH: Final = 1.02
FIRST_MINUTES: Final = 0.75

log = logging.getLogger("coldstream.trainer")


def train_once(settings: Settings, domain: str, progress: Progress | None = None) -> TrainingResult:
    """A training run in this process; what goes live is announced.

    Raises:
        TrainingError: too little data, or another trainer is at work.
    """
    with _alone(settings):
        return train(_run_of(settings, domain), progress, lambda action: announce(settings, domain, action))


def _run_of(settings: Settings, domain: str) -> TrainingRun:
    preset = preset_for(settings, domain)
    return TrainingRun(
        archive=settings.state_path / "archive",
        root=settings.state_path / "releases",
        domain=domain,
        recommender=settings.recommender,
        minutes=_minutes(settings, domain),
        epochs=settings.epochs,
        mask_seen=preset.mask_seen,
        tuned=Path(settings.preset) if settings.preset else None,
        cache=settings.state_path / "cache",
        warm_start=settings.warm_start,
        thresholds=bounds_of(settings),
        refresh_ms=round(1000 * seconds_of(settings.gate_refresh)),
        preset=preset,
        canary_share=settings.canary_share if settings.rollout == "canary" else None,
        history_length=settings.history_length,
        tracking=settings.state_path / "mlflow",
    )


def bounds_of(settings: Settings) -> GateThresholds:
    """What the gate asks for, as the settings say."""
    return GateThresholds(
        margin=settings.gate_margin,
        confidence=settings.gate_confidence,
        tolerance=settings.gate_tolerance,
        coverage=settings.gate_coverage,
        latency_ms=settings.gate_latency_ms,
        dominant_item=settings.gate_one_item,
        personalization=settings.gate_known,
    )


def _minutes(settings: Settings, domain: str) -> float:
    """The budget of a tuned release: a domain's first one is short, so that it serves soon."""
    releases = release_store.list_releases(settings.state_path / "releases", domain)
    first = all(release.recommender == ITEM_KNN for release in releases)
    return min(settings.train_minutes, FIRST_MINUTES) if first else settings.train_minutes


def announce(settings: Settings, domain: str, action: str) -> None:
    """Announce what a domain serves after `action`; without Kafka a warning: the API reads the folder every second."""
    try:
        publish(settings, release_announcement(settings.state_path / "releases", domain, action))
    except BrokerError as error:
        log.warning("%s: %s is not announced: %s; the API reads the releases folder instead", domain, action, error)


def loop(settings: Settings, stop: threading.Event, every_s: float, only: str | None = None) -> None:
    """Train each domain (or `only` one) when it has new events, once in `every_s`, and once more when drift is seen.

    A domain's first release comes from counts, as soon as there are enough events; what learns longer begins when the
    archive has caught up with the log, or it would learn from half a history.
    """
    trained: dict[str, int] = {}
    watch = Watch(settings, stop)
    domains = settings.domain_names if only is None else (only,)
    while not stop.is_set():
        started = time.monotonic()
        rows = _archived(settings)
        for domain in (one for one in domains if rows.get(one, 0) >= LEAST_EVENTS):
            if release_store.current_id(settings.state_path / "releases", domain) is None:
                _run_child(settings, domain, stop, "counts")
        rows = _settled(settings, rows, stop)
        for domain in domains:
            _train_due(settings, domain, rows.get(domain, 0), trained, stop)
        pause = every_s if trained else 2.0
        until = max(time.monotonic() + 1.0, started + pause)
        drifted: set[str] = set()  # each domain once between two regular runs: a world that moves on is no endless loop
        while (moved := watch.until(until, sorted(set(trained) - drifted))) is not None:
            drifted.add(moved)
            _train_due(settings, moved, _archived(settings).get(moved, 0), trained, stop)


def _train_due(settings: Settings, domain: str, count: int, trained: dict[str, int], stop: threading.Event) -> None:
    due = count >= LEAST_EVENTS and count > trained.get(domain, 0)
    if due and _run_child(settings, domain, stop, settings.recommender):
        trained[domain] = count


class Watch:
    """Looks for drift between runs. Each look is a process of its own, and waits for enough new events."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self.settings, self.stop = settings, stop
        self.every_s = seconds_of(settings.drift_every)
        self._looked: dict[str, int] = {}

    def until(self, end: float, domains: Sequence[str]) -> str | None:
        """Wait until `end` (monotonic seconds) or a stop: None; or until one of `domains` drifts: its name."""
        while (left := end - time.monotonic()) > 0 and not self.stop.is_set():
            if not self.every_s or left <= self.every_s:
                self.stop.wait(left)
                return None
            if self.stop.wait(self.every_s):
                return None
            rows = _archived(self.settings)
            for domain in domains:
                if rows.get(domain, 0) - self._looked.get(domain, 0) >= self.settings.drift_events:
                    self._looked[domain] = rows[domain]
                    if self._drifts(domain):
                        return domain
        return None

    def _drifts(self, domain: str) -> bool:
        command = [sys.executable, "-m", "serving.train.drift", "--domain", domain]
        child = subprocess.Popen(command, env=training_environment(self.settings), stdout=subprocess.PIPE, text=True)
        while True:
            try:
                said, _ = child.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if self.stop.is_set():
                    child.terminate()
        if child.returncode:
            log.log(logging.DEBUG if child.returncode == 3 else logging.WARNING, "%s: drift is not known", domain)
            return False
        found = msgspec.json.decode(said, type=Drift)
        tell(domain, found)
        if found.reasons:
            log.info("%s: drift is seen (%s): %s; training early", domain, ", ".join(found.reasons), summary(found))
            for reason in found.reasons:
                metrics.drift_detected.labels(domain, reason).inc()
        return bool(found.reasons)


def _settled(settings: Settings, rows: dict[str, int], stop: threading.Event) -> dict[str, int]:
    """The archive's rows once they grow by less than 2% between two looks, or after two minutes."""
    for _ in range(24):
        if not any(rows.values()) or stop.wait(5.0):
            return rows
        before, rows = rows, _archived(settings)
        if sum(rows.values()) < GROWTH * sum(before.values()):
            return rows
    return rows


def _run_child(settings: Settings, domain: str, stop: threading.Event, recommender: str) -> bool:
    command = [sys.executable, "-m", "serving.train.trainer", "--once", "--domain", domain, "--quiet-when-empty"]
    started = time.monotonic()
    before = _judged(settings, domain)
    variables = training_environment(msgspec.structs.replace(settings, recommender=recommender))
    child = subprocess.Popen(command, env=variables)
    while child.poll() is None:
        if stop.wait(0.2):
            child.terminate()
            child.wait()
            return False
    if child.returncode == 3:
        return False
    metrics.training_duration.labels(domain).set(time.monotonic() - started)
    if child.returncode:
        metrics.training_failures.labels(domain).inc()
        log.error("%s: training ended with code %d; it is tried again", domain, child.returncode)
        return False
    metrics.training_last_success.labels(domain).set(time.time())
    for release, verdict in _judged(settings, domain).items():
        if release not in before:
            _tell_gate(domain, verdict)
    return True


def _judged(settings: Settings, domain: str) -> dict[str, list[str]]:
    """The checks that each release which the gate judged has failed, from the releases themselves."""
    root = settings.state_path / "releases"
    found: dict[str, list[str]] = {}
    for one in release_store.list_releases(root, domain):
        if one.reason is not None:
            found[one.id] = one.reason.split(",")
        elif one.judged:
            found[one.id] = []
    return found


def _tell_gate(domain: str, reasons: Sequence[str]) -> None:
    for reason in reasons:
        metrics.gate_failed_checks.labels(domain, reason).inc()
    if not reasons:
        metrics.gate_passed.labels(domain).inc()


def _archived(settings: Settings) -> dict[str, int]:
    """How many interactions of each domain are archived."""
    if not parts(settings.state_path / "archive", topics.EVENTS):
        return {}
    lines = dataset.scan_topic(settings.state_path / "archive", topics.EVENTS)
    counts = lines.filter(pl.col("type") == "interaction").group_by("domain").len().collect()
    return {str(domain): int(count) for domain, count in counts.iter_rows()}


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    settings.state_path.mkdir(parents=True, exist_ok=True)
    with (settings.state_path / "trainer.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrainingError(f"another trainer is at work on {settings.state_path}; wait for it") from None
        yield


def _log_progress(stage: str, done: float, figures: dict[str, float]) -> None:
    shown = ", ".join(
        f"{name} {value:.4g}" for name, value in figures.items() if name in {"loss", "ndcg@10", "hr@10", "epoch"}
    )
    log.info("%s %3.0f%% %s", stage, 100 * done, shown)


def main(settings: Settings | None = None, arguments: list[str] | None = None) -> int:
    """The process: `--once`, or a loop until SIGTERM or SIGINT, over each domain where none is given.

    Exit code 3: there is too little data yet.
    """
    parser = argparse.ArgumentParser(prog="coldstream train")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--domain")
    parser.add_argument("--quiet-when-empty", action="store_true")
    chosen = parser.parse_args(arguments)
    settings = settings or read()
    logs.configure(settings.log_format, settings.log_level)
    os.nice(10)  # live look-ups go first
    if not chosen.once:
        return _watch(settings, chosen.domain)
    memory.keep(memory.TRAINING)
    try:
        result = train_once(settings, chosen.domain or settings.domain, _log_progress)
    except TrainingError as error:
        log.log(logging.DEBUG if chosen.quiet_when_empty else logging.ERROR, "%s", error)
        return 3
    except (ModelError, ColdstreamError) as error:
        log.error("%s", error)
        return 1
    log.info("serving %s; %s", result.serving, result.reason)
    return 0


def _watch(settings: Settings, only: str | None = None) -> int:
    memory.keep(memory.LITTLE)
    stop = threading.Event()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    start_http_server(settings.trainer_metrics_port, settings.host, metrics.registry)
    log.info("training %s every %s", only or "each domain", settings.train_every)
    loop(settings, stop, seconds_of(settings.train_every), only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
