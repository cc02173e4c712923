"""Metrics live in the memory of the process that counts them, never in files.

prometheus_client keeps them in memory-mapped files where the variable PROMETHEUS_MULTIPROC_DIR is set, for servers that
fork; a full disk below that folder then kills a process with SIGBUS. Feast sets the variable, and creates a folder,
whenever it is imported. Each process here has one registry of its own, so there is nothing to share.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

FEAST_VARIABLES: Final = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")
"""Feast creates no folder where the first one is set, and sets the second one to the same folder."""


def keep_in_memory() -> None:
    """Metrics that are created from now on keep their values in memory, whatever the environment says."""
    values: Any = import_module("prometheus_client.values")
    values.ValueClass = values.MutexValue


@contextmanager
def without_feast_folder() -> Iterator[None]:
    """Feast that is imported in this block creates no folder of metrics; the environment stays as it is."""
    keep_in_memory()
    before = {name: os.environ.get(name) for name in FEAST_VARIABLES}
    os.environ[FEAST_VARIABLES[0]] = os.devnull
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
