"""Quantiles of a histogram over the last minutes: counts since the process started hide what happens now."""

import threading
from collections import deque
from typing import Final

from prometheus_client import Gauge, Histogram

from serving.process.scrape import Samples, quantile

EVERY_S: Final = 5.0
WINDOW_S: Final = 5 * 60.0
QUANTILES: Final = (0.5, 0.99)


class RecentQuantiles:
    """Snapshots of a histogram's buckets over a window, and the quantiles between the oldest and the newest."""

    def __init__(self, histogram: Histogram, gauge: Gauge, snapshots: int = round(WINDOW_S / EVERY_S)) -> None:
        self.histogram = histogram
        self.gauge = gauge
        self._name = next(iter(histogram.describe())).name
        self._snapshots: deque[Samples] = deque([self._samples()], maxlen=snapshots + 1)

    def update(self) -> None:
        """Take a snapshot and set the gauge, by label `quantile`; NaN without an observation in the window."""
        self._snapshots.append(self._samples())
        for q in QUANTILES:
            value = quantile(self._snapshots[-1], self._name, q, self._snapshots[0])
            self.gauge.labels(str(q)).set(float("nan") if value is None else value)

    def _samples(self) -> Samples:
        family = next(iter(self.histogram.collect()))
        buckets = [(sample.labels, sample.value) for sample in family.samples if sample.name.endswith("_bucket")]
        return {f"{self._name}_bucket": buckets}


def keep_recent(histogram: Histogram, gauge: Gauge) -> threading.Event:
    """Update the gauge every five seconds, in a thread that ends with the process or once the event is set."""
    stop, recent = threading.Event(), RecentQuantiles(histogram, gauge)

    def run() -> None:
        while not stop.wait(EVERY_S):
            recent.update()

    threading.Thread(target=run, name="recent-quantiles", daemon=True).start()
    return stop
