"""Whether calls of the online store succeed, judged by those of the last half minute."""

import threading
import time
from collections.abc import Callable
from typing import Final

from features.errors import StoreDamagedError, StoreError
from serving import metrics

WINDOW_S: Final = 30.0
MAX_ERROR_SHARE: Final = 0.05
"""More failed calls than this share of a window: the store is unavailable, not only busy for a moment."""
MIN_ERRORS: Final = 3


class StoreHealth:
    """Counts calls and errors; `problem` is why the process is not ready. Safe to use from several threads.

    A single call that meets damage is a problem at once, since the same row fails again. After a window without such
    an error the store counts as healthy again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._window_began = clock()
        self._calls = self._errors = 0
        self._calls_before = self._errors_before = 0
        self._last_error = ""
        self._damage = ""
        self._damaged_at = 0.0

    def count_calls(self, calls: int = 1) -> None:
        """Calls that succeeded."""
        with self._lock:
            self._turn_window()
            self._calls += calls

    def count_error(self, error: StoreError, operation: str) -> None:
        """A call that failed; also counted in the metric of `operation`."""
        metrics.store_errors.labels(operation).inc()
        with self._lock:
            self._turn_window()
            self._calls += 1
            self._errors += 1
            self._last_error = str(error)
            if isinstance(error, StoreDamagedError):
                self._damage, self._damaged_at = str(error), self._clock()

    @property
    def problem(self) -> str:
        """What is wrong with the store, and the cure; empty where calls succeed."""
        with self._lock:
            self._turn_window()
            if self._damage and self._clock() - self._damaged_at <= WINDOW_S:
                return self._damage
            self._damage = ""
            calls, errors = self._calls + self._calls_before, self._errors + self._errors_before
            if errors < MIN_ERRORS or errors <= MAX_ERROR_SHARE * calls:
                return ""
            return f"{errors} of {calls} calls of the last {WINDOW_S:g} s failed: {self._last_error}"

    def _turn_window(self) -> None:
        """Half of the window is full, half is being filled."""
        halves = int((self._clock() - self._window_began) // (WINDOW_S / 2))
        if halves:
            self._calls_before, self._errors_before = (self._calls, self._errors) if halves == 1 else (0, 0)
            self._calls = self._errors = 0
            self._window_began += halves * WINDOW_S / 2
