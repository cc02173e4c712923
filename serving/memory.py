"""Memory that a process has freed stays with it: taking it from the system anew, page by page, is what costs.

Arrays as long as a catalogue, and batches of a network, are large enough for glibc to give them back to the system as
soon as they are freed. Elsewhere than with glibc nothing happens; nor where the environment says `MALLOC_…_` itself.
"""

import ctypes
import os
from typing import Final

import msgspec

MIB: Final = 2**20


class Kept(msgspec.Struct, frozen=True):
    """Bytes: arrays up to which size come from the heap; how much stays there though it is free; and by how much more
    than is asked for the heap of each thread grows, and is left larger than it has to be."""

    heaped: int
    free: int
    spare: int = 128 * 1024


LOOKUPS: Final = Kept(16 * MIB, 64 * MIB)
TRAINING: Final = Kept(256 * MIB, 1024 * MIB, 64 * MIB)
"""TensorFlow's threads have heaps of their own, which `spare` alone keeps from being given back."""

_NUMBERS: Final = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_TOP_PAD_": -2, "MALLOC_MMAP_THRESHOLD_": -3}
"""Of <malloc.h>, by their names in the environment."""


def keep(kept: Kept) -> None:
    """Set the C library's allocator for this process."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not _NUMBERS.keys() & os.environ.keys():
        for name, size in environment(kept).items():
            mallopt(_NUMBERS[name], int(size))


def environment(kept: Kept) -> dict[str, str]:
    """The same for a process that is started: what its environment has to say."""
    return dict(zip(_NUMBERS, map(str, (kept.free, kept.spare, kept.heaped)), strict=True))
