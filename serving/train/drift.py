"""Drift of a running system: what is archived beside what the serving release was trained on.

`python -m serving.train.drift --domain D` looks once and prints JSON. The trainer runs it as a process of its own, so
that a domain's events are in memory only while they are looked at.
"""

import argparse
import logging
import sys

import msgspec
import numpy as np

from features import cache
from models.errors import ReleaseError
from models.releases import release_store
from models.releases.manifest import read_manifest
from models.training import drift
from models.training.drift import Drift, DriftLimits, DriftReference
from serving import metrics
from serving.domain_presets import preset_for
from serving.settings import Settings, read
from stream.errors import ColdstreamError

log = logging.getLogger("coldstream.trainer")


def look(settings: Settings, domain: str) -> Drift:
    """How far the newest archived events of a domain are from its serving release.

    Raises:
        ReleaseError: nothing serves (`none`), the release is damaged, or it keeps no reference (an older version).
        ArchiveError: nothing is archived.
    """
    root = settings.state_path / "releases"
    serving = release_store.current_id(root, domain)
    if serving is None:
        raise ReleaseError("none", f"{domain}: no release serves yet; coldstream train --once makes one")
    folder = root / domain / serving
    manifest = read_manifest(folder)
    raw = release_store.read_extra(folder, manifest, drift.REFERENCE)
    reference = msgspec.json.decode(raw, type=DriftReference)
    frame, _ = cache.interactions(settings.state_path / "archive", domain, settings.state_path / "cache")
    events, index = drift.compare(frame, reference)
    found = Drift(events, index, held_out_hit_rate=manifest.metrics.get(drift.HIT_RATE))
    if events >= settings.drift_events:
        home = preset_for(settings, domain)
        length = manifest.history_length
        cases = drift.next_event_cases(
            frame, reference.until_at + 1, np.random.default_rng(0), weights=home.weights, history_length=length
        )
        if cases:
            recommender = release_store.load(folder).recommender
            rate = drift.hit_rate(recommender, cases, history_length=length, mask_seen=home.mask_seen)
            found = msgspec.structs.replace(found, hit_rate=rate, asked=len(cases))
    return drift.with_reasons(found, limits_of(settings))


def limits_of(settings: Settings) -> DriftLimits:
    """The limits that the settings name."""
    return DriftLimits(settings.drift_index, settings.drift_hit_drop, settings.drift_events)


def summary(found: Drift) -> str:
    """The numbers in a line."""
    index = ", ".join(f"{name} {value:.3f}" for name, value in found.index.items())
    now, then = (f"{one:.3f}" if one is not None else "unknown" for one in (found.hit_rate, found.held_out_hit_rate))
    return f"{found.events} events since; stability index {index or 'unknown'}; hit rate {now}, held out {then}"


def tell(domain: str, found: Drift) -> None:
    """Set the metrics."""
    metrics.events_since_release.labels(domain).set(found.events)
    for name, value in found.index.items():
        metrics.stability_index.labels(domain, name).set(value)
    for when, rate in (("new", found.hit_rate), ("held-out", found.held_out_hit_rate)):
        if rate is not None:
            metrics.drift_hit_rate.labels(domain, when).set(rate)


def main(arguments: list[str] | None = None) -> int:
    """Look once, print JSON. Exit code 3: there is nothing to compare yet."""
    parser = argparse.ArgumentParser(prog="python -m serving.train.drift")
    parser.add_argument("--domain", required=True)
    chosen = parser.parse_args(arguments)
    try:
        found = look(read(), chosen.domain)
    except ColdstreamError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
