"""Every refusal and failure is a problem (RFC 9457): its body, its status and its headers."""

import json
import logging
from typing import Any

import pytest
from litestar.testing import TestClient

from serving.http.service import Service

RECOMMENDATIONS = "/v1/users/u/recommendations"
DOMAINS = "shop, music, video, news"


def body(status: int, title: str, type_: str, detail: str) -> dict[str, Any]:
    return {"status": status, "title": title, "type": type_, "detail": detail}


def test_a_refusal_has_a_type_for_programs_and_a_sentence_for_people(client: TestClient) -> None:
    answer = client.get(RECOMMENDATIONS, params={"domain": "garden"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == body(404, "Not found", "unknown-domain", f"domain='garden' is not one of {DOMAINS}")


@pytest.mark.parametrize("path", [RECOMMENDATIONS, f"{RECOMMENDATIONS}/stream", "/v1/popular", "/v1/items/i/similar"])
@pytest.mark.parametrize(
    ("n", "message"),
    [("0", "Expected `int` >= 1"), ("201", "Expected `int` <= 200"), ("many", "Expected `int`, got `str`")],
)
def test_a_parameter_that_does_not_fit_is_named(client: TestClient, path: str, n: str, message: str) -> None:
    answer = client.get(path, params={"n": n})
    expected = body(400, "Bad request", "about:blank", f"Validation failed for GET {path}?n={n}")
    assert answer.json() == expected | {"errors": [{"message": message, "key": "n", "source": "query"}]}
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("content", "errors"),
    [
        ('{"n": 0}', [{"message": "Expected `int` >= 1", "key": "n", "source": "body"}]),
        ('{"wish": 1}', [{"message": "Object contains unknown field `wish`", "key": "data", "source": "body"}]),
    ],
)
def test_a_body_that_does_not_fit_is_explained(client: TestClient, content: str, errors: list[dict[str, str]]) -> None:
    answer = client.post(RECOMMENDATIONS, content=content, headers={"content-type": "application/json"})
    expected = body(400, "Bad request", "about:blank", f"Validation failed for POST {RECOMMENDATIONS}")
    assert answer.json() == expected | {"errors": errors}


def test_each_refused_record_has_its_reason(client: TestClient) -> None:
    answer = client.post("/v1/events", content="[1, 2]", headers={"content-type": "application/json"})
    detail = "Expected `object`, got `int`"
    errors = [{"index": index, "reason": "bad-field", "detail": detail} for index in (0, 1)]
    assert answer.json() == body(400, "Bad request", "bad-field", detail) | {"errors": errors, "refused": 2}


@pytest.mark.parametrize(
    ("method", "path", "status", "title", "detail"),
    [
        ("GET", "/v1/nowhere", 404, "Not found", "Not Found"),
        ("GET", "/v1/events", 405, "Method not allowed", "Method Not Allowed"),
    ],
)
def test_the_framework_refuses_in_the_same_form(
    client: TestClient, method: str, path: str, status: int, title: str, detail: str
) -> None:
    answer = client.request(method, path)
    assert answer.json() == body(status, title, "about:blank", detail)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_store_or_broker_that_is_away_asks_for_a_retry(client: TestClient) -> None:
    store = client.get(RECOMMENDATIONS)
    broker = client.put("/v1/rules/r", content='{"action": "exclude", "items": ["a"]}')
    for answer, cause in ((store, "store"), (broker, "producer")):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert cause in problem.pop("detail")
        assert problem == {"status": 503, "title": "Unavailable", "type": "unavailable"}


def test_an_unexpected_error_is_logged_with_its_request_and_says_nothing_of_itself(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("inner secret")

    monkeypatch.setattr(service, "recommend", fail)
    with caplog.at_level(logging.ERROR, "coldstream.api"):
        answer = client.get(RECOMMENDATIONS)
    problem = answer.json()
    request_id = problem.pop("request_id")
    detail = f"unexpected error; the log of the API has the details of request {request_id}"
    assert problem == body(500, "Internal error", "about:blank", detail)
    assert "inner secret" not in json.dumps(dict(answer.headers))
    (record,) = caplog.records
    assert record.getMessage() == f"GET {RECOMMENDATIONS}: unexpected error, request {request_id}"
    assert "inner secret" in caplog.text


def test_no_expected_error_is_logged(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "coldstream.api"):
        client.get(RECOMMENDATIONS)
        client.get(RECOMMENDATIONS, params={"n": 0})
        client.get("/v1/nowhere")
    assert caplog.records == []
