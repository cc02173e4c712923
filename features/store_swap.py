"""A rebuilt SQLite store takes the place of the old one: a whole one is always there, or only needs its last rename."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from stream.files import sync

ASIDE: Final = ".aside"
"""Appended to the store's folder: where a rebuild writes. Not whole, so the next rebuild removes it."""
REBUILT: Final = ".rebuilt"
"""A whole store that has to take the place of the old one."""
OLD: Final = ".old"


def rebuild_folder(folder: Path) -> Path:
    """An empty folder for the new store of `folder`; what a killed rebuild left is removed."""
    for suffix in (ASIDE, REBUILT):
        shutil.rmtree(_named(folder, suffix), ignore_errors=True)
    return _named(folder, ASIDE)


def swap_in(folder: Path) -> None:
    """Replace the store in `folder` by the one in its `rebuild_folder`, which is whole and closed."""
    _named(folder, ASIDE).rename(_named(folder, REBUILT))
    sync(folder.parent)
    shutil.rmtree(_named(folder, OLD), ignore_errors=True)
    if folder.exists():
        folder.rename(_named(folder, OLD))
    finish_swap(folder)
    shutil.rmtree(_named(folder, OLD), ignore_errors=True)


def finish_swap(folder: Path) -> None:
    """Where a rebuild was killed between taking the old store away and putting the new one there: put it there."""
    if not folder.exists():
        with suppress(FileNotFoundError):
            _named(folder, REBUILT).rename(folder)


def _named(folder: Path, suffix: str) -> Path:
    return folder.with_name(folder.name + suffix)
