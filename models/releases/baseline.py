"""Impression and click counts at the start of a canary: it is judged by what came after them.

<root>/<domain>/baseline.json     written once per trial, by the process that decides
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from features.outcomes import ImpressionCounts, add
from stream.files import write_atomically

FILE: Final = "baseline.json"


class Baseline(msgspec.Struct, frozen=True):
    """The trial's salt, and the counts of every release of its domain when the trial began."""

    salt: str
    counts: dict[str, ImpressionCounts]


def read(root: Path, domain: str) -> Baseline | None:
    """The newest baseline; None if it is missing or unreadable: counting then restarts from a new one."""
    try:
        return msgspec.json.decode((root / domain / FILE).read_bytes(), type=Baseline)
    except (OSError, ValueError, RecursionError):
        return None


def write(root: Path, domain: str, baseline: Baseline) -> None:
    """Replace a domain's baseline."""
    write_atomically(root / domain / FILE, msgspec.json.encode(baseline))


def since(
    baseline: Baseline, counts: Mapping[str, ImpressionCounts], canary: str
) -> tuple[ImpressionCounts, ImpressionCounts]:
    """The counts of the canary and of all other releases (the control) since the baseline."""
    canary_counts, control_counts = ImpressionCounts(), ImpressionCounts()
    for release, total in counts.items():
        increase = add(total, baseline.counts.get(release, ImpressionCounts()), -1)
        if release == canary:
            canary_counts = increase
        else:
            control_counts = add(control_counts, increase)
    return canary_counts, control_counts
