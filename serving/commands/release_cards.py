"""Cards of releases for people: what a release says of itself, and what changed from one to another."""

import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from models.releases.manifest import Manifest

TIMES: Final = ("created_at", "cutoff_at", "held_out_from")
DATA: Final = ("cutoff_at", "held_out_from", "data", "events", "users", "items")
MADE: Final = ("recommender", "protocol", "parent", "warm_start")

Pair = list[Any]


def differences(one: "Manifest", other: "Manifest") -> dict[str, Any]:
    """What differs, as [one, other]: parameters, metrics and their intervals, the data, how it was made."""
    return {
        "releases": [one.id, other.id],
        "params": _pairs(one.params, other.params),
        "metrics": _pairs(one.metrics, other.metrics),
        "intervals": _pairs(one.intervals, other.intervals),
        "data": _pairs(*({field: getattr(card, field) for field in DATA} for card in (one, other))),
        "made": _pairs(*({field: getattr(card, field) for field in MADE} for card in (one, other))),
    }


def card_lines(told: Mapping[str, Any]) -> Iterator[str]:
    """A card in lines: times in UTC, a metric with its interval."""
    intervals = told.get("intervals", {})
    for name, one in told.items():
        if name == "intervals":
            continue
        if not isinstance(one, dict) or not one:
            yield f"{name:<24} {_said(name, one)}"
            continue
        yield name
        for key, value in one.items():
            said = _figure(value, intervals.get(key)) if name == "metrics" else _said(key, value)
            yield f"  {key:<22} {said}"


def difference_lines(told: Mapping[str, Any], one: "Manifest", other: "Manifest") -> Iterator[str]:
    """What `differences` found in lines; a metric stands with its interval where either differs."""
    yield " -> ".join(told["releases"])
    for name in ("params", "metrics", "data", "made"):
        rows: dict[str, Pair] = told[name]
        if name == "metrics":
            sides = [
                {key: _figure(card.metrics[key], card.intervals.get(key)) for key in card.metrics}
                for card in (one, other)
            ]
            rows = {key: [side.get(key) for side in sides] for key in {**rows, **told["intervals"]}}
        if rows:
            yield name
            yield from (f"  {key:<22} {_said(key, pair[0])} -> {_said(key, pair[1])}" for key, pair in rows.items())
        else:
            yield f"{name:<24} the same"
    yield "items"
    yield from (f"  {key:<22} {_said(key, value)}" for key, value in told["items"].items())


def moment(at: int) -> str:
    """Epoch ms as a time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(at / 1000))


def _pairs(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Pair]:
    both = {key: [one.get(key), other.get(key)] for key in {**one, **other}}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def _figure(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.4f}" + (f" ({interval[0]:.4f} to {interval[1]:.4f})" if interval is not None else "")


def _said(name: str, value: Any) -> str:
    if name in TIMES:
        return moment(value) if value else "not known"
    if value is None or value == "":
        return "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)
