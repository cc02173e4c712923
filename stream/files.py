"""Files that are always whole, and locks between processes: the one place that replaces files and takes locks.

A reader sees the old file or the new one, never a part of one, even after a crash or a power cut.
"""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from stream.errors import FileError

if TYPE_CHECKING:
    from filelock import BaseFileLock


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to. On success it replaces `path`; on an error it is removed.

    The file reaches the disk before it is renamed. Writers in several processes do not disturb each other: the last one
    to finish wins. Missing parent folders are created; what a killed writer left beside `path` is removed.

    Raises:
        FileError: the file cannot be written. `path` is then unchanged.
    """
    try:
        with _replacing(path) as temporary:
            yield temporary
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror or error}; {free_space(path.parent)}") from error


def free_space(folder: Path) -> str:
    """The cure of a failed write below `folder`, with the space that is left there."""
    with suppress(OSError):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free / 2**20
        return f"{free:,.0f} MiB are free there: free space or give the process access to {folder}, and try again"
    return f"free space or give the process access to {folder}, and try again"


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if not Path("/proc", left.name.split(".")[-2].partition("-")[0]).exists():
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{token_hex(4)}.tmp")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def creating_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill. On success it becomes `path`, which must not exist; else it is removed.

    Its files reach the disk before it is renamed. Only one process at a time may create the same `path`; what a killed
    one left is removed.

    Raises:
        OSError: a file cannot be written, or `path` exists and is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            sync(file)
        sync(temporary)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


def write_atomically(path: Path, content: bytes | str, mode: int | None = None) -> None:
    """Replace `path` with `content`; text is written as UTF-8. Raises FileError, and `path` is then unchanged.

    `mode`: permissions of the file, such as 0o600 for one with a password; None: as the process creates files.
    """
    with replacing(path) as temporary:
        if mode is not None:
            temporary.touch(mode=mode)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for the lock file `path` and hold it: one process at a time runs the block.

    The kernel releases the lock when the process ends, however it ends.
    """
    with _lock(path):
        yield


def try_lock(path: Path) -> "BaseFileLock | None":
    """The held lock on the lock file `path`; None where another process holds it. `release()` gives it back."""
    from filelock import Timeout

    lock = _lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _lock(path: Path) -> "BaseFileLock":
    from filelock import FileLock  # 40 ms to import: not for commands that take no lock

    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path, thread_local=False, fallback_to_soft=False, preserve_lock_file=True)
