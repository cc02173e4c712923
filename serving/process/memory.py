"""What becomes of memory that a process has freed: taking it from the system anew, page by page, is what costs.

Arrays as long as a catalogue, and batches of a network, are large enough for glibc to give them back to the system as
soon as they are freed. Look-ups and training keep them; the other parts give back what they can. Elsewhere than with
glibc nothing happens; nor where the environment says `MALLOC_…_` itself.

And what has survived a full garbage collection is passed over by the next: looking through a catalogue of 100,000 items
takes tenths of a second, in which nothing else is done.
"""

import ctypes
import gc
import os
from typing import Any, Final

import msgspec

KIB: Final = 2**10
MIB: Final = 2**20


class AllocatorLimits(msgspec.Struct, frozen=True):
    """Bytes: arrays up to which size come from the heap; how much stays there though it is free; and by how much more
    than is asked for the heap of each thread grows, and is left larger than it has to be."""

    heaped: int
    free: int
    spare: int = 128 * KIB


SMALL: Final = AllocatorLimits(128 * KIB, 128 * KIB)
LOOKUPS: Final = AllocatorLimits(16 * MIB, 64 * MIB)
TRAINING: Final = AllocatorLimits(256 * MIB, 1024 * MIB, 64 * MIB)
"""TensorFlow's threads have heaps of their own, which `spare` alone keeps from being given back."""

_NUMBERS: Final = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_TOP_PAD_": -2, "MALLOC_MMAP_THRESHOLD_": -3}
"""Of <malloc.h>, by their names in the environment."""


def configure_allocator(kept: AllocatorLimits) -> None:
    """Set the C library's allocator for this process."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and not _NUMBERS.keys() & os.environ.keys():
        for name, size in allocator_variables(kept).items():
            mallopt(_NUMBERS[name], int(size))


def allocator_variables(kept: AllocatorLimits) -> dict[str, str]:
    """The same for a process that is started: what its environment has to say."""
    return dict(zip(_NUMBERS, map(str, (kept.free, kept.spare, kept.heaped)), strict=True))


def freeze_survivors() -> None:
    """From now on, whatever a full garbage collection leaves is not looked at again, until `unfreeze`.

    What is not in a cycle is freed as ever. For processes that keep much for long, where a pause hurts.
    """
    gc.callbacks.append(_freeze_after_full_collection)


def unfreeze() -> None:
    """Let the next full collection look at everything: what was kept has been replaced."""
    gc.unfreeze()


def _freeze_after_full_collection(phase: str, about: dict[str, Any]) -> None:
    if phase == "stop" and about["generation"] == 2:
        gc.freeze()
