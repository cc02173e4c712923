"""Bodies as they come: compressed, with a byte order mark, as lines, and always bounded."""

import gzip
import zlib
from typing import Any

import pyarrow
import pytest
from litestar.testing import TestClient

from serving.http import bodies
from serving.http.service import Service
from serving.recommend.request import LookupRequest
from stream.events import Record
from stream.producer import Position

JSON = {"content-type": "application/json"}
EVENT = (
    b'{"type":"interaction","event_id":"e%d","user_id":"u","item_id":"i","kind":"view","at":1790000000000,'
    b'"context":{"page":7}}'
)


class Log:
    """Where accepted records go in these tests."""

    def __init__(self) -> None:
        self.batches: list[list[Record]] = []

    async def send_many(self, records: list[Record]) -> list[Position]:
        self.batches.append(list(records))
        return [Position(0, number) for number, _ in enumerate(records)]

    @property
    def event_ids(self) -> list[str]:
        return [record.event_id for batch in self.batches for record in batch if hasattr(record, "event_id")]


@pytest.fixture
def log(service: Service, monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    monkeypatch.setattr(service, "producer", log)
    monkeypatch.setattr("serving.http.ingest.time.time", lambda: 1_790_000_000.0)
    return log


def compressed(body: bytes, encoding: str) -> bytes:
    if encoding == "zstd":
        return bytes(pyarrow.compress(body, "zstd", asbytes=True))
    return gzip.compress(body) if encoding == "gzip" else zlib.compress(body)


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate", "GZIP"])
def test_a_compressed_body_is_read(client: TestClient, log: Log, encoding: str) -> None:
    body = b"[" + b",".join(EVENT % number for number in range(50)) + b"]"
    answer = client.post(
        "/v1/events", content=compressed(body, encoding.lower()), headers=JSON | {"content-encoding": encoding}
    )
    assert (answer.status_code, answer.json()["accepted"]) == (202, 50)
    assert log.event_ids == [f"e{number}" for number in range(50)]


def test_the_members_of_a_gzip_file_are_one_body(client: TestClient, log: Log) -> None:
    body = gzip.compress(EVENT % 1 + b"\n") + gzip.compress(EVENT % 2)
    headers = {"content-type": "application/x-ndjson", "content-encoding": "gzip"}
    assert client.post("/v1/events", content=body, headers=headers).json()["accepted"] == 2


@pytest.mark.parametrize(
    ("body", "encoding", "status", "type_"),
    [
        (b"plain", "gzip", 400, "bad-encoding"),
        (b"plain", "zstd", 400, "bad-encoding"),
        (gzip.compress(EVENT % 1)[:-9], "gzip", 400, "bad-encoding"),
        (compressed(EVENT % 1, "zstd")[:-5], "zstd", 400, "bad-encoding"),
        (EVENT % 1, "br", 415, "unknown-encoding"),
        (compressed(b" " * (bodies.MAX_BODY_BYTES + 1), "gzip"), "gzip", 413, "too-large"),
        (compressed(b" " * (bodies.MAX_BODY_BYTES + 1), "zstd"), "zstd", 413, "too-large"),
    ],
    ids=["not-gzip", "not-zstd", "cut-gzip", "cut-zstd", "other-encoding", "gzip-bomb", "zstd-bomb"],
)
def test_a_body_that_does_not_fit_its_encoding_is_refused(
    client: TestClient, body: bytes, encoding: str, status: int, type_: str
) -> None:
    answer = client.post("/v1/events", content=body, headers=JSON | {"content-encoding": encoding})
    assert (answer.status_code, answer.json()["type"]) == (status, type_)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "content_type",
    [
        *("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"),
        *("application/json-lines", "text/x-ndjson", "text/jsonl; charset=utf-8", "Application/X-NDJSON"),
    ],
)
def test_lines_are_known_by_each_of_their_types(client: TestClient, log: Log, content_type: str) -> None:
    body = EVENT % 1 + b"\r\n\r\n" + EVENT % 2
    answer = client.post("/v1/events", content=body, headers={"content-type": content_type})
    assert answer.json()["accepted"] == 2


@pytest.mark.parametrize("body", [EVENT % 1, b"[" + EVENT % 1 + b"]", b" \n" + EVENT % 1])
def test_a_byte_order_mark_is_skipped(client: TestClient, log: Log, body: bytes) -> None:
    assert client.post("/v1/events", content=bodies.BOM + body, headers=JSON).json()["accepted"] == 1


def test_a_byte_order_mark_is_skipped_in_a_look_up(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[LookupRequest] = []

    async def recommend(_: str, request: LookupRequest) -> Any:
        requests.append(request)
        raise ValueError

    monkeypatch.setattr(service, "recommend", recommend)
    client.post("/v1/users/u/recommendations", content=bodies.BOM + b'{"n": 3}', headers=JSON)
    assert [request.n for request in requests] == [3]


def test_many_records_are_sent_in_slices(client: TestClient, log: Log) -> None:
    body = b"\n".join(EVENT % number if number != 1500 else b"{}" for number in range(2500))
    answer = client.post("/v1/events", content=body, headers={"content-type": "application/jsonl"}).json()
    assert (answer["accepted"], answer["refused"]) == (2499, 1)
    assert [error["index"] for error in answer["errors"]] == [1500]
    assert [len(batch) for batch in log.batches] == [1000, 999, 500]


def test_an_answer_lists_a_bounded_number_of_refused_records(client: TestClient, log: Log) -> None:
    answer = client.post("/v1/events", content=b"[" + b"0," * 9_999 + b"0]", headers=JSON)
    problem = answer.json()
    assert (answer.status_code, problem["refused"], len(problem["errors"])) == (400, 10_000, 100)
    assert len(answer.content) < 20_000


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"[" + b"0," * 10_000 + b"0]", "application/json"),
        (b"[" + b"0," * 2_000_000 + b"0]", "application/json"),
        (b"0\n" * 10_001, "application/x-ndjson"),
        (b"\n" * 2_000_000, "application/x-ndjson"),
    ],
)
def test_too_many_records_are_refused_before_they_are_read(client: TestClient, body: bytes, content_type: str) -> None:
    answer = client.post("/v1/events", content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["type"]) == (413, "too-many")


@pytest.mark.parametrize(
    ("body", "status", "type_"),
    [
        (b"[" * 20_000, 400, "too-deep"),
        (b'{"a":' * 20_000, 400, "too-deep"),
        (b'{"domain":"\xff"}', 400, "not-utf8"),
        (b'{"domain":"' + b"x" * bodies.MAX_JSON_BYTES + b'"}', 413, "too-large"),
        (b'{"candidates":[' + b"0," * bodies.MAX_JSON_VALUES + b"0,0]}", 413, "too-many"),
    ],
)
@pytest.mark.parametrize("route", ["POST /v1/users/u/recommendations", "POST /v1/sessions/recommendations"])
def test_one_json_value_is_bounded(client: TestClient, route: str, body: bytes, status: int, type_: str) -> None:
    method, path = route.split()
    answer = client.request(method, path, content=body, headers=JSON)
    assert (answer.status_code, answer.json()["type"]) == (status, type_)
