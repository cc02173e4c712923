"""All features rebuilt from archive and event log next to the present ones, which they then replace."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from serving.commands.stopped_system import no_members, stopped_system
from serving.settings import Settings
from stream.errors import ColdstreamError

if TYPE_CHECKING:
    from features.new_epoch import EpochReport
    from features.store import OnlineStore

Kafka = tuple[str, Mapping[str, str]]
STORE_FOLDER: Final = "feast"


def rebuild_features(settings: Settings) -> dict[str, Any]:
    """Rebuild the online store from the archive, and from the log behind it; returns the figures of the run.

    If the log is not the one that was read before, a new epoch begins first: what the archive holds stays. A rebuild
    that ends early changes nothing in the present store; the next one starts again.

    Raises:
        ColdstreamError: the system runs, or the store does not answer.
    """
    from features.online_config import SQLITE

    if settings.store != SQLITE:
        _check_archive(settings)
    with stopped_system(settings) as kafka:
        epoch = _epoch_if_needed(settings, kafka)
        figures = (_sqlite if settings.store == SQLITE else _redis)(settings, kafka)
    return figures | ({} if epoch is None else {"new epoch": epoch.epoch})


def _sqlite(settings: Settings, kafka: Kafka) -> dict[str, Any]:
    """Into a folder of its own, which is then renamed."""
    from features.store import open_store
    from features.store_swap import rebuild_folder, swap_in

    folder = settings.state_path / STORE_FOLDER
    store = open_store(rebuild_folder(folder), settings.store, settings.domain_names)
    try:
        figures = _rebuild(settings, kafka, store)
    finally:
        store.close()
    no_members(kafka)
    swap_in(folder)
    return figures


def _redis(settings: Settings, kafka: Kafka) -> dict[str, Any]:
    """Into rows of another Feast project of the same Redis, to which one write then switches."""
    from features.redis_rows import RedisRows
    from features.store import open_store

    rows = RedisRows.at(settings.store)
    try:
        rows.delete_others()  # of a rebuild that ended early
        rebuild = rows.present() + 1
        store = open_store(settings.state_path / STORE_FOLDER, settings.store, settings.domain_names, rebuild)
        figures = _rebuild(settings, kafka, store)
        no_members(kafka)
        rows.switch(rebuild)
        return figures | {"old rows deleted": rows.delete_others()}
    finally:
        rows.close()


def _check_archive(settings: Settings) -> None:
    """With Redis, a command may run where the archive is not, and would rebuild from what the log still has."""
    folder = settings.state_path / "archive"
    if not folder.exists():
        raise ColdstreamError(
            f"{folder} does not exist: run this command where the archive process keeps its files (or create the "
            "folder, if there is no archive: then the features are rebuilt from what the log still has)"
        )


def _epoch_if_needed(settings: Settings, kafka: Kafka) -> "EpochReport | None":
    """Begin a new epoch if the log went back. The store that is replaced may be missing or damaged."""
    from features.errors import StoreError
    from features.new_epoch import log_problem, start_epoch
    from features.online_config import SQLITE
    from features.store import open_store

    archive, folder = settings.state_path / "archive", settings.state_path / STORE_FOLDER
    store = None
    try:
        if folder.exists() or settings.store != SQLITE:
            store = open_store(folder, settings.store, settings.domain_names)
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
