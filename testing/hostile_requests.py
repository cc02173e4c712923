"""Requests that nobody should send: odd bodies, queries, headers and addresses, the same ones at every run."""

import random
from collections.abc import Iterator
from typing import Final

import msgspec

NOW: Final = 1_790_000_000_000
DEEP: Final = b"[" * 20_000
HUGE_NUMBER: Final = b"1" + b"0" * 400
ROUTES_WITH_BODY: Final = (
    ("POST", "/v1/events"),
    ("PUT", "/v1/items"),
    ("PUT", "/v1/users"),
    ("PUT", "/v1/rules/hostile"),
    ("POST", "/v1/sessions/recommendations"),
    ("POST", "/v1/users/hostile/recommendations"),
)
ROUTES_WITH_QUERY: Final = (
    "/v1/users/hostile/recommendations",
    "/v1/users/hostile/features",
    "/v1/items/hostile",
    "/v1/items/hostile/similar",
    "/v1/popular",
    "/v1/releases/hostile",
)
PARAMETERS: Final = (
    *("n", "domain", "exclude_seen", "category", "explain", "diversity", "per_category", "categories"),
    *("explore", "diversify", "after", "segment", "user_id", "item_id", "nonsense"),
)
VALUES: Final = (
    *("", "0", "-1", "1e400", "nan", "inf", "9" * 30, "9" * 5000, "true", "null", "[]", "{}", "%00", "%FF", "%F0%9F"),
    *(
        "%ED%A0%80",
        "a%2Fb",
        "..",
        "%2e%2e",
        "events/9:9",
        "items/0:999999999999999999",
        "0:1,0:2,",
        "shop",
        "mmr",
        "%0A",
    ),
)
IDS: Final = (
    "%00",
    "%FF",
    "%ED%A0%80",
    "a%2Fb",
    "%2E%2E",
    ".",
    "%",
    "%zz",
    "x" * 5000,
    "%25",
    "%1b%5B2J",
    "%E2%80%AE",
    "%20",
)
HEADERS: Final = (
    ("content-type", "application/x-ndjson"),
    ("content-type", "application/json; charset=utf-16"),
    ("content-type", ";;;=" * 50),
    ("content-encoding", "gzip"),
    ("content-encoding", "zstd"),
    ("content-encoding", "br, gzip"),
    ("accept", "*/*;q=nan"),
    ("accept-encoding", "gzip;q=x, " * 50),
    ("cookie", "=;=\x01" * 20),
    ("host", "a b"),
    ("host", ""),
    ("origin", "null"),
    ("range", "bytes=9-1"),
    ("if-modified-since", "never"),
    ("expect", "nothing"),
    ("x-forwarded-for", "a" * 2000),
)


class HostileRequest(msgspec.Struct, frozen=True):
    """A request as its parts; `target` is what stands in its first line."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def message(self) -> bytes:
        """The request as HTTP/1.1 writes it."""
        headers = dict(self.headers) if any(name == "host" for name, _ in self.headers) else {"host": "localhost"}
        headers = {**headers, **dict(self.headers), "content-length": str(len(self.body))}
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


def hostile_requests(seed: int = 7) -> Iterator[HostileRequest]:
    """About four hundred requests."""
    rng = random.Random(seed)
    json = ("content-type", "application/json")
    for method, path in ROUTES_WITH_BODY:
        for body in _bodies(rng):
            yield HostileRequest(method, path, (json,), body)
    for path in ROUTES_WITH_QUERY:
        for _ in range(15):
            names = rng.sample(PARAMETERS, rng.randint(1, 3))
            query = "&".join(f"{name}={rng.choice(VALUES)}" for name in names)
            yield HostileRequest("GET", f"{path}?{query}")
        for value in IDS:
            yield HostileRequest("GET", path.replace("hostile", value))
    for name, value in HEADERS:
        yield HostileRequest("GET", rng.choice(ROUTES_WITH_QUERY), ((name, value),))
        method, path = rng.choice(ROUTES_WITH_BODY)
        yield HostileRequest(method, path, ((name, value),), b'{"a": 1}')
    for target in (
        "/assets/%00",
        "/assets/..%2f..%2fetc%2fpasswd",
        "/assets/" + "a" * 300,
        "/docs/%00",
        "//",
        "/?a",
        "/%2F",
    ):
        for method in ("GET", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE", "NONSENSE"):
            yield HostileRequest(method, target)


def _bodies(rng: random.Random) -> Iterator[bytes]:
    item = b'{"type":"item","item_id":"hostile","at":%d,"attributes":{"published_at":-%s}}'
    yield from (DEEP, b'{"a":' * 20_000, b"[" * 500 + b"]" * 500, b"", b" ", b"null", b"true", b'"text"', b"[]", b"{}")
    yield from (b'{"type":"interaction","user_id":"\xff"}', b"\xff\xfe[\x00]\x00", b"\xef\xbb\xbf{}", b"\x00" * 50)
    yield from (b'{"n":%s}' % HUGE_NUMBER, b'{"per_category":%s}' % HUGE_NUMBER, b'{"n":1e999}', b'{"n":NaN}')
    yield from (b'{"user_id":"\\ud800"}', b'{"candidates":["\\ud800"]}', b'{"candidates":[1]}', b'{"events":[{}]}')
    yield from (item % (NOW, HUGE_NUMBER), b'{"a":1}' * 3, b"[0," * 3, b"[" + b"0," * 20_000 + b"0]")
    yield b'{"rules":[{"id":"r","action":"pin","where":{"title":{"above":%s}}}]}' % HUGE_NUMBER
    yield b'{"action":"exclude","items":["a"],"valid_from":%s}' % HUGE_NUMBER
    yield b'{"action":"exclude","items":["a"],"valid_from":"9999-99-99T99:99:99Z"}'
    yield bytes(rng.randrange(256) for _ in range(300))
