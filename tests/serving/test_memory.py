"""Freed memory that stays with the process."""

import os
import subprocess
import sys

import pytest

ROUNDS = """
import resource, sys, threading
import numpy as np
from serving import memory
if sys.argv[1] != "nothing":
    memory.keep(getattr(memory, sys.argv[1]))
def work():
    for _ in range(50):
        np.ones(int(sys.argv[2]) * 2**20, np.uint8)
def faults(where):
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    where()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def thread():
    one = threading.Thread(target=work)
    one.start()
    one.join()
print(faults(work), faults(thread))
"""


def faults(kept: str, mebibytes: int, **environment: str) -> list[int]:
    """Pages taken by fifty arrays of so many mebibytes, one after another, once there were fifty: here and in a
    thread."""
    command = [sys.executable, "-c", ROUNDS, kept, str(mebibytes)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return [int(one) for one in done.stdout.split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again() -> None:
    pages = 40 * 256
    assert faults("nothing", 40)[0] > pages
    here, thread = faults("TRAINING", 40)
    assert here < pages
    assert thread < pages
    assert faults("LOOKUPS", 8)[0] < 8 * 256


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_what_the_environment_says_holds() -> None:
    assert faults("TRAINING", 40, MALLOC_MMAP_THRESHOLD_="131072")[0] > 40 * 256
