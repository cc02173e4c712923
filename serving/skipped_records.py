"""Records of control topics that a process cannot apply: each is counted, a few are logged."""

import logging
import time
from collections.abc import Callable
from typing import Final

from serving import metrics
from stream.errors import ColdstreamError

LOG_EVERY_S: Final = 60.0


class SkippedRecords:
    """Logs the first record of each topic, then at most one a minute, with the number of those left out."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def skip(self, topic: str, partition: int, offset: int, error: Exception) -> None:
        """Count a record, and say why it is skipped. An error that nobody foresaw is logged with its trace."""
        metrics.records_skipped.labels(topic).inc()
        now = self._clock()
        if now - self._logged_at.get(topic, -LOG_EVERY_S) < LOG_EVERY_S:
            self._left_out[topic] = self._left_out.get(topic, 0) + 1
            return
        self._logged_at[topic] = now
        left_out = self._left_out.pop(topic, 0)
        more = f"; {left_out:,} more of this topic since the last such line" if left_out else ""
        unforeseen = error if not isinstance(error, ColdstreamError) else None
        self._log.warning(
            "skipped offset %d of %s/%d: %s%s", offset, topic, partition, error, more, exc_info=unforeseen
        )
