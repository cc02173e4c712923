"""The trainer process: one training run (`--once`), or the loop of `serving.train.loop`.

A file lock prevents two trainers from working on one state folder; the kernel releases it when the process ends, also
after kill -9.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from prometheus_client import start_http_server

from models.errors import ModelError, TrainingError
from models.evaluation.experiment import Progress
from models.releases import release_store
from models.releases.gate import GateThresholds
from models.releases.manifest import ITEM_KNN
from models.training.run import TrainingResult, TrainingRun
from models.training.train import train
from serving import metrics
from serving.domain_presets import preset_for
from serving.messages import publish, release_announcement
from serving.process import logs, memory
from serving.settings import Settings, duration_seconds, read
from serving.train.loop import training_loop
from stream.errors import BrokerError, ColdstreamError
from stream.files import try_lock

FIRST_RELEASE_MINUTES: Final = 0.75

log = logging.getLogger("coldstream.trainer")


def train_once(settings: Settings, domain: str, progress: Progress | None = None) -> TrainingResult:
    """Train in this process; announce the release that goes live or becomes a canary.

    Raises:
        TrainingError: too little data, or another trainer is at work.
    """
    with only_trainer(settings):
        return train(training_run(settings, domain), progress, lambda action: announce(settings, domain, action))


def training_run(settings: Settings, domain: str) -> TrainingRun:
    """What one run trains on and how, from the settings. Raises PresetError."""
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
        thresholds=gate_thresholds(settings),
        refresh_ms=round(1000 * duration_seconds(settings.gate_refresh)),
        preset=preset,
        canary_share=settings.canary_share if settings.rollout == "canary" else None,
        history_length=settings.history_length,
        tracking=settings.state_path / "mlflow",
    )


def gate_thresholds(settings: Settings) -> GateThresholds:
    """The thresholds of the gate, from the settings."""
    return GateThresholds(
        margin=settings.gate_margin,
        confidence=settings.gate_confidence,
        tolerance=settings.gate_tolerance,
        coverage=settings.gate_coverage,
        latency_ms=settings.gate_latency_ms,
        dominant_item=settings.gate_dominant_item,
        personalization=settings.gate_personalization,
    )


def _minutes(settings: Settings, domain: str) -> float:
    """Minutes for a tuned release; a domain's first one gets few, so that it goes live soon."""
    releases = release_store.list_releases(settings.state_path / "releases", domain)
    first = all(release.recommender == ITEM_KNN for release in releases)
    return min(settings.train_minutes, FIRST_RELEASE_MINUTES) if first else settings.train_minutes


def announce(settings: Settings, domain: str, action: str) -> None:
    """Announce what a domain serves after `action`; without Kafka a warning: the API reads the folder every second."""
    try:
        publish(settings, release_announcement(settings.state_path / "releases", domain, action))
    except BrokerError as error:
        log.warning("%s: %s is not announced: %s; the API reads the releases folder instead", domain, action, error)


@contextmanager
def only_trainer(settings: Settings) -> Iterator[None]:
    """Hold the trainer's lock. Raises TrainingError where another process holds it."""
    lock = try_lock(settings.state_path / "trainer.lock")
    if lock is None:
        raise TrainingError(f"another trainer is at work on {settings.state_path}; wait for it")
    try:
        yield
    finally:
        lock.release()


def _log_progress(stage: str, done: float, figures: dict[str, float]) -> None:
    shown = ", ".join(
        f"{name} {value:.4g}" for name, value in figures.items() if name in {"loss", "ndcg@10", "hr@10", "epoch"}
    )
    log.info("%s %3.0f%% %s", stage, 100 * done, shown)


def main(settings: Settings | None = None, arguments: list[str] | None = None) -> int:
    """Train once (`--once`), or in a loop until SIGTERM or SIGINT; without `--domain` every domain.

    Exit code 3: not enough data yet.
    """
    parser = argparse.ArgumentParser(prog="coldstream train")
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--domain")
    parser.add_argument("--quiet-when-empty", action="store_true")
    options = parser.parse_args(arguments)
    settings = settings or read()
    logs.configure(settings)
    os.nice(10)  # look-ups have priority
    if not options.once:
        return _run_loop(settings, options.domain)
    memory.configure_allocator(memory.TRAINING)
    try:
        result = train_once(settings, options.domain or settings.domain, _log_progress)
    except TrainingError as error:
        log.log(logging.DEBUG if options.quiet_when_empty else logging.ERROR, "%s", error)
        return 3
    except (ModelError, ColdstreamError) as error:
        log.error("%s", error)
        return 1
    log.info("serving %s; %s", result.serving, result.reason)
    return 0


def _run_loop(settings: Settings, domain: str | None = None) -> int:
    memory.configure_allocator(memory.SMALL)
    stop = threading.Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    start_http_server(settings.trainer_metrics_port, settings.host, metrics.registry)
    log.info("training %s every %s", domain or "each domain", settings.train_every)
    training_loop(settings, stop, duration_seconds(settings.train_every), domain)
    return 0


if __name__ == "__main__":
    sys.exit(main())
