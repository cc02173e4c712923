"""Of which log an archive is: the last record of each partition that stands in it, in `archive/log.json`."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from stream.files import write_atomically
from stream.log_marks import LogMark

FILE: Final = "log.json"

log = logging.getLogger("coldstream.archive")


def read_marks(folder: Path) -> dict[str, LogMark]:
    """The marks of the archive in `folder`, by partition (`events/3`); none for a new or damaged file."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, LogMark])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning("%s cannot be read (%s): whether the log is the one of the archive is not checked now", path, error)
        return {}


def write_marks(folder: Path, marks: Mapping[str, LogMark]) -> None:
    """Replace the marks. Raises FileError."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE, msgspec.json.encode(dict(sorted(marks.items()))))
