"""Ids with any character reach their route, in the path or in the query, and never another id's."""

from typing import Any
from urllib.parse import quote

import pytest
from litestar.testing import TestClient

from features.activity import Activity
from serving.http.service import Service

IDS = [
    *("shop/42", "a/features", "/", "//", "a//b", "a/", "/a", "100%", "a%2Fb", "a?b", "a#b", "a+b", "a b", " a "),
    *(
        "a&b=c",
        "a;b",
        "a\\b",
        "a\nb",
        "\x1b[2J",
        "\x1bs",
        "\x1be/",
        "\x00",
        "ümlaut/ß",
        "\U0001f600/\u202e",
        "{user_id}",
    ),
    *("x" * 256, "ä/" * 100, "features", "recommendations", "{user_id}", "*", "~", "..a", "\ufffd"),
]


@pytest.fixture
def read(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The users whose features are read."""
    users: list[str] = []

    async def activity(_: str, user_id: str) -> Activity:
        users.append(user_id)
        return Activity()

    async def call(_: Any) -> None:
        return None

    monkeypatch.setattr(service, "activity", activity)
    monkeypatch.setattr(service.lookups, "call", call)
    return users


@pytest.mark.parametrize("user_id", IDS)
def test_an_id_is_the_same_in_path_and_query(client: TestClient, read: list[str], user_id: str) -> None:
    encoded = quote(user_id, safe="")
    in_path = client.get(f"/v1/users/{encoded}/features")
    in_query = client.get(f"/v1/users/features?user_id={encoded}&domain=shop")
    assert (in_path.status_code, in_query.status_code) == (200, 200)
    assert in_path.json()["user_id"] == in_query.json()["user_id"] == user_id
    assert read == [user_id, user_id]


@pytest.mark.parametrize("user_id", [".", "..", "a/../b", "+"])
def test_a_path_that_clients_shorten_goes_into_the_query(client: TestClient, read: list[str], user_id: str) -> None:
    assert client.get("/v1/users/features", params={"user_id": user_id}).json()["user_id"] == user_id


@pytest.mark.parametrize(
    ("target", "status", "type_"),
    [
        ("/v1/users/h1%2Ffeatures", 405, "about:blank"),
        ("/v1/users/%FF/features", 400, "not-utf8"),
        ("/v1/users/a%ED%A0%80/features", 400, "not-utf8"),
        ("/v1/users/features?user_id=%FF", 400, "not-utf8"),
        ("/v1/users/features?user_id=", 400, "missing-id"),
        ("/v1/users/features?user_id=a&user_id=b", 400, "missing-id"),
    ],
)
def test_no_other_id_answers(client: TestClient, read: list[str], target: str, status: int, type_: str) -> None:
    answer = client.get(target)
    assert (answer.status_code, answer.json()["type"]) == (status, type_)
    assert read == []


def test_items_take_both_forms(client: TestClient) -> None:
    for target in ("/v1/items/A%2FB-7/similar", "/v1/items/similar?item_id=A%2FB-7&n=3"):
        answer = client.get(target)
        assert (answer.status_code, answer.json()["item_id"]) == (200, "A/B-7")
    assert "'similar'" in client.get("/v1/items/similar").json()["detail"]


def test_head_answers_like_get_without_a_body(client: TestClient) -> None:
    for path in ("/healthz", "/v1/popular", "/v1/nowhere", "/", "/docs/openapi.json"):
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["content-length"] == get.headers["content-length"]
    stream = client.head("/v1/users/u/recommendations/stream")
    assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


def test_the_start_page_links_to_what_there_is(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for path in ("/docs", "/docs/openapi.json", "/readyz", "/v1/releases", "/metrics"):
        assert f'href="{path}"' in page.text
    for path in ("/assets/swagger-ui-bundle.js", "/assets/swagger-ui.css", "/assets/favicon-32x32.png"):
        assert client.get(path).status_code == 200
    assert client.get("/assets/..%2f__init__.py").status_code == 404
