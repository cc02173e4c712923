"""PATCH: some fields of one record as an update, named by its address."""

import json
import time

import pytest
from litestar.testing import TestClient

from serving.http.patches import update_of
from serving.http.problems import Problem
from stream import topics
from stream.events import Item, User, decode

NOON = 1_760_000_000_000


def test_a_patch_is_an_update_of_the_record_in_the_address() -> None:
    body = b'{"title": null, "attributes": {"brand": "House", "old": null}, "at": 1760000000000}'
    update = decode(update_of(body, topics.ITEMS, "a/b", None, "news"), NOON)
    assert update == Item("a/b", NOON, "news", title=None, attributes={"brand": "House", "old": None})
    before = int(time.time() * 1000)
    user = decode(update_of(b'{"segment": "new", "domain": "shop"}', topics.USERS, "ann", None, "news"), before + 1_000)
    assert isinstance(user, User)
    assert (user.user_id, user.domain, user.segment) == ("ann", "shop", "new")
    assert user.at >= before


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[]", "not a JSON object with the fields to change"),
        (b"", "not a JSON object"),
        (b'{"titel": "x"}', "'titel' does not exist; did you mean title"),
        (b'{"price": 3}', "known: item_id, at, domain, title"),
        (b'{"item_id": "other"}', "item_id='other' contradicts the address, which says 'tea'"),
        (b'{"type": "user"}', "type='user' contradicts the address"),
        (b'{"domain": "news"}', "domain='news' contradicts the address, which says 'shop'"),
    ],
)
def test_a_patch_that_does_not_fit_its_address_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(Problem, match=message):
        update_of(body, topics.ITEMS, "tea", "shop", "shop")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"available": "no"}, "bad-field"),
        ({"at": 5}, "bad-time"),
        ({"attributes": {"published_at": 10**400}}, "bad-field"),
        ({"titel": "x"}, "bad-field"),
    ],
)
def test_a_bad_patch_is_a_problem(client: TestClient, content: dict[str, object], reason: str) -> None:
    answer = client.patch("/v1/items/tea", content=json.dumps(content))
    assert (answer.status_code, answer.json()["type"]) == (400, reason)


def test_the_schema_shows_the_fields_of_a_patch(client: TestClient) -> None:
    paths = client.get("/docs/openapi.json").json()["paths"]
    for path, field in (("/v1/items/{item_id}", "available"), ("/v1/users/{user_id}", "segment")):
        schema = paths[path]["patch"]["requestBody"]["content"]["application/json"]["schema"]
        assert {field, "attributes", "valid_from"} <= set(schema["properties"])


@pytest.mark.parametrize("record_id", ["A/B-7", "..", ".", "a?b#c", "100%"])
@pytest.mark.parametrize(("path", "name"), [("/v1/items", "item_id"), ("/v1/users", "user_id")])
def test_an_id_in_the_query_names_the_record(client: TestClient, path: str, name: str, record_id: str) -> None:
    contradiction = json.dumps({name: "other"})
    answer = client.patch(path, params={name: record_id}, content=contradiction)
    assert (answer.status_code, answer.json()["type"]) == (400, "bad-field")
    assert answer.json()["detail"] == f"{name}='other' contradicts the address, which says {record_id!r}"
