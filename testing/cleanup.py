"""`python cleanup.py FOLDER`: waits for the end of its standard input, then removes FOLDER and ends who uses it.

The process that owns the folder holds the other end of the pipe: when it dies, even by kill -9, the kernel closes it. A
byte on standard input releases the folder: nothing is removed then. Needs nothing beyond the standard library.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

WITHIN_S = 30.0


def main(folder: Path) -> None:
    """Remove the folder once its owner is dead; a folder of a pytest worker takes the emptied run folder along."""
    if sys.stdin.buffer.read(1):
        return
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline and (kill_users(folder) or folder.exists()):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.1)
    run = folder.parent
    if run.name.startswith("pytest-") and [path.name for path in run.iterdir()] in ([], [".lock"]):
        shutil.rmtree(run, ignore_errors=True)


def kill_users(folder: Path) -> int:
    """kill -9 every process whose command line or environment names a path in the folder; how many there were."""
    users = 0
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) != os.getpid() and _uses(process, os.fsencode(folder) + b"/"):
            users += 1
            try:
                os.kill(int(process.name), signal.SIGKILL)
            except ProcessLookupError:
                continue
    return users


def _uses(process: Path, prefix: bytes) -> bool:
    try:
        return any(prefix in (process / name).read_bytes() + b"/" for name in ("cmdline", "environ"))
    except OSError:  # it has ended, or belongs to somebody else
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
