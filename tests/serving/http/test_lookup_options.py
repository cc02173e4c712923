"""A look-up's options: the same for the query, the body and the live stream."""

import json
import time
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from serving.http.app import build
from serving.http.problems import Problem
from serving.http.routes.lookup_options import LookupBody, LookupOptions, body_request, lookup_request
from serving.http.service import Service
from serving.recommend.request import LookupRequest
from serving.settings import Settings

PARAMETERS = {
    "n": {"type": "integer", "minimum": 1, "maximum": 200, "default": 20},
    "domain": {"type": "string"},
    "exclude_seen": {"type": "boolean"},
    "category": {"type": "string"},
    "explain": {"type": "boolean", "default": False},
    "diversity": {"type": "number", "maximum": 1},
    "per_category": {"type": "integer", "minimum": 1, "maximum": 200},
    "categories": {"type": "integer", "minimum": 1, "maximum": 200},
    "explore": {"type": "number", "maximum": 0.5},
    "diversify": {"type": "string", "enum": ["mmr", "dpp"], "default": "mmr"},
}
"""Every option, spelled out. Litestar leaves a minimum of 0 out of the schema."""


def flat(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without its descriptions and without `null`."""
    options = [option for option in schema.get("oneOf", []) if option != {"type": "null"}]
    merged = {**schema, **(options[0] if options else {})}
    return {name: merged[name] for name in ("type", "minimum", "maximum", "enum", "default") if name in merged}


@pytest.fixture
def schema(service: Service) -> dict[str, Any]:
    schema: dict[str, Any] = build(service).openapi_schema.to_schema()
    return schema


@pytest.mark.parametrize(("path", "more"), [("", {"after"}), ("/stream", set())])
def test_query_and_stream_have_the_same_described_parameters(schema: dict[str, Any], path: str, more: set[str]) -> None:
    rows = schema["paths"][f"/v1/users/{{user_id}}/recommendations{path}"]["get"]["parameters"]
    query = {row["name"]: row for row in rows if row["in"] == "query"}
    assert set(query) == set(PARAMETERS) | more
    for name, row in query.items():
        assert row["description"], name
        assert not row["required"], name
        if name in PARAMETERS:
            assert flat(row["schema"]) == PARAMETERS[name], name


def test_a_body_has_the_same_options(schema: dict[str, Any]) -> None:
    properties = schema["components"]["schemas"]["LookupBody"]["properties"]
    assert set(properties) == {*PARAMETERS, "candidates", "rules", "after"}
    for name, expected in PARAMETERS.items():
        assert flat(properties[name]) == expected, name


def test_what_is_left_out_is_as_the_settings_say_for_the_domain(service: Service) -> None:
    service.settings = Settings(diversity={"music": 0.4}, per_category=3, explore={"shop": 0.1})
    assert lookup_request(service, LookupOptions()) == LookupRequest("shop", per_category=3, explore=0.1)
    music = lookup_request(service, LookupOptions(domain="music", explore=0.2, diversity=0.0))
    assert music == LookupRequest("music", per_category=3, explore=0.2)


def test_query_and_body_ask_for_the_same(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, LookupRequest]] = []

    async def recommend(user_id: str, request: LookupRequest) -> Any:
        received.append((user_id, request))
        return msgspec.defstruct("Encoded", [("body", bytes)])(b"{}")

    monkeypatch.setattr(service, "recommend", recommend)
    options: dict[str, Any] = {"n": 3, "domain": "music", "exclude_seen": False, "category": "c", "explain": True}
    options |= {"diversity": 0.5, "per_category": 2, "categories": 4, "explore": 0.25, "diversify": "dpp"}
    with TestClient(build(service)) as client:
        path = "/v1/users/u/recommendations"
        query = {name: json.dumps(value).strip('"') for name, value in options.items()}
        assert client.get(path, params=query).status_code == 200
        assert client.post(path, json=options).status_code == 200
    expected = LookupRequest(
        domain="music",
        n=3,
        exclude_seen=False,
        category="c",
        explain=True,
        diversity=0.5,
        per_category=2,
        categories=4,
        explore=0.25,
        diversify="dpp",
    )
    assert received == [("u", expected), ("u", expected)]


def test_candidates_and_rules_come_with_a_body(service: Service) -> None:
    content = b'{"candidates": ["b", "a", "b"], "rules": [{"id": "r", "action": "exclude", "items": ["a"]}]}'
    request = body_request(service, msgspec.json.decode(content, type=LookupBody))
    assert request.candidates == {"a", "b"}
    assert [(rule.id, rule.action, tuple(rule.items)) for rule in request.rules] == [("r", "exclude", ("a",))]


@pytest.mark.parametrize(
    ("rules", "what"),
    [
        ([{"where": {f"a{number}": "x" for number in range(10)}} for _ in range(4)], "40 conditions"),
        ([{"where": {"title": {"in": [f"v{number}" for number in range(900)]}}} for _ in range(3)], "2700 values"),
        ([{"items": [f"i{number}" for number in range(6_000)]} for _ in range(2)], "12000 items"),
    ],
)
def test_rules_that_would_hold_up_others_are_refused(service: Service, rules: list[dict[str, Any]], what: str) -> None:
    content = [{"id": f"r{number}", "action": "exclude", **rule} for number, rule in enumerate(rules)]
    body = msgspec.convert({"rules": content}, LookupBody)
    with pytest.raises(Problem, match=what):
        body_request(service, body)


def test_a_visitor_needs_neither_event_ids_nor_a_user(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    histories: list[list[str]] = []

    async def of_visitor(activity: Any, *_: Any) -> Any:
        histories.append(activity.recent.items)
        return msgspec.defstruct("Encoded", [("body", bytes)])(b"{}")

    monkeypatch.setattr(service.lookups, "of_visitor", of_visitor)
    now = int(time.time() * 1000)
    bare = [{"item_id": "a", "kind": "view", "at": now}, {"item_id": "b", "kind": "cart", "at": now}]
    full = [{"type": "interaction", "event_id": item["item_id"], "user_id": "u", **item} for item in bare]
    with TestClient(build(service)) as client:
        for events in (bare, full):
            assert client.post("/v1/sessions/recommendations", json={"events": events}).status_code == 200
        assert client.post("/v1/sessions/recommendations", json={"events": bare * 251}).status_code == 400
    assert [sorted(history) for history in histories] == [["a", "b"], ["a", "b"]]
