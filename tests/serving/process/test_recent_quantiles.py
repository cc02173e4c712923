"""Quantiles of the last minutes."""

import math

from prometheus_client import CollectorRegistry, Gauge, Histogram

from serving.process.recent_quantiles import RecentQuantiles


def test_what_is_older_than_the_window_does_not_count() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("wait_seconds", "", buckets=(0.01, 0.1, 1), registry=registry)
    gauge = Gauge("wait_recent_seconds", "", ["quantile"], registry=registry)
    recent = RecentQuantiles(histogram, gauge, snapshots=2)

    def values() -> list[float]:
        recent.update()
        return [gauge.labels(q)._value.get() for q in ("0.5", "0.99")]

    assert all(math.isnan(value) for value in values())
    for seconds in (0.005, 0.005, 0.5):
        histogram.observe(seconds)
    assert values() == [0.01, 1]
    histogram.observe(0.05)
    assert values() == [0.01, 1]  # the window holds two updates: all four
    assert values() == [0.1, 0.1]  # now only the last one
    assert all(math.isnan(value) for value in values())
