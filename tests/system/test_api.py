"""The HTTP API of a running system, through HTTP."""

import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from testing.system import System
from testing.waiting import wait_until


@pytest.fixture(scope="module")
def client(system: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, timeout=30) as client:
        yield client


def event(user: str, item: str, **more: Any) -> dict[str, Any]:
    now = int(time.time() * 1000)
    start = {"type": "interaction", "event_id": uuid4().hex, "user_id": user, "item_id": item, "kind": "view"}
    return {**start, "at": now, **more}


def send(client: httpx.Client, *events: dict[str, Any]) -> str:
    answer = client.post("/v1/events", json=list(events))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["token"])


def test_an_event_is_in_the_features_right_after_its_token(client: httpx.Client) -> None:
    user = uuid4().hex
    token = send(client, event(user, "a1", kind="purchase", value=2.5), event(user, "a2"))
    answer = client.get(f"/v1/users/{user}/recommendations", params={"after": token})
    assert answer.status_code == 200
    assert set(answer.json()["positions"]) <= {f"events/{number}" for number in range(4)}
    row = client.get(f"/v1/users/{user}/features").json()
    assert row["recent"]["items"] == ["a1", "a2"]
    assert row["recent"]["values"] == [2.5, None]
    assert row["summary"]["totals"] == {"purchase": 1, "view": 1}
    assert row["profile"] is None


def test_the_same_event_twice_counts_once(client: httpx.Client) -> None:
    user = uuid4().hex
    view = event(user, "a1")
    send(client, view)
    token = send(client, view)
    client.get(f"/v1/users/{user}/recommendations", params={"after": token}).raise_for_status()
    row = client.get(f"/v1/users/{user}/features").json()
    assert row["recent"]["items"] == ["a1"]
    assert row["summary"]["totals"] == {"view": 1}


def test_late_events_land_in_their_place_in_time(client: httpx.Client) -> None:
    user, now = uuid4().hex, int(time.time() * 1000)
    token = send(client, event(user, "new", at=now), event(user, "old", at=now - 60_000))
    client.get(f"/v1/users/{user}/recommendations", params={"after": token}).raise_for_status()
    assert client.get(f"/v1/users/{user}/features").json()["recent"]["items"] == ["old", "new"]


def test_good_events_are_kept_and_bad_ones_are_named(client: httpx.Client) -> None:
    user = uuid4().hex
    good, bad = event(user, "a1"), event(user, "a2", kind="levitate")
    answer = client.post("/v1/events", json=[bad, good])
    assert answer.status_code == 202
    assert answer.json()["accepted"] == 1
    (error,) = answer.json()["errors"]
    assert (error["index"], error["reason"]) == (0, "unknown-kind")
    assert "purchase" in error["detail"]


def test_ndjson_is_taken_as_well(client: httpx.Client) -> None:
    user = uuid4().hex
    body = "\n".join(json.dumps(event(user, f"n{number}")) for number in range(3)) + "\n"
    answer = client.post("/v1/events", content=body, headers={"content-type": "application/x-ndjson"})
    assert (answer.status_code, answer.json()["accepted"]) == (202, 3)


NOW = int(time.time() * 1000)
BASE = {"type": "interaction", "event_id": "e", "user_id": "u", "item_id": "i", "kind": "view", "at": NOW}
MALFORMED = [
    (b"", "not-json"),
    (b"[", "not-json"),
    (b'{"type": "interaction", "event_id": "half', "not-json"),
    (b"\xff\xfe{}", "not-utf8"),
    (b"[1, 2]", "bad-field"),
    (json.dumps({**BASE, "type": "wish"}).encode(), "unknown-type"),
    (json.dumps({**BASE, "kind": "levitate"}).encode(), "unknown-kind"),
    (json.dumps({**BASE, "user_id": ""}).encode(), "missing-id"),
    (json.dumps({name: value for name, value in BASE.items() if name != "event_id"}).encode(), "missing-id"),
    (json.dumps({name: value for name, value in BASE.items() if name != "at"}).encode(), "missing-field"),
    (json.dumps({**BASE, "at": "yesterday"}).encode(), "bad-time"),
    (json.dumps({**BASE, "at": NOW // 1000}).encode(), "bad-time"),
    (json.dumps({**BASE, "at": NOW + 86_400_000}).encode(), "bad-time"),
    (json.dumps({**BASE, "value": float("nan")}).encode(), "not-a-number"),
    (json.dumps({**BASE, "value": "much"}).encode(), "bad-field"),
    (json.dumps({**BASE, "context": {"note": "x" * 70_000}}).encode(), "too-large"),
    (json.dumps({**BASE, "domain": "garden"}).encode(), "unknown-domain"),
    (json.dumps({"type": "item", "item_id": "i", "at": NOW}).encode(), "wrong-topic"),
]


@pytest.mark.parametrize(
    ("body", "reason"), MALFORMED, ids=[f"{n}-{reason}" for n, (_, reason) in enumerate(MALFORMED)]
)
def test_what_cannot_be_an_event_is_refused_with_its_reason(client: httpx.Client, body: bytes, reason: str) -> None:
    answer = client.post("/v1/events", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == reason
    assert problem["status"] == 400
    assert problem["detail"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/users/u/recommendations?n=0", 400),
        ("/v1/users/u/recommendations?n=many", 400),
        ("/v1/users/u/recommendations?n=201", 400),
        ("/v1/users/u/recommendations?after=soon", 400),
        ("/v1/users/u/recommendations?domain=garden", 404),
        ("/v1/users/nobody-knows/features", 404),
        ("/v1/items/no-such-item", 404),
        ("/v1/nowhere", 404),
        ("/v1/events", 405),
        ("/v1/users/u/recommendations?after=0:999999999", 400),
    ],
)
def test_a_request_that_cannot_be_answered_is_a_problem(client: httpx.Client, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= set(answer.json())


def test_a_body_beyond_the_limit_is_refused(client: httpx.Client) -> None:
    answer = client.post("/v1/events", content=b"[" + b" " * (33 * 1024 * 1024) + b"]")
    assert answer.status_code == 413


def test_items_come_and_go(client: httpx.Client, system: System) -> None:
    ids = [f"cat-{number}-{uuid4().hex[:6]}" for number in range(3)]
    category = f"kind-{uuid4().hex[:6]}"
    items = [
        {"type": "item", "item_id": item_id, "at": NOW, "title": item_id.upper(), "category": category}
        for item_id in ids
    ]
    token = client.put("/v1/items", json=items).json()["token"]
    user = uuid4().hex
    answer = client.get(f"/v1/users/{user}/recommendations", params={"category": category, "after": token}).json()
    assert {item["item_id"] for item in answer["items"]} == set(ids)
    assert answer["items"][0]["title"] == answer["items"][0]["item_id"].upper()
    token = client.put("/v1/items", json={**items[0], "available": False}).json()["token"]
    answer = client.get(f"/v1/users/{user}/recommendations", params={"category": category, "after": token}).json()
    assert {item["item_id"] for item in answer["items"]} == set(ids[1:])
    wait_until(lambda: client.get(f"/v1/items/{ids[0]}").json().get("available") is False, 60, "the store has the item")


def test_an_unknown_user_gets_what_is_popular_and_one_event_makes_it_personal(client: httpx.Client) -> None:
    mark = uuid4().hex[:6]
    items = [
        {
            "type": "item",
            "item_id": f"p{number}-{mark}",
            "at": NOW,
            "domain": "music",
            "category": f"{mark}-{number % 2}",
        }
        for number in range(6)
    ]
    client.put("/v1/items", json=items).raise_for_status()
    crowd = [event(f"fan{number}-{mark}", f"p0-{mark}", kind="play", domain="music") for number in range(30)]
    send(client, *crowd)

    def popular() -> bool:
        rows = client.get("/v1/popular", params={"domain": "music"}).json()["items"]
        return any(row["item_id"] == f"p0-{mark}" for row in rows)

    wait_until(popular, 60, "plays are popular")
    user = f"new-{mark}"
    before = client.get(f"/v1/users/{user}/recommendations", params={"domain": "music"}).json()
    assert before["reason"] == "popular"
    assert before["items"][0]["reason"] == "popular"
    token = send(client, event(user, f"p1-{mark}", kind="play", domain="music"))
    after = client.get(
        f"/v1/users/{user}/recommendations", params={"domain": "music", "after": token, "explain": True}
    ).json()
    assert after["reason"] == "category"  # no release yet: the first event's category leads
    assert after["items"][0]["category"] == f"{mark}-1"
    assert after["items"][0]["because"][0]["item_id"] == f"p1-{mark}"


def test_a_profile_gives_a_new_user_the_popular_items_of_the_segment(client: httpx.Client) -> None:
    mark = uuid4().hex[:6]
    people = [
        {"type": "user", "user_id": f"s{number}-{mark}", "at": NOW, "domain": "video", "segment": f"seg-{mark}"}
        for number in range(4)
    ]
    token = client.put("/v1/users", json=people).json()["token"]
    client.get("/v1/users/x/recommendations", params={"domain": "video", "after": token}).raise_for_status()
    send(client, *[event(f"s{number}-{mark}", f"film-{mark}", kind="play", domain="video") for number in range(3)])
    other = [event(f"t{number}-{mark}", f"other-{mark}", kind="play", domain="video") for number in range(30)]
    send(client, *other)

    def segment_known() -> bool:
        popular = client.get("/v1/popular", params={"domain": "video", "segment": f"seg-{mark}"}).json()
        return [item["item_id"] for item in popular["items"]] == [f"film-{mark}"]

    wait_until(segment_known, 60, "the segment has its popular item")
    answer = client.get(f"/v1/users/s3-{mark}/recommendations", params={"domain": "video"}).json()
    assert answer["reason"] == "segment"
    assert answer["items"][0]["item_id"] == f"film-{mark}"


def test_an_empty_domain_has_an_answer(client: httpx.Client) -> None:
    answer = client.get("/v1/users/anyone/recommendations", params={"domain": "news"}).json()
    assert (answer["reason"], answer["items"]) == ("empty", [])


def test_an_anonymous_session_is_answered_and_leaves_nothing(client: httpx.Client) -> None:
    mark = uuid4().hex[:6]
    items = [{"type": "item", "item_id": f"v{number}-{mark}", "at": NOW, "category": f"{mark}"} for number in range(3)]
    token = client.put("/v1/items", json=items).json()["token"]
    client.get("/v1/users/x/recommendations", params={"after": token}).raise_for_status()
    visitor = f"visitor-{mark}"
    body = {"events": [event(visitor, f"v0-{mark}")], "n": 2, "exclude_seen": True, "explain": True}
    answer = client.post("/v1/sessions/recommendations", json=body)
    assert answer.status_code == 200
    session = answer.json()
    assert session["user_id"] is None
    assert [item["item_id"] for item in session["items"]] == [f"v1-{mark}", f"v2-{mark}"]
    assert client.get(f"/v1/users/{visitor}/features").status_code == 404
    bad = client.post("/v1/sessions/recommendations", json={"events": [event(visitor, "x", at=5)]})
    assert (bad.status_code, bad.json()["type"]) == (400, "bad-time")
    assert client.post("/v1/sessions/recommendations", json={"events": "none"}).status_code == 400


def test_a_live_stream_brings_a_new_list_when_the_features_change(client: httpx.Client) -> None:
    user = uuid4().hex
    with client.stream("GET", f"/v1/users/{user}/recommendations/stream", params={"n": 5}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lists = (json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:"))
        assert next(lists)["positions"] == {}
        send(client, event(user, "live-1"))
        assert next(lists)["positions"] != {}


def test_hidden_items_never_come_back(client: httpx.Client) -> None:
    mark = uuid4().hex[:6]
    items = [{"type": "item", "item_id": f"h{number}-{mark}", "at": NOW, "category": mark} for number in range(2)]
    client.put("/v1/items", json=items).raise_for_status()
    user = uuid4().hex
    token = send(client, event(user, f"h0-{mark}"), event(user, f"h1-{mark}", kind="dislike"))
    answer = client.get(f"/v1/users/{user}/recommendations", params={"after": token, "category": mark}).json()
    assert [item["item_id"] for item in answer["items"]] == [f"h0-{mark}"]


def test_metrics_health_and_readiness(client: httpx.Client, system: System) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready", "missing": {}}
    client.get("/v1/users/someone/recommendations").raise_for_status()
    text = client.get("/metrics").text
    for name in (
        "coldstream_records_accepted_total",
        "coldstream_lookup_seconds_bucket",
        "coldstream_recommendations_total",
    ):
        assert name in text
    assert set(client.get("/v1/releases").json()) == {"shop", "music", "video", "news"}


def test_the_schema_names_every_route(client: httpx.Client) -> None:
    schema = client.get("/docs/openapi.json").json()
    routes = {(path, verb) for path, verbs in schema["paths"].items() for verb in verbs}
    assert {
        ("/v1/events", "post"),
        ("/v1/items", "put"),
        ("/v1/users", "put"),
        ("/v1/users/{user_id}/recommendations", "get"),
        ("/v1/users/{user_id}/recommendations/stream", "get"),
        ("/v1/users/{user_id}/features", "get"),
        ("/v1/sessions/recommendations", "post"),
        ("/v1/items/{item_id}", "get"),
        ("/v1/items/{item_id}/similar", "get"),
        ("/v1/popular", "get"),
        ("/v1/releases", "get"),
        ("/v1/releases/{release_id}", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    } <= routes
