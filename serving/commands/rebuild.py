"""`coldstream features rebuild`: a new store beside the old one, then a swap."""

import shutil
from typing import Any

import msgspec

from serving.commands.status import is_up
from serving.settings import Settings
from stream.errors import ColdstreamError


def rebuild_features(settings: Settings) -> dict[str, Any]:
    """Build the SQLite store anew from the archive (and the log, where Kafka answers); what was done.

    Raises:
        ColdstreamError: the system runs, or the store is Redis (there, empty the database and let the consumer read the
            log again).
    """
    from features.activity import FoldSettings
    from features.rebuild import last_offsets, log_by_partition, rebuild
    from features.store import SQLITE, open_store
    from serving.commands.progress import counting
    from serving.domain_presets import counting as counting_of
    from stream.broker import Broker
    from stream.events import TimeLimits

    if is_up(settings):
        raise ColdstreamError(
            f"a system runs on {settings.state_path}; stop it first: its consumer writes the same rows"
        )
    if settings.store != SQLITE:
        raise ColdstreamError(
            "the store is Redis: FLUSHDB it and start the consumer, which reads the log from the start"
        )
    popular = counting_of(settings)
    aside, home = settings.state_path / "feast.aside", settings.state_path / "feast"
    shutil.rmtree(aside, ignore_errors=True)
    store = open_store(aside, SQLITE, settings.domain_names)
    rules = FoldSettings(history_length=settings.history_length, late_ms=settings.late_ms)
    broker = None if settings.kafka else Broker(settings.state_path / "kafka", settings.kafka_port)
    try:
        if broker is not None:
            broker.start()
        where = (settings.bootstrap, settings.kafka_security)
        limits = TimeLimits(max_future_ms=settings.max_future_ms)
        log = log_by_partition(settings.state_path / "archive", *where, settings.domain_names, limits)
        with counting("events") as tell:
            say = lambda name, done: tell(done, None, name)  # noqa: E731
            report = rebuild(log, store, rules, say, last_offsets(*where), popular)
    finally:
        store.close()
        if broker is not None:
            broker.stop()
    old = settings.state_path / "feast.old"
    shutil.rmtree(old, ignore_errors=True)
    if home.exists():
        home.rename(old)
    aside.rename(home)
    shutil.rmtree(old, ignore_errors=True)
    return dict(msgspec.to_builtins(report))
