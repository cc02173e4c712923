"""The training loop: regular runs per domain, and an early one when drift is detected.

Each run is a process of its own: it frees TensorFlow's memory when it ends, and a crash does not stop the loop.
"""

import logging
import subprocess
import threading
import time
from typing import Final

import msgspec

from models.releases import release_store
from models.training.run import LEAST_EVENTS
from serving import metrics
from serving.process.environment import training_environment
from serving.settings import Settings
from serving.train.archive_counts import count_interactions
from serving.train.drift import DriftMonitor
from stream.child_process import python_command

STEADY_GROWTH: Final = 1.02
STEADY_CHECKS: Final = 24
STEADY_CHECK_S: Final = 5.0
FIRST_DATA_CHECK_S: Final = 2.0
NOT_ENOUGH_DATA: Final = 3
"""Exit code of a training run."""

log = logging.getLogger("coldstream.trainer")


def training_loop(settings: Settings, stop: threading.Event, every_s: float, only: str | None = None) -> None:
    """Until `stop`: train each domain (or `only` one) every `every_s` if it has new events, and early on drift.

    A domain's first release is trained from counts as soon as there are enough events. Longer training starts when the
    archive has caught up with the log; otherwise it would learn from a part of the history.
    """
    trained: dict[str, int] = {}
    monitor = DriftMonitor(settings, stop)
    domains = settings.domain_names if only is None else (only,)
    while not stop.is_set():
        started = time.monotonic()
        counts = count_interactions(settings)
        for domain in domains:
            enough = counts.get(domain, 0) >= LEAST_EVENTS
            if enough and release_store.serving_id(settings.state_path / "releases", domain) is None:
                run_training(settings, domain, stop, "counts")
        counts = _steady_counts(settings, counts, stop)
        for domain in domains:
            _train_if_due(settings, domain, counts.get(domain, 0), trained, stop)
        next_run = max(time.monotonic() + 1.0, started + (every_s if trained else FIRST_DATA_CHECK_S))
        drifted: set[str] = set()  # at most one early run per domain between two regular ones
        while (domain_with_drift := monitor.wait(next_run, sorted(set(trained) - drifted))) is not None:
            drifted.add(domain_with_drift)
            count = count_interactions(settings).get(domain_with_drift, 0)
            _train_if_due(settings, domain_with_drift, count, trained, stop)


def run_training(settings: Settings, domain: str, stop: threading.Event, recommender: str) -> bool:
    """Train one domain in a child process; whether it trained. The child is terminated on `stop`."""
    command = python_command("serving.train.trainer", "--once", "--domain", domain, "--quiet-when-empty")
    started = time.monotonic()
    judged_before = _failed_checks(settings, domain)
    variables = training_environment(msgspec.structs.replace(settings, recommender=recommender))
    child = subprocess.Popen(command, env=variables)
    while child.poll() is None:
        if stop.wait(0.2):
            child.terminate()
            child.wait()
            return False
    if child.returncode == NOT_ENOUGH_DATA:
        return False
    metrics.training_duration.labels(domain).set(time.monotonic() - started)
    if child.returncode:
        metrics.training_failures.labels(domain).inc()
        log.error("%s: training failed with exit code %d; the loop retries", domain, child.returncode)
        return False
    metrics.training_last_success.labels(domain).set(time.time())
    for release, checks in _failed_checks(settings, domain).items():
        if release not in judged_before:
            _report_gate(domain, checks)
    return True


def _train_if_due(settings: Settings, domain: str, count: int, trained: dict[str, int], stop: threading.Event) -> None:
    due = count >= LEAST_EVENTS and count > trained.get(domain, 0)
    if due and run_training(settings, domain, stop, settings.recommender):
        trained[domain] = count


def _steady_counts(settings: Settings, counts: dict[str, int], stop: threading.Event) -> dict[str, int]:
    """The archive's counts once they grow by less than 2% between two checks, or after two minutes."""
    for _ in range(STEADY_CHECKS):
        if not any(counts.values()) or stop.wait(STEADY_CHECK_S):
            return counts
        before, counts = counts, count_interactions(settings)
        if sum(counts.values()) < STEADY_GROWTH * sum(before.values()):
            return counts
    return counts


def _failed_checks(settings: Settings, domain: str) -> dict[str, list[str]]:
    """The failed checks of each release that the gate judged, from the releases' cards."""
    releases = release_store.list_releases(settings.state_path / "releases", domain)
    rejected = {release.id: release.reason.split(",") for release in releases if release.reason is not None}
    passed: dict[str, list[str]] = {release.id: [] for release in releases if release.judged}
    return passed | rejected


def _report_gate(domain: str, failed_checks: list[str]) -> None:
    for check in failed_checks:
        metrics.gate_failed_checks.labels(domain, check).inc()
    if not failed_checks:
        metrics.gate_passed.labels(domain).inc()
