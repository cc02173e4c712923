"""A user's state as typed features: what other teams' models read from Feast instead of the JSON of `state`."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from features.activity import Activity, FoldSettings
from features.decay import value_at
from stream.events import KINDS

FEATURE_TYPES: Final[Mapping[str, Any]] = {
    "recent_items": list[str],
    "recent_kinds": list[str],
    "recent_times": list[int],
    "kinds": list[str],
    "kind_counts": list[int],
    "kind_sums": list[float],
    "categories": list[str],
    "category_sums": list[float],
    "recent_queries": list[str],
    "unwanted_items": list[str],
    "session_id": str,
    "session_started_at": int,
    "session_events": int,
    "session_ms": int,
    "first_seen": int,
    "last_seen": int,
}
"""The features and the type of each; times are epoch ms.

`recent_*` are columns of one length, oldest first. `kinds` and `categories` are in alphabetical order; each kind has a
count over all time, and each kind and category an exponentially decayed sum as of `last_seen`.
"""

_decoder: Final = msgspec.json.Decoder(Activity)


def decode_states(
    states: Sequence[bytes | None], half_life_ms: int = FoldSettings().half_life_ms
) -> dict[str, list[Any]]:
    """The typed features of users: for each name of `FEATURE_TYPES` one value per state, None for an unknown user."""
    rows = [_features_of(_decoder.decode(state), half_life_ms) if state else {} for state in states]
    return {name: [row.get(name) for row in rows] for name in FEATURE_TYPES}


def _features_of(state: Activity, half_life_ms: int) -> dict[str, Any]:
    recent, summary = state.recent, state.summary
    session = summary.session

    def decayed(sums: Mapping[str, float], names: Sequence[str]) -> list[float]:
        return [value_at(sums.get(name, 0.0), summary.landmark, summary.last_seen, half_life_ms) for name in names]

    kinds, categories = sorted(summary.totals), sorted(summary.categories)
    return {
        "recent_items": recent.items,
        "recent_kinds": [KINDS[code] for code in recent.kinds],
        "recent_times": recent.times,
        "kinds": kinds,
        "kind_counts": [summary.totals[kind] for kind in kinds],
        "kind_sums": decayed(summary.kinds, kinds),
        "categories": categories,
        "category_sums": decayed(summary.categories, categories),
        "recent_queries": summary.queries,
        "unwanted_items": list(state.unwanted),
        "session_id": session.id,
        "session_started_at": session.started_at,
        "session_events": session.events,
        "session_ms": session.last_at - session.started_at,
        "first_seen": summary.first_seen,
        "last_seen": summary.last_seen,
    }
