"""The Feast online store: typed rows in, typed rows out, over SQLite or Redis.

Writes pass ready protos to Feast's `online_write_batch`, reads call Feast's `online_read`. The DataFrame API (`push`,
`get_online_features`) works as well and costs about ten times as much (docs/decisions/0003-wide-features.md).
"""

import sqlite3
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import msgspec.yaml

from features.unchecked import unchecked
from stream.metric_values import without_feast_folder

# Feast turns on deprecation warnings for the whole process, others' too.
with warnings.catch_warnings(), unchecked(), without_feast_folder():
    from feast import FeatureStore, FeatureView
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    from features.definitions import ACTIVITY_FEATURES, definitions

from features.activity import Activity
from features.catalogue import CatalogueEntry, ItemRow, ProfileRow, UserProfile
from features.database_check import CURE, OpenedFile, check_database
from features.errors import FeatureError, StoreDamagedError
from features.online_config import SQLITE, has_secret, online_config
from features.popularity import PartitionPopularity
from features.redis_rows import PROJECT, OpenedRows, RedisRows, project_of
from features.store_calls import raising_store_errors
from features.store_swap import finish_swap
from stream.files import exclusive, write_atomically
from stream.log_marks import LogMark

REPOSITORY: Final = "feature_store.yaml"
LOCK: Final = "registry.lock"
DATABASE: Final = "online.db"
READ_CHUNK: Final = 32  # larger ones are slower: protos of a chunk live at once
BUSY_MS: Final = 2_000

UserKey = tuple[str, str]
"""(domain, user_id)"""
RecordKey = tuple[str, str]
"""(domain, id of the item or user)"""
T = TypeVar("T")

_state = msgspec.json.Decoder(Activity)
_popularity = msgspec.json.Decoder(PartitionPopularity)
_entry = msgspec.json.Decoder(CatalogueEntry)
_profile = msgspec.json.Decoder(UserProfile)
_item_row = msgspec.json.Decoder(ItemRow)
_profile_row = msgspec.json.Decoder(ProfileRow)
_mark = msgspec.json.Decoder(LogMark)
_encode = msgspec.json.Encoder().encode


class OnlineStore:
    """Activities, profiles, items and popularity rows. Every method may raise StoreError: wait and try again."""

    def __init__(self, feast: FeatureStore, domains: Sequence[str], opened: OpenedFile | OpenedRows) -> None:
        self.feast = feast
        self.opened = opened
        self.domains = tuple(domains)
        self._config = feast.config
        self._online: Any = feast._get_provider().online_store
        self._views: dict[str, FeatureView] = {view.name: view for view in feast.list_feature_views()}

    def write_activities(self, rows: Mapping[UserKey, Activity]) -> dict[UserKey, bytes]:
        """Write users' states, one batch per domain; returns the bytes written, for `decode_activity`."""
        written = {key: _encode(row) for key, row in rows.items()}
        by_domain: dict[str, list[tuple[str, bytes]]] = {}
        for (domain, user_id), state in written.items():
            by_domain.setdefault(domain, []).append((user_id, state))
        for domain, batch in by_domain.items():
            states = ((user_id, {"state": Value(bytes_val=state)}) for user_id, state in batch)
            self._write(f"{domain}_activity", "user_id", states)
        return written

    def read_activities(self, keys: Iterable[UserKey]) -> dict[UserKey, Activity]:
        """The states of those users who have one."""
        states: dict[UserKey, Activity] = {}
        for domain, users in _by_domain(keys).items():
            rows = self._read(f"{domain}_activity", "user_id", users, list(ACTIVITY_FEATURES))
            user = ""
            try:
                for user, row in rows.items():
                    states[domain, user] = _state.decode(row["state"].bytes_val)
            except ValueError as error:  # msgspec's errors and UnicodeDecodeError
                raise _damaged_row(f"{domain}_activity", user, error) from error
        return states

    def read_activity(self, domain: str, user_id: str) -> Activity | None:
        """One user's state, or None."""
        return self.read_activities([(domain, user_id)]).get((domain, user_id))

    def write_profiles(self, rows: Iterable[ProfileRow]) -> None:
        """Write users' profiles, one batch per domain."""
        self._write_records("profile", "user_id", ((row.domain, row.user_id, row) for row in rows))

    def read_profiles(self, keys: Iterable[RecordKey]) -> dict[RecordKey, UserProfile]:
        """The profiles of those users who have one."""
        return self._read_records("profile", "user_id", keys, _profile.decode)

    def read_profile_rows(self, keys: Iterable[RecordKey]) -> dict[RecordKey, ProfileRow]:
        """The profiles with the clocks of their fields."""
        return self._read_records("profile", "user_id", keys, _profile_row.decode)

    def read_profile(self, domain: str, user_id: str) -> UserProfile | None:
        """One user's profile, or None."""
        return self.read_profiles([(domain, user_id)]).get((domain, user_id))

    def write_items(self, rows: Iterable[ItemRow]) -> None:
        """Write catalogue entries, one batch per domain."""
        self._write_records("item", "item_id", ((row.domain, row.item_id, row) for row in rows))

    def read_items(self, keys: Iterable[RecordKey]) -> dict[RecordKey, CatalogueEntry]:
        """Those catalogue entries that exist."""
        return self._read_records("item", "item_id", keys, _entry.decode)

    def read_item_rows(self, keys: Iterable[RecordKey]) -> dict[RecordKey, ItemRow]:
        """The catalogue entries with the clocks of their fields."""
        return self._read_records("item", "item_id", keys, _item_row.decode)

    def read_item(self, domain: str, item_id: str) -> CatalogueEntry | None:
        """One catalogue entry, or None."""
        return self.read_items([(domain, item_id)]).get((domain, item_id))

    def write_popularity(self, rows: Mapping[str, PartitionPopularity]) -> None:
        """Write partitions' popularity rows, by partition (`events/3`)."""
        self._write(
            "popularity", "partition", [(key, {"row": Value(bytes_val=_encode(row))}) for key, row in rows.items()]
        )

    def read_popularity(self, partitions: Sequence[str]) -> dict[str, PartitionPopularity]:
        """The partitions' popularity rows. Those of an earlier format are left out: they are counted again."""
        rows = self._read("popularity", "partition", partitions, ["row"])
        by_partition: dict[str, PartitionPopularity] = {}
        for key, row in rows.items():
            try:
                by_partition[key] = _popularity.decode(row["row"].bytes_val)
            except msgspec.ValidationError:
                continue
            except ValueError as error:
                raise _damaged_row("popularity", key, error) from error
        return by_partition

    def write_positions(self, positions: Mapping[str, int]) -> None:
        """Write how far items and profiles contain each partition of their updates (`items/0`): the last offset."""
        rows = [(name, {"offset": Value(int64_val=offset)}) for name, offset in positions.items()]
        self._write("positions", "partition", rows)

    def read_positions(self, partitions: Sequence[str]) -> dict[str, int]:
        """How far items and profiles contain those partitions of their updates that are known."""
        rows = self._read("positions", "partition", partitions, ["offset"])
        return {name: row["offset"].int64_val for name, row in rows.items()}

    def write_log_marks(self, marks: Mapping[str, LogMark]) -> None:
        """Write of which log the rows are, by partition (`events/3`)."""
        self._write(
            "log_marks", "partition", [(name, {"mark": Value(bytes_val=_encode(mark))}) for name, mark in marks.items()]
        )

    def read_log_marks(self, partitions: Sequence[str]) -> dict[str, LogMark]:
        """Of which log the rows are, for those partitions that have a mark."""
        rows = self._read("log_marks", "partition", partitions, ["mark"])
        return {name: _mark.decode(row["mark"].bytes_val) for name, row in rows.items()}

    def delete_profiles(self, keys: Iterable[RecordKey]) -> None:
        """Overwrite the profiles of users who have one with empty ones: Feast cannot delete one key in every store."""
        for domain, user_id in self.read_profiles(keys):
            self._write(f"{domain}_profile", "user_id", [(user_id, {"record": Value(string_val="")})])

    def ping(self) -> None:
        """Raises StoreError unless the store responds, from the file or the rows that are the present ones."""
        self.opened.check()
        self._read("popularity", "partition", ["ping"], ["row"])

    def close(self) -> None:
        """Close connections and files."""
        connection = getattr(self._online, "_conn", None)
        if connection is not None:
            connection.close()
            self._online._conn = None

    def _write_records(self, view: str, key: str, rows: Iterable[tuple[str, str, ItemRow | ProfileRow]]) -> None:
        by_domain: dict[str, list[tuple[str, dict[str, Value]]]] = {}
        for domain, identity, row in rows:
            value = Value(string_val=_encode(row).decode())
            by_domain.setdefault(domain, []).append((identity, {"record": value}))
        for domain, batch in by_domain.items():
            self._write(f"{domain}_{view}", key, batch)

    def _read_records(
        self, view: str, key: str, keys: Iterable[RecordKey], decode: Callable[[str], T]
    ) -> dict[RecordKey, T]:
        records: dict[RecordKey, T] = {}
        for domain, identities in _by_domain(keys).items():
            rows = self._read(f"{domain}_{view}", key, identities, ["record"])
            contents = {identity: row["record"].string_val for identity, row in rows.items()}
            for identity, content in contents.items():
                if content:
                    records[domain, identity] = _decoded(decode, content, f"{domain}_{view}", identity)
        return records

    def _write(self, view: str, key: str, rows: Iterable[tuple[str, dict[str, Value]]]) -> None:
        """One batch, one transaction. Protos are made while Feast iterates: a tenth of the memory, half the time."""
        now = datetime.now(UTC)
        table = self._view(view)
        data = ((_entity(key, identity), values, now, now) for identity, values in rows)
        raising_store_errors(lambda: self._online.online_write_batch(self._config, table, data, None))

    def _read(self, view: str, key: str, identities: Sequence[str], features: list[str]) -> dict[str, dict[str, Value]]:
        table = self._view(view)
        read: dict[str, dict[str, Value]] = {}
        for start in range(0, len(identities), READ_CHUNK):
            chunk = identities[start : start + READ_CHUNK]
            keys = [_entity(key, identity) for identity in chunk]
            rows = raising_store_errors(partial(self._online.online_read, self._config, table, keys, features))
            read |= {identity: row for identity, (_, row) in zip(chunk, rows, strict=True) if row and _whole(row)}
        return read

    def _view(self, name: str) -> FeatureView:
        view = self._views.get(name)
        if view is None:
            raise FeatureError(f"no feature view {name}; the domains of this system are {', '.join(self.domains)}")
        return view


def decode_activity(state: bytes) -> Activity:
    """A user's state from the bytes that the store holds."""
    return _state.decode(state)


def open_store(folder: Path, store: str, domains: Sequence[str], rebuild: int | None = None) -> OnlineStore:
    """The online store of a system: `folder` keeps the registry and, for `sqlite`, the rows.

    `store` is `sqlite` or the URL of a Redis (`features.online_config`); `rebuild`: rows of that rebuild in Redis
    instead of the present ones. Opening is safe while another process opens the same folder.

    Raises:
        StoreError: the store does not answer, or its database is missing or damaged.
        FeatureError: `store` is neither of the two, or asks for what Feast's store cannot do.
    """
    opened = _open_sqlite(folder, domains) if store == SQLITE else _open_redis(folder, store, domains, rebuild)
    opened.ping()
    return opened


def _open_sqlite(folder: Path, domains: Sequence[str]) -> OnlineStore:
    finish_swap(folder)
    with exclusive(folder / LOCK):
        feast = _feast(folder, PROJECT, online_config(SQLITE))
        views = [view.name for view in feast.list_feature_views()]
        if views:
            check_database(folder / DATABASE, {f"{PROJECT}_{view}" for view in views})
        raising_store_errors(lambda: _write_ahead(folder / DATABASE))
        applied = _applied(feast, domains)
    opened = OnlineStore(feast, applied, OpenedFile(folder / DATABASE))
    connection = opened._online._get_conn(feast.config)
    connection.execute("pragma synchronous=normal")
    connection.execute(f"pragma busy_timeout={BUSY_MS}")
    return opened


def _open_redis(folder: Path, store: str, domains: Sequence[str], rebuild: int | None) -> OnlineStore:
    config = online_config(store)
    rows = RedisRows.at(store)
    present = rows.present()
    with exclusive(folder / LOCK):
        feast = _feast(folder, project_of(present if rebuild is None else rebuild), config)
        applied = _applied(feast, domains)
    return OnlineStore(feast, applied, OpenedRows(rows, present))


def _feast(folder: Path, project: str, online_store: Mapping[str, Any]) -> FeatureStore:
    repository = _repository(project, online_store)
    if not (folder / REPOSITORY).exists() or (folder / REPOSITORY).read_bytes() != repository:
        write_atomically(folder / REPOSITORY, repository, mode=0o600 if has_secret(online_store) else None)
    return FeatureStore(repo_path=str(folder))


def _applied(feast: FeatureStore, domains: Sequence[str]) -> list[str]:
    """Add missing definitions of `domains` to the registry; returns every domain that it then has."""
    names = {view.name for view in [*feast.list_feature_views(), *feast.list_on_demand_feature_views()]}
    earlier = {name.removesuffix("_activity") for name in names if name.endswith("_activity")}
    all_domains = sorted(earlier | set(domains))
    if not {"log_marks", *(f"{domain}_activity_features" for domain in all_domains)} <= names:
        with warnings.catch_warnings():  # Feast calls on-demand views experimental
            warnings.simplefilter("ignore", RuntimeWarning)
            raising_store_errors(lambda: feast.apply(definitions(all_domains)))
    return all_domains


def _repository(project: str, online_store: Mapping[str, Any]) -> bytes:
    """The content of `feature_store.yaml`: how this package, the `feast` command and its UI open the store.

    Paths are relative to the file, so that the folder can be moved.
    """
    settings = {
        "project": project,
        "provider": "local",
        "registry": "registry.db",
        "online_store": online_store,
        "offline_store": {"type": "dask"},
        "entity_key_serialization_version": 3,
    }
    return b"# Written by the processes of the system: changes here are lost.\n" + msgspec.yaml.encode(settings)


def _write_ahead(path: Path) -> None:
    """Switch the file to WAL, once: one writer and many readers then do not block each other."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("pragma journal_mode=wal")
    finally:
        connection.close()


def _decoded(decode: Callable[[str], T], content: str, view: str, identity: str) -> T:
    try:
        return decode(content)
    except ValueError as error:  # msgspec's errors and UnicodeDecodeError
        raise _damaged_row(view, identity, error) from error


def _damaged_row(view: str, identity: str, error: Exception) -> StoreDamagedError:
    return StoreDamagedError(f"the row of {identity!r} in {view} is damaged ({error}); {CURE}")


def _by_domain(keys: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    by_domain: dict[str, list[str]] = {}
    for domain, identity in keys:
        by_domain.setdefault(domain, []).append(identity)
    return by_domain


def _entity(key: str, identity: str) -> EntityKey:
    return EntityKey(join_keys=[key], entity_values=[Value(string_val=identity)])


def _whole(row: Mapping[str, Value]) -> bool:
    return all(value.WhichOneof("val") is not None for value in row.values())
