"""Releases for people: one as a card, several as a list, and the differences between two."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from models.releases.manifest import Manifest

TIMES: Final = ("created_at", "cutoff_at", "held_out_from")
SHOWN_ITEMS: Final = 10
DATA: Final = ("cutoff_at", "held_out_from", "data", "events", "users", "items")
TRAINING: Final = ("recommender", "protocol", "parent", "warm_start")

Pair = list[Any]


def differences(before: "Manifest", after: "Manifest") -> dict[str, Any]:
    """The values that differ, as [before, after]: hyperparameters, metrics and intervals, data, training."""
    return {
        "releases": [before.id, after.id],
        "params": _pairs(before.params, after.params),
        "metrics": _pairs(before.metrics, after.metrics),
        "intervals": _pairs(before.intervals, after.intervals),
        "data": _pairs(*({field: getattr(card, field) for field in DATA} for card in (before, after))),
        "made": _pairs(*({field: getattr(card, field) for field in TRAINING} for card in (before, after))),
    }


def item_differences(before: Path, after: Path) -> dict[str, Any]:
    """How the item lists of two releases differ; both are folders.

    Raises:
        ReleaseError: an item list cannot be read.
    """
    from models.releases import release_store

    old, new = release_store.item_ids(before), release_store.item_ids(after)
    old_ids, new_ids = set(old), set(new)
    gained, lost = [item for item in new if item not in old_ids], [item for item in old if item not in new_ids]
    return {
        "kept": len(old_ids & new_ids),
        "gained": len(gained),
        "lost": len(lost),
        "most popular gained": gained[:SHOWN_ITEMS],
        "most popular lost": lost[:SHOWN_ITEMS],
    }


def list_lines(releases: Iterable[Any]) -> Iterator[str]:
    """A line for each release: its state, recommender, and metrics or the reason of its refusal."""
    for release in releases:
        metrics = [pair for pair in release.metrics.items() if pair[0].startswith(("ndcg", "hr"))]
        measured = ", ".join(f"{metric} {value:.4f}" for metric, value in metrics)
        reason = f"{release.reason}: {release.detail}" if release.detail else release.reason
        yield f"{release.id} {release.state:<8} {release.recommender:<9} {reason or measured}"


def card_lines(card: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a card: times in UTC, metrics with their intervals."""
    intervals = card.get("intervals", {})
    for name, field in card.items():
        if name == "intervals":
            continue
        if not isinstance(field, dict) or not field:
            yield f"{name:<24} {_text(name, field)}"
            continue
        yield name
        for key, value in field.items():
            text = _metric(value, intervals.get(key)) if name == "metrics" else _text(key, value)
            yield f"  {key:<22} {text}"


def difference_lines(changes: Mapping[str, Any], before: "Manifest", after: "Manifest") -> Iterator[str]:
    """The lines of `differences`; a metric is shown with its interval if either of them differs."""
    yield " -> ".join(changes["releases"])
    for name in ("params", "metrics", "data", "made"):
        rows: dict[str, Pair] = changes[name]
        if name == "metrics":
            sides = [
                {key: _metric(card.metrics[key], card.intervals.get(key)) for key in card.metrics}
                for card in (before, after)
            ]
            rows = {key: [side.get(key) for side in sides] for key in {**rows, **changes["intervals"]}}
        if rows:
            yield name
            yield from (f"  {key:<22} {_text(key, pair[0])} -> {_text(key, pair[1])}" for key, pair in rows.items())
        else:
            yield f"{name:<24} the same"
    yield "items"
    yield from (f"  {key:<22} {_text(key, value)}" for key, value in changes["items"].items())


def utc(at: int) -> str:
    """Epoch ms as a time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at / 1000))


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Pair]:
    both = {key: [before.get(key), after.get(key)] for key in {**before, **after}}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def _metric(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval is not None else "")


def _text(name: str, value: Any) -> str:
    if name in TIMES:
        return utc(value) if value else "not known"
    if value is None or value == "":
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)
