"""Whether the SQLite file of the online store is whole, and what to do if not."""

import contextlib
import sqlite3
from collections.abc import Collection
from pathlib import Path
from typing import Final

from features.errors import StoreDamagedError, StoreError

CURE: Final = "stop the system and run `coldstream features rebuild`, which writes the store again"


def check_database(path: Path, tables: Collection[str]) -> None:
    """Check that the file is there, is whole page by page, and has `tables`. About 0.1 s per 100 MB.

    Raises:
        StoreDamagedError: naming the file, what is wrong with it, and the cure.
    """
    if not path.exists():
        raise StoreDamagedError(f"the online store {path} is missing; {CURE}")
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            names = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
            missing = sorted(set(tables) - names)
            problem = "" if missing else str(connection.execute("pragma quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        raise store_error(error, path) from error
    if missing:
        raise StoreDamagedError(f"the online store {path} lacks the table {missing[0]} ({len(missing)} in all); {CURE}")
    if problem != "ok":
        raise StoreDamagedError(f"the online store {path} is damaged ({' '.join(problem.split())}); {CURE}")


def store_error(error: sqlite3.Error, path: Path | None = None) -> StoreError:
    """The error of a failed call: with the cure if the file is damaged, else such as a lock that is held for long."""
    store = f"the online store {path}" if path else "the online store"
    damaged = not isinstance(error, sqlite3.OperationalError) or str(error).startswith("no such table")
    if isinstance(error, sqlite3.DatabaseError) and damaged:
        return StoreDamagedError(f"{store} is damaged ({error}); {CURE}")
    return StoreError(f"{store} does not answer: {type(error).__name__}: {error}")


class OpenedFile:
    """The database file as it was opened: a process that has it open does not notice that it was deleted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = _identity(path)

    def check(self) -> None:
        """Raise StoreDamagedError where another file, or none, is at the path by now."""
        identity = _identity(self.path)
        if identity is None:
            raise StoreDamagedError(f"the online store {self.path} was deleted while the system runs; {CURE}")
        if identity != self._opened:
            raise StoreDamagedError(
                f"the online store {self.path} was replaced while the system runs; restart the system, which checks it"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
