"""Allocator and garbage collector settings of a process.

glibc returns large freed blocks, such as arrays over a catalogue and training batches, to the system at once; getting
them back, page by page, is slow. Look-ups and training keep freed memory; the other processes return what they can.
Without glibc, or if the environment sets `MALLOC_..._` variables, this does nothing.

Objects that survive a full garbage collection are frozen: scanning a catalogue of 100,000 items again would pause the
process for tenths of a second.
"""

import ctypes
import gc
import os
from typing import Any, Final

import msgspec

KIB: Final = 2**10
MIB: Final = 2**20


class AllocatorLimits(msgspec.Struct, frozen=True):
    """In bytes. `heaped`: the largest block that comes from the heap (M_MMAP_THRESHOLD); `free`: free memory that the
    heap keeps (M_TRIM_THRESHOLD); `spare`: extra memory each time a thread's heap grows or shrinks (M_TOP_PAD)."""

    heaped: int
    free: int
    spare: int = 128 * KIB


SMALL: Final = AllocatorLimits(128 * KIB, 128 * KIB)
LOOKUPS: Final = AllocatorLimits(16 * MIB, 64 * MIB)
TRAINING: Final = AllocatorLimits(256 * MIB, 1024 * MIB, 64 * MIB)
"""TensorFlow's threads have their own heaps; only `spare` keeps their memory from being returned."""

_MALLOPT_CODES: Final = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_TOP_PAD_": -2, "MALLOC_MMAP_THRESHOLD_": -3}
"""Parameter codes of <malloc.h>, by environment variable."""


def configure_allocator(limits: AllocatorLimits) -> None:
    """Set the C library's allocator for this process."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not _MALLOPT_CODES.keys() & os.environ.keys():
        for name, size in allocator_variables(limits).items():
            mallopt(_MALLOPT_CODES[name], int(size))


def allocator_variables(limits: AllocatorLimits) -> dict[str, str]:
    """The same settings as environment variables, for a child process."""
    return dict(zip(_MALLOPT_CODES, map(str, (limits.free, limits.spare, limits.heaped)), strict=True))


def freeze_survivors() -> None:
    """After each full garbage collection, exclude the survivors from later ones, until `unfreeze`.

    Reference counting still frees objects that are not in a cycle. For processes with much long-lived data.
    """
    gc.callbacks.append(_freeze_after_full_collection)


def unfreeze() -> None:
    """Include everything in the next full collection: for use after long-lived data were replaced."""
    gc.unfreeze()


def _freeze_after_full_collection(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()
