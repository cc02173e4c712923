"""All features rebuilt from archive and event log into a new store, which then replaces the old one."""

import shutil
from typing import Any

import msgspec

from serving.process.state_folder import check_state_folder, is_running
from serving.settings import Settings
from stream.errors import ColdstreamError


def rebuild_features(settings: Settings) -> dict[str, Any]:
    """Rebuild the SQLite store from the archive, and from the log if Kafka answers; returns the figures of the run.

    Raises:
        ColdstreamError: the system runs, or the store is Redis: there, empty the database, and the consumer reads the
            log again.
    """
    from features.activity import FoldSettings
    from features.catalogue_rebuild import rebuild_catalogue
    from features.event_log import last_offsets
    from features.online_config import SQLITE
    from features.rebuild import log_by_partition, rebuild
    from features.store import open_store
    from serving.commands.progress import counting
    from serving.domain_presets import popularity_settings
    from stream.admin import create_topics
    from stream.broker import Broker
    from stream.events import TimeLimits
    from stream.topics import topics as all_topics

    check_state_folder(settings.state_path)
    if is_running(settings):
        raise ColdstreamError(
            f"a system runs on {settings.state_path}; stop it first: its consumer writes the same rows"
        )
    if settings.store != SQLITE:
        raise ColdstreamError(
            "the store is Redis: run FLUSHDB and start the consumer, which then reads the log from the start"
        )
    popularity = popularity_settings(settings)
    new, current = settings.state_path / "feast.aside", settings.state_path / "feast"
    shutil.rmtree(new, ignore_errors=True)
    store = open_store(new, SQLITE, settings.domain_names)
    fold_settings = FoldSettings(history_length=settings.history_length, late_ms=settings.late_ms)
    broker = None if settings.kafka else Broker(settings.state_path / "kafka", settings.kafka_port)
    try:
        if broker is not None:
            broker.start()
        kafka = (settings.bootstrap, settings.kafka_security)
        limits = TimeLimits(max_future_ms=settings.max_future_ms)
        create_topics(*kafka, all_topics(settings.partitions, settings.retention_ms))  # the log may be a new one
        log = log_by_partition(settings.state_path / "archive", *kafka, settings.domain_names, limits)
        with counting("events") as count:
            report = rebuild(
                log,
                store,
                fold_settings,
                lambda name, done: count(done, None, name),
                last_offsets(*kafka),
                popularity,
            )
        catalogue = rebuild_catalogue(settings.state_path / "archive", store, *kafka, limits)
    finally:
        store.close()
        if broker is not None:
            broker.stop()
    old = settings.state_path / "feast.old"
    shutil.rmtree(old, ignore_errors=True)
    if current.exists():
        current.rename(old)
    new.rename(current)
    shutil.rmtree(old, ignore_errors=True)
    return dict(msgspec.to_builtins(report)) | {"catalogue": msgspec.to_builtins(catalogue)}
