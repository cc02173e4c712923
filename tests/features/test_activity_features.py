"""Typed features of a user through Feast's own reader, over states that the fold wrote."""

from pathlib import Path
from typing import Any

import pytest

from features.activity import Activity, FoldSettings, LoggedEvent, apply
from features.activity_features import FEATURE_TYPES, decode_states
from features.store import OnlineStore, open_store
from stream.events import Event, Interaction, Search

NOON = 1_760_000_000_000
MINUTE = 60_000
HALF_LIFE = FoldSettings().half_life_ms


def view(item: str, at: int, category: str | None = None, kind: str = "view") -> Interaction:
    return Interaction(
        event_id=f"{item}@{at}", user_id="ann", item_id=item, kind=kind, at=at, category=category, session_id="s1"
    )


def state(*events: Event) -> Activity:
    return apply(None, [LoggedEvent(event, "events/0", n) for n, event in enumerate(events)], FoldSettings())


ANN = state(
    view("tea", NOON - HALF_LIFE, "drinks"),
    view("cup", NOON, "kitchen", "purchase"),
    view("pot", NOON + MINUTE, "kitchen"),
    view("mug", NOON + 2 * MINUTE, kind="dislike"),
    Search(event_id="q", user_id="ann", query="green tea", at=NOON + 3 * MINUTE, session_id="s1"),
)


@pytest.fixture
def store(tmp_path: Path) -> OnlineStore:
    opened = open_store(tmp_path / "feast", "sqlite", ["shop"])
    opened.write_activities({("shop", "ann"): ANN})
    return opened


def read(store: OnlineStore, users: list[str], features: Any) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = store.feast.get_online_features(
        features, [{"user_id": user} for user in users]
    ).to_dict()
    return rows


def test_a_written_state_is_read_as_typed_features(store: OnlineStore) -> None:
    rows = read(store, ["ann", "nobody"], [f"shop_activity_features:{name}" for name in FEATURE_TYPES])
    assert {name: values[0] for name, values in rows.items() if not name.endswith("_sums")} == {
        "user_id": "ann",
        "recent_items": ["tea", "cup", "pot", "mug"],
        "recent_kinds": ["view", "purchase", "view", "dislike"],
        "recent_times": [NOON - HALF_LIFE, NOON, NOON + MINUTE, NOON + 2 * MINUTE],
        "kinds": ["dislike", "purchase", "search", "view"],
        "kind_counts": [1, 1, 1, 2],
        "categories": ["drinks", "kitchen"],
        "recent_queries": ["green tea"],
        "unwanted_items": ["mug"],
        "session_id": "s1",
        "session_started_at": NOON - HALF_LIFE,
        "session_events": 5,
        "session_ms": HALF_LIFE + 3 * MINUTE,
        "first_seen": NOON - HALF_LIFE,
        "last_seen": NOON + 3 * MINUTE,
    }
    assert rows["kind_sums"][0] == pytest.approx([1, 1, 1, 1.5], rel=1e-3)
    assert rows["category_sums"][0] == pytest.approx([0.5, 2], rel=1e-3)
    assert {name: values[1] for name, values in rows.items()} == {"user_id": "nobody", **dict.fromkeys(FEATURE_TYPES)}


def test_the_service_of_a_domain_lists_the_typed_features(store: OnlineStore) -> None:
    rows = read(store, ["ann"], store.feast.get_feature_service("shop"))
    assert {"state", "record", *FEATURE_TYPES} <= set(rows)
    assert rows["last_seen"] == [NOON + 3 * MINUTE]


def test_a_user_with_a_state_and_no_events_has_empty_features() -> None:
    rows = decode_states([b"{}"])
    assert (rows["recent_items"], rows["kinds"], rows["last_seen"], rows["session_id"]) == ([[]], [[]], [0], [None])


def test_a_second_process_reads_the_view_from_the_registry(store: OnlineStore, tmp_path: Path) -> None:
    other = open_store(tmp_path / "feast", "sqlite", ["shop"])
    assert read(other, ["ann"], ["shop_activity_features:recent_items"])["recent_items"] == [
        ["tea", "cup", "pot", "mug"]
    ]


def test_the_registry_holds_source_text_and_no_pickle(store: OnlineStore) -> None:
    (stored,) = store.feast.registry.proto().on_demand_feature_views
    function = stored.spec.feature_transformation.user_defined_function
    assert (function.body, "decode_states(" in function.body_text) == (b"", True)
