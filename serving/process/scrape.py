"""Metrics of the running processes, read from their endpoints."""

import math
from typing import Final

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from serving.settings import Settings
from stream.addresses import bracketed

PORT_SETTINGS: Final = {
    "api": "api_metrics_port",
    "consumer": "consumer_metrics_port",
    "archive": "archive_metrics_port",
    "trainer": "trainer_metrics_port",
}
"""The setting that names each process's metrics port."""

READ_TIMEOUT_S: Final = 4.0
"""Readiness waits up to three seconds for parts that do not answer."""

Samples = dict[str, list[tuple[dict[str, str], float]]]
"""Label sets and values, by sample name."""


def scrape(settings: Settings, process: str) -> Samples | None:
    """The current metrics of a process; None if it does not answer."""
    text = _get(settings, process, "/metrics")
    if text is None:
        return None
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    return samples


def missing_parts(settings: Settings) -> dict[str, str]:
    """What keeps the API from being ready, with the cure, by part; empty where it is ready or does not answer."""
    text = _get(settings, "api", "/readyz")
    try:
        return dict(msgspec.json.decode(text or b"{}").get("missing", {}))
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError):  # another server listens there
        return {}


def _get(settings: Settings, process: str, path: str) -> str | None:
    url = f"http://{bracketed(settings.host_of(process))}:{getattr(settings, PORT_SETTINGS[process])}{path}"
    try:
        return httpx.get(url, timeout=READ_TIMEOUT_S).text
    except httpx.HTTPError:
        return None


def total(samples: Samples | None, name: str) -> float:
    """The sum of a sample over its label sets; 0 if it is missing."""
    return sum(value for _, value in (samples or {}).get(name, []))


def labeled(samples: Samples | None, name: str, **labels: str) -> float | None:
    """The value of the sample with these labels; None if it is missing or NaN."""
    values = (value for given, value in (samples or {}).get(name, []) if labels.items() <= given.items())
    value = next(values, float("nan"))
    return None if math.isnan(value) else value


def quantile(samples: Samples | None, name: str, q: float, before: Samples | None = None) -> float | None:
    """The q-quantile of a histogram in seconds, rounded up to a bucket edge; counts of `before` are subtracted."""
    counts: dict[float, float] = {}
    for sign, source in ((1, samples), (-1, before)):
        for labels, value in (source or {}).get(f"{name}_bucket", []):
            edge = float(labels["le"])
            counts[edge] = counts.get(edge, 0.0) + sign * value
    edges = sorted(counts)
    if not edges or counts[edges[-1]] <= 0:
        return None
    rank = q * counts[edges[-1]]
    return next(edge for edge in edges if counts[edge] >= rank)
