"""A parameter that a route does not have is refused with the nearest one."""

import pytest
from litestar.testing import TestClient

RECOMMENDATIONS = "/v1/users/u/recommendations"


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        (f"{RECOMMENDATIONS}?diversty=0.5", "'diversty' does not exist; did you mean 'diversity'?"),
        (f"{RECOMMENDATIONS}/stream?after=0:1", "'after' does not exist"),
        ("/v1/popular?segmnt=a&n=3", "did you mean 'segment'? this route takes category, domain, n, segment"),
        ("/v1/items/i/similar?N=3", "'N' does not exist"),
        ("/v1/releases?domain=shop", "'domain' does not exist; this route takes no query parameters"),
        ("/v1/popular?user_id=u", "'user_id' does not exist"),
        ("/v1/popular?=", "'' does not exist"),
    ],
)
def test_an_unknown_parameter_is_refused(client: TestClient, path: str, hint: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["type"]) == (400, "unknown-parameter")
    assert hint in answer.json()["detail"]


def test_a_body_does_not_excuse_the_query(client: TestClient) -> None:
    for method, path in (("POST", RECOMMENDATIONS), ("POST", "/v1/events"), ("PUT", "/v1/rules/r")):
        answer = client.request(method, f"{path}?dryrun=1", content=b"{}", headers={"content-type": "application/json"})
        assert answer.json()["type"] == "unknown-parameter", path


def test_known_parameters_and_other_pages_are_untouched(client: TestClient) -> None:
    for path in ("/v1/popular?n=3&domain=shop", "/v1/items/similar?item_id=i&n=3", "/docs?x=1", "/healthz?x=1"):
        assert client.get(path).status_code == 200, path
