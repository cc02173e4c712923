"""The environment variables of child processes: the one place that decides them.

A child gets its parent's variables, the settings as `COLDSTREAM_*`, and what its libraries read when they start.
"""

import json
import os
from typing import Final

from serving.settings import PREFIX, Settings
from stream.child_process import SAFE_PATH

PART_DEFAULTS: Final = {
    "MALLOC_ARENA_MAX": "2",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""For parts that share the cores: few heaps, and one thread per matrix product. The parent's variables override these;
each part sets its own malloc thresholds (`serving.process.memory`)."""

QUIET_PART: Final = {"PYTHONWARNINGS": "ignore", "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}


def settings_variables(settings: Settings) -> dict[str, str]:
    """Every setting that has a value, as a variable that `serving.settings.read` reads back."""
    values = {name: getattr(settings, name) for name in settings.__struct_fields__}
    return {
        f"{PREFIX}{name.upper()}": json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in values.items()
        if value is not None
    }


def part_environment(settings: Settings) -> dict[str, str]:
    """For a part of a system, started by the supervisor."""
    return {**PART_DEFAULTS, **os.environ, **SAFE_PATH, **QUIET_PART, **settings_variables(settings)}


def training_environment(settings: Settings) -> dict[str, str]:
    """For a training run or a drift check, started by the trainer: TensorFlow uses half of the cores and one more."""
    threads = max(1, (os.cpu_count() or 2) // 2 + 1)
    tensorflow = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_NUM_INTRAOP_THREADS": str(threads)}
    return {**os.environ, **SAFE_PATH, **tensorflow, **settings_variables(settings)}


def apply_part_defaults() -> None:
    """Give this process the defaults of a part; before NumPy or Arrow is imported."""
    for name, value in PART_DEFAULTS.items():
        os.environ.setdefault(name, value)
