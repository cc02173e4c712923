"""Which rows of a Redis are the present ones: a rebuild writes a second set, and then switches.

Feast puts the name of a project into each key. Every rebuild has a project of its own, and one key of Redis names the
present one: so the switch is one write, and a rebuild that was killed changed nothing.
"""

import re
import struct
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from features.errors import StoreDamagedError
from features.online_config import online_config
from features.store_calls import raising_store_errors

if TYPE_CHECKING:
    from redis import Redis

PROJECT: Final = "coldstream"
POINTER: Final = "coldstream:rebuild"
"""The key that holds the number of the present rebuild; without it, rows are those of a system never rebuilt."""
DELETED_AT_ONCE: Final = 1_000
STRING: Final = 2
"""Feast's number of the type of every entity's name and value here."""
OUR_PROJECT: Final = re.compile(rb"coldstream(_[0-9]+)?")


def project_of(rebuild: int) -> str:
    """The Feast project of a rebuild; 0: of a system that was never rebuilt."""
    return f"{PROJECT}_{rebuild}" if rebuild else PROJECT


class RedisRows:
    """The rows of all rebuilds in one Redis."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    @classmethod
    def at(cls, store: str) -> "RedisRows":
        """Of the Redis with this URL."""
        from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig

        config = RedisOnlineStoreConfig(**online_config(store))
        return cls(raising_store_errors(lambda: RedisOnlineStore()._get_client(config)))

    def present(self) -> int:
        """The number of the rebuild that wrote the present rows; 0: none. Raises StoreError."""
        value: Any = raising_store_errors(lambda: self._client.get(POINTER))
        try:
            return int(value or 0)
        except ValueError:
            raise StoreDamagedError(f"the key {POINTER} in Redis holds {value!r}, not a number; delete it") from None

    def switch(self, rebuild: int) -> None:
        """Make the rows of a rebuild the present ones. Raises StoreError."""
        raising_store_errors(lambda: self._client.set(POINTER, rebuild))

    def delete_others(self) -> int:
        """Delete the rows of every rebuild but the present one; returns how many. Raises StoreError."""
        keep = project_of(self.present())
        return int(raising_store_errors(lambda: self._delete_others(keep)))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _delete_others(self, keep: str) -> int:
        deleted = 0
        keys = self._client.scan_iter(f"*{PROJECT}*", DELETED_AT_ONCE)
        others = (key for key in keys if _project(key) not in {None, keep})
        while batch := list(islice(others, DELETED_AT_ONCE)):
            with self._client.pipeline(transaction=False) as pipe:
                for key in batch:  # one by one: in a cluster they are on several servers
                    pipe.unlink(key)
                pipe.execute()
            deleted += len(batch)
        return deleted


class OpenedRows:
    """The rows of a Redis as they were opened: a process does not notice by itself that others took their place."""

    def __init__(self, rows: RedisRows, rebuild: int) -> None:
        self._rows = rows
        self._rebuild = rebuild

    def check(self) -> None:
        """Raise StoreDamagedError where other rows are the present ones by now; StoreError where Redis is away."""
        present = self._rows.present()
        if present != self._rebuild:
            raise StoreDamagedError(
                f"the online store was rebuilt while this process runs (rebuild {present}, opened as {self._rebuild}); "
                "restart the system"
            )


def _project(key: bytes) -> str | None:
    """The project of a row's key, where it is one of ours: behind an entity with one name and one text value."""
    try:
        names, kind, length = struct.unpack_from("<3I", key)
        value_kind, value_length = struct.unpack_from("<2I", key, 12 + length)
    except struct.error:
        return None
    project = key[20 + length + value_length :]
    ours = (names, kind, value_kind) == (1, STRING, STRING) and OUR_PROJECT.fullmatch(project)
    return project.decode() if ours else None
