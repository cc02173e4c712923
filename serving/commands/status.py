"""`coldstream status`: read from the metrics endpoints, so it costs a running system nothing."""

import fcntl
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from serving.settings import Settings

PARTS: Final = {
    "api": "port",
    "consumer": "consumer_metrics_port",
    "archive": "archive_metrics_port",
    "trainer": "trainer_metrics_port",
}
NEEDED: Final = ("api", "consumer", "archive")
"""What a system cannot do without."""
Samples = dict[str, list[tuple[dict[str, str], float]]]


def is_up(settings: Settings) -> bool:
    """Whether a supervisor holds the state folder."""
    lock = settings.state_path / "up.lock"
    if not lock.exists():
        return False
    with lock.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def scrape(settings: Settings, part: str) -> Samples | None:
    """A part's metrics by sample name, or None where it does not answer."""
    url = f"http://{settings.host}:{getattr(settings, PARTS[part])}/metrics"
    try:
        text = httpx.get(url, timeout=2).text
    except httpx.HTTPError:
        return None
    samples: Samples = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            samples.setdefault(one.name, []).append((one.labels, one.value))
    return samples


def total(samples: Samples | None, name: str) -> float:
    """The sum of a sample over its labels; 0 where there is none."""
    return sum(value for _, value in (samples or {}).get(name, []))


def quantile(samples: Samples | None, name: str, q: float, before: Samples | None = None) -> float | None:
    """The q-quantile of a histogram in seconds (an upper bound: its bucket's edge), since `before` where given."""
    counts: dict[float, float] = {}
    for sign, source in ((1, samples), (-1, before)):
        for labels, value in (source or {}).get(f"{name}_bucket", []):
            edge = float(labels["le"])
            counts[edge] = counts.get(edge, 0.0) + sign * value
    edges = sorted(counts)
    if not edges or counts[edges[-1]] <= 0:
        return None
    wanted = q * counts[edges[-1]]
    return next(edge for edge in edges if counts[edge] >= wanted)


def report(settings: Settings) -> dict[str, Any]:
    """What runs and how it stands."""
    found = {part: scrape(settings, part) for part in PARTS}
    consumer, api = found["consumer"], found["api"]
    serving = {
        labels["domain"]: labels["release"] for labels, value in (api or {}).get("coldstream_release", []) if value
    }
    return {
        "supervised": is_up(settings),
        **{part: "up" if samples is not None else "not answering" for part, samples in found.items()},
        "events": int(total(consumer, "coldstream_events_total")),
        "lag": int(total(consumer, "coldstream_consumer_lag")),
        "dead letters": int(total(consumer, "coldstream_dead_letters_total")),
        "event to feature p50 s": quantile(consumer, "coldstream_event_to_feature_seconds", 0.5),
        "event to feature p99 s": quantile(consumer, "coldstream_event_to_feature_seconds", 0.99),
        "archived rows": int(total(found["archive"], "coldstream_archived_rows_total")),
        "serving": serving,
        "answers": int(total(api, "coldstream_answers_total")),
    }
