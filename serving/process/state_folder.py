"""The state folder: which format its files have, and whether a system runs on it."""

from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from serving.errors import StateFolderError
from serving.settings import Settings
from stream.files import try_lock, write_atomically

FORMAT: Final = 5
"""Raised by every change that makes the files of earlier versions unreadable."""
FORMAT_FILE: Final = "format.json"
LOCK_FILE: Final = "up.lock"
CREATED_BY_A_START: Final = (LOCK_FILE, "kafka", "feast")
"""One of these shows that a system was started on the folder; releases and archive may be put there before."""


class StateFormat(msgspec.Struct, frozen=True):
    """The content of `format.json`: the format of all files in the state folder, and the version that created it."""

    format: int
    created_by: str = ""


def prepare_state_folder(folder: Path) -> None:
    """Create the state folder and its `format.json` at the first start; check the format at every later one.

    Raises:
        StateFolderError: the folder was written in another format.
    """
    check_state_folder(folder)
    if not (folder / FORMAT_FILE).exists():
        content = StateFormat(FORMAT, f"coldstream {version('coldstream')}")
        write_atomically(folder / FORMAT_FILE, msgspec.json.encode(content))


def check_state_folder(folder: Path) -> None:
    """Check the format of a state folder, which need not exist yet.

    Raises:
        StateFolderError: the folder was written in another format.
    """
    format_number = format_of(folder)
    if format_number not in {None, FORMAT}:
        cure = f"move it away (mv {folder} {folder}.old), start again, and import your events again"
        if format_number is not None and format_number > FORMAT:
            cure = "use the version of Coldstream that wrote it, or choose another folder with --state"
        raise StateFolderError(
            f"{folder} has format {format_number}; this version of Coldstream reads and writes format {FORMAT}; {cure}"
        )


def format_of(folder: Path) -> int | None:
    """The format of a state folder; 1, which had no `format.json`, if it was started on; None before its first start.

    Raises:
        StateFolderError: `format.json` cannot be read.
    """
    file = folder / FORMAT_FILE
    try:
        return msgspec.json.decode(file.read_bytes(), type=StateFormat).format
    except FileNotFoundError:
        return 1 if any((folder / name).exists() for name in CREATED_BY_A_START) else None
    except (OSError, msgspec.DecodeError) as error:
        raise StateFolderError(f"{file} cannot be read: {error}; restore it, or move {folder} away") from None


def is_running(settings: Settings) -> bool:
    """Whether a supervisor runs a system on the state folder."""
    if not (settings.state_path / LOCK_FILE).exists():
        return False
    lock = try_lock(settings.state_path / LOCK_FILE)
    if lock is not None:
        lock.release()
    return lock is None
