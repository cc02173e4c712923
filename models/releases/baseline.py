"""Where the counts of lists stood when a canary began: what came since is what it is judged by.

<root>/<domain>/baseline.json     written once a trial, by the process that decides
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from features.outcomes import ImpressionCounts, add

FILE: Final = "baseline.json"


class Baseline(msgspec.Struct, frozen=True):
    """The trial's salt, and the counts of every release of its domain at that moment."""

    salt: str
    counts: dict[str, ImpressionCounts]


def read(root: Path, domain: str) -> Baseline | None:
    """The newest baseline; None where there is none, or none that can be read: a new one then begins the count anew."""
    try:
        return msgspec.json.decode((root / domain / FILE).read_bytes(), type=Baseline)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def write(root: Path, domain: str, baseline: Baseline) -> None:
    """Put a baseline in place at once."""
    aside = root / domain / f"{FILE}.aside"
    with aside.open("wb") as file:
        file.write(msgspec.json.encode(baseline))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(root / domain / FILE)


def since(
    baseline: Baseline, counts: Mapping[str, ImpressionCounts], canary: str
) -> tuple[ImpressionCounts, ImpressionCounts]:
    """The counts of the canary and of everything else (the control) since the baseline."""
    ours, theirs = ImpressionCounts(), ImpressionCounts()
    for release, found in counts.items():
        fresh = add(found, baseline.counts.get(release, ImpressionCounts()), -1)
        if release == canary:
            ours = fresh
        else:
            theirs = add(theirs, fresh)
    return ours, theirs
