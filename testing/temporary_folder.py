"""Temporary folders that are gone after the process that made them, even after its kill -9."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testing import cleanup


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A new folder that is removed when the block ends; see `removed_if_killed`."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    with removed_if_killed(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def removed_if_killed(folder: Path) -> Iterator[None]:
    """Where this process dies within the block, `folder` is removed and every process that uses it is ended (Linux)."""
    if sys.platform != "linux":
        yield
        return
    command = [sys.executable, "-S", "-E", cleanup.__file__, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as watcher:
        try:
            yield
        finally:
            watcher.communicate(b"released")
