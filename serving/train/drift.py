"""Drift of a running system: the newest archived events compared with the training data of the current release.

`python -m serving.train.drift --domain D` measures once and prints JSON. `DriftMonitor` runs it as a child process, so
that a domain's events are in memory only during the measurement.
"""

import argparse
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from features import cache
from models.errors import ReleaseError
from models.recommenders.live_popularity import follow_stream
from models.releases import release_store
from models.releases.manifest import read_manifest
from models.releases.release_files import decode_json
from models.training import drift
from models.training.drift import Drift, DriftLimits, DriftReference
from serving import metrics
from serving.domain_presets import preset_for
from serving.process.environment import training_environment
from serving.settings import Settings, duration_seconds, read
from serving.train.archive_counts import count_interactions
from stream.child_process import python_command
from stream.errors import ColdstreamError

NOTHING_TO_COMPARE: Final = 3
"""Exit code of a measurement."""

log = logging.getLogger("coldstream.trainer")


def measure_drift(settings: Settings, domain: str) -> Drift:
    """Compare a domain's newest archived events with what its current release was trained on.

    Raises:
        ReleaseError: the domain has no current release (`none`), or it is damaged or has no drift reference.
        ArchiveError: nothing is archived.
    """
    root = settings.state_path / "releases"
    current = release_store.serving_id(root, domain)
    if current is None:
        raise ReleaseError("none", f"{domain}: no release serves yet; coldstream train --once makes one")
    folder = root / domain / current
    manifest = read_manifest(folder)
    raw = release_store.read_extra(folder, manifest, drift.REFERENCE)
    reference = decode_json(raw, DriftReference, "unreadable", folder / drift.REFERENCE, "train again")
    frame, _ = cache.interactions(settings.state_path / "archive", domain, settings.state_path / "cache")
    events, index = drift.compare(frame, reference)
    measured = Drift(events, index, held_out_hit_rate=manifest.metrics.get(drift.HIT_RATE))
    if events >= settings.drift_events:
        preset = preset_for(settings, domain)
        length = manifest.history_length
        cases = drift.next_event_cases(
            frame, reference.until_at + 1, np.random.default_rng(0), weights=preset.weights, history_length=length
        )
        if cases:
            recommender = release_store.load(folder).recommender
            follow_stream(recommender, frame)
            rate = drift.hit_rate(recommender, cases, history_length=length, mask_seen=preset.mask_seen)
            measured = msgspec.structs.replace(measured, hit_rate=rate, hit_rate_cases=len(cases))
    return drift.with_reasons(measured, drift_limits(settings))


def drift_limits(settings: Settings) -> DriftLimits:
    """The limits of drift, from the settings."""
    return DriftLimits(settings.drift_index, settings.drift_hit_drop, settings.drift_events)


def summary(measured: Drift) -> str:
    """The figures in one line."""
    index = ", ".join(f"{name} {value:.3f}" for name, value in measured.index.items())
    rates = (measured.hit_rate, measured.held_out_hit_rate)
    new, held_out = (f"{rate:.3f}" if rate is not None else "unknown" for rate in rates)
    return f"{measured.events} events since; stability index {index or 'unknown'}; hit rate {new}, held out {held_out}"


def report_metrics(domain: str, measured: Drift) -> None:
    """Set the drift metrics."""
    metrics.events_since_release.labels(domain).set(measured.events)
    for name, value in measured.index.items():
        metrics.stability_index.labels(domain, name).set(value)
    for events, rate in (("new", measured.hit_rate), ("held-out", measured.held_out_hit_rate)):
        if rate is not None:
            metrics.drift_hit_rate.labels(domain, events).set(rate)


class DriftMonitor:
    """Detects drift between training runs. A domain is measured again after `drift_events` new events."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self.settings, self.stop = settings, stop
        self.every_s = duration_seconds(settings.drift_every)
        self._measured_at: dict[str, int] = {}

    def wait(self, end: float, domains: Sequence[str]) -> str | None:
        """The first of `domains` that drifts before `end` (monotonic seconds); None at `end` or on stop."""
        while (left := end - time.monotonic()) > 0 and not self.stop.is_set():
            if not self.every_s or left <= self.every_s:
                self.stop.wait(left)
                return None
            if self.stop.wait(self.every_s):
                return None
            counts = count_interactions(self.settings)
            for domain in domains:
                if counts.get(domain, 0) - self._measured_at.get(domain, 0) >= self.settings.drift_events:
                    self._measured_at[domain] = counts[domain]
                    if self._drifts(domain):
                        return domain
        return None

    def _drifts(self, domain: str) -> bool:
        measured = self._measure(domain)
        if measured is None:
            return False
        report_metrics(domain, measured)
        if measured.reasons:
            reasons = ", ".join(measured.reasons)
            log.info("%s: drift detected (%s): %s; training early", domain, reasons, summary(measured))
            for reason in measured.reasons:
                metrics.drift_detected.labels(domain, reason).inc()
        return bool(measured.reasons)

    def _measure(self, domain: str) -> Drift | None:
        command = python_command("serving.train.drift", "--domain", domain)
        child = subprocess.Popen(command, env=training_environment(self.settings), stdout=subprocess.PIPE, text=True)
        while True:
            try:
                output, _ = child.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                if self.stop.is_set():
                    child.terminate()
        if child.returncode:
            level = logging.DEBUG if child.returncode == NOTHING_TO_COMPARE else logging.WARNING
            log.log(level, "%s: drift could not be measured", domain)
            return None
        return msgspec.json.decode(output, type=Drift)


def main(arguments: list[str] | None = None) -> int:
    """Measure once and print JSON. Exit code 3: there is nothing to compare yet."""
    parser = argparse.ArgumentParser(prog="python -m serving.train.drift")
    parser.add_argument("--domain", required=True)
    options = parser.parse_args(arguments)
    try:
        measured = measure_drift(read(), options.domain)
    except ColdstreamError as error:
        sys.stderr.write(f"{error}\n")
        return NOTHING_TO_COMPARE
    sys.stdout.write(msgspec.json.encode(measured).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
