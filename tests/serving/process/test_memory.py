"""Freed memory that stays with the process, and survivors that a collection passes over."""

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from serving.process import memory
from serving.process.environment import part_environment
from serving.settings import Settings

ROUNDS = """
import resource, sys, threading
import numpy as np
from serving.process import memory
from serving.process.environment import part_environment
if sys.argv[1] != "nothing":
    memory.configure_allocator(getattr(memory, sys.argv[1]))
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
    return [int(count) for count in done.stdout.split()]


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


def test_no_part_is_told_by_its_environment_what_it_says_itself() -> None:
    variables = part_environment(Settings())
    variables_set = {name for name in variables if name.startswith("MALLOC_")} - os.environ.keys()
    assert not variables_set & memory.allocator_variables(memory.SMALL).keys()


class Node:
    """Something that can stand in a cycle."""

    def __init__(self) -> None:
        self.other: Node | None = None


def cycle() -> weakref.ref[Node]:
    """A cycle that nobody holds: only a collection frees it."""
    node = Node()
    node.other = Node()
    node.other.other = node
    return weakref.ref(node)


@pytest.fixture
def passing_over() -> Iterator[None]:
    """Survivors are passed over, in this test alone."""
    before = list(gc.callbacks)
    memory.freeze_survivors()
    yield
    gc.callbacks[:] = before
    gc.unfreeze()


@pytest.mark.usefixtures("passing_over")
def test_survivors_are_passed_over_and_garbage_is_not() -> None:
    kept = [[number] for number in range(50_000)]
    gc.collect()
    assert gc.get_freeze_count() >= len(kept)
    first = cycle()
    gc.collect()
    assert first() is None


@pytest.mark.usefixtures("passing_over")
def test_a_cycle_that_was_in_use_is_freed_when_everything_is_looked_at_again() -> None:
    held = Node()
    held.other, there = held, weakref.ref(held)
    gc.collect()
    del held
    gc.collect()
    assert there() is not None
    memory.unfreeze()
    gc.collect()
    assert there() is None
