"""What consumers last reported of each partition of `events`: whether an event sent now would be applied."""

import time
from collections.abc import Callable
from typing import Final

from serving.messages import FeatureUpdate
from stream.topics import EVENTS

SILENT_S: Final = 15.0
"""Consumers report every two seconds; a restarted one takes a few seconds to do so again."""


class ConsumerReports:
    """The newest update of each partition; `feature-updates` carries them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._newest: dict[str, tuple[float, str]] = {}

    def on_update(self, update: FeatureUpdate) -> None:
        """A consumer wrote features, or reported a position."""
        self._newest[update.partition] = (self._clock(), update.stopped)

    def problem(self, partitions: int) -> str | None:
        """Why an event sent now might not be applied; None where each of `partitions` partitions has a consumer."""
        names = {f"{EVENTS}/{number}" for number in range(partitions)}
        stopped = sorted({why for _, why in self._newest.values() if why})  # of items and users, too
        if stopped:
            return "; ".join(stopped)
        now = self._clock()
        silent = sorted(name for name in names if name not in self._newest or now - self._newest[name][0] > SILENT_S)
        if silent:
            return (
                f"no consumer reports {', '.join(silent)}; start one (`coldstream consumer`), or wait until it is ready"
            )
        return None
