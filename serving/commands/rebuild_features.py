"""All features rebuilt from archive and event log into a new store, which then replaces the old one."""

import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from serving.commands.stopped_system import stopped_system
from serving.settings import Settings
from stream.errors import ColdstreamError

if TYPE_CHECKING:
    from features.new_epoch import EpochReport
    from features.store import OnlineStore

Kafka = tuple[str, Mapping[str, str]]


def rebuild_features(settings: Settings) -> dict[str, Any]:
    """Rebuild the SQLite store from the archive, and from the log behind it; returns the figures of the run.

    If the log is not the one that was read before, a new epoch begins first: what the archive holds stays.

    Raises:
        ColdstreamError: the system runs, or the store is Redis: there, empty the database, and the consumer reads the
            log again.
    """
    from features.online_config import SQLITE
    from features.store import open_store

    if settings.store != SQLITE:
        raise ColdstreamError(
            "the store is Redis: run FLUSHDB and start the consumer, which then reads the log from the start"
        )
    new, current = settings.state_path / "feast.aside", settings.state_path / "feast"
    with stopped_system(settings) as kafka:
        epoch = _epoch_if_needed(settings, kafka)
        shutil.rmtree(new, ignore_errors=True)
        store = open_store(new, SQLITE, settings.domain_names)
        try:
            figures = _rebuild(settings, kafka, store)
        finally:
            store.close()
    old = settings.state_path / "feast.old"
    shutil.rmtree(old, ignore_errors=True)
    if current.exists():
        current.rename(old)
    new.rename(current)
    shutil.rmtree(old, ignore_errors=True)
    return figures | ({} if epoch is None else {"new epoch": epoch.epoch})


def _epoch_if_needed(settings: Settings, kafka: Kafka) -> "EpochReport | None":
    """Begin a new epoch if the log went back. The store that is replaced may be missing or damaged."""
    from features.errors import StoreError
    from features.new_epoch import log_problem, start_epoch
    from features.store import open_store

    archive, folder = settings.state_path / "archive", settings.state_path / "feast"
    store = None
    try:
        store = open_store(folder, settings.store, settings.domain_names) if folder.exists() else None
        return start_epoch(archive, store, kafka) if log_problem(archive, store, kafka) else None
    except StoreError:
        return start_epoch(archive, None, kafka) if log_problem(archive, None, kafka) else None
    finally:
        if store is not None:
            store.close()


def _rebuild(settings: Settings, kafka: Kafka, store: "OnlineStore") -> dict[str, Any]:
    from features.activity import FoldSettings
    from features.catalogue_rebuild import rebuild_catalogue
    from features.event_log import last_positions
    from features.new_epoch import current_marks
    from features.rebuild import log_by_partition, rebuild
    from serving.commands.progress import counting
    from serving.domain_presets import popularity_settings
    from stream.events import TimeLimits

    archive, limits = settings.state_path / "archive", TimeLimits(max_future_ms=settings.max_future_ms)
    fold_settings = FoldSettings(history_length=settings.history_length, late_ms=settings.late_ms)
    log = log_by_partition(archive, *kafka, settings.domain_names, limits)
    with counting("events") as count:
        report = rebuild(
            log,
            store,
            fold_settings,
            lambda name, done: count(done, None, name),
            last_positions(*kafka),
            popularity_settings(settings),
        )
    catalogue = rebuild_catalogue(archive, store, *kafka, limits)
    store.write_log_marks(current_marks(kafka))
    return dict(msgspec.to_builtins(report)) | {"catalogue": msgspec.to_builtins(catalogue)}
