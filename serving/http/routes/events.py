"""Routes that take records in: events, items, users. 202 comes after the broker's acknowledgement."""

import time
from typing import Any

import msgspec
from litestar import Request, Response, post, put
from litestar.di import NamedDependency

from serving import metrics
from serving.http.problems import Problem
from serving.http.service import Service
from stream import topics
from stream.errors import EventError
from stream.events import MAX_EVENT_BYTES, Interaction, Item, Record, User, decode

Injected = NamedDependency[Service]
MOST_BYTES = 32 * 1024 * 1024


class Bad(msgspec.Struct, frozen=True):
    """One record that was refused: which, why, and what would cure it."""

    index: int
    reason: str
    detail: str


class Accepted(msgspec.Struct, frozen=True):
    """How many records are in the log, the token that `after` takes, and those that were refused."""

    accepted: int
    token: str
    tokens: list[str]
    errors: list[Bad]


@post("/v1/events", status_code=202, tags=["events"], summary="Send one event, an array, or NDJSON")
async def send_events(request: Request[Any, Any, Any], service: Injected) -> Response[Accepted]:
    """Interactions, impressions and searches. The good ones are kept, each bad one is answered with its reason."""
    return await _take(
        request, service, (Item, User), "items and users have routes of their own: PUT /v1/items, /v1/users"
    )


@put("/v1/items", status_code=202, tags=["catalogue"], summary="Add or change items")
async def put_items(request: Request[Any, Any, Any], service: Injected) -> Response[Accepted]:
    """One item or an array of them; `available: false` takes one out of every answer."""
    return await _take(request, service, None, "only items go here", only=Item)


@put("/v1/users", status_code=202, tags=["users"], summary="Add or change profiles")
async def put_users(request: Request[Any, Any, Any], service: Injected) -> Response[Accepted]:
    """One profile or an array of them."""
    return await _take(request, service, None, "only users go here", only=User)


async def _take(
    request: Request[Any, Any, Any],
    service: Service,
    never: tuple[type, ...] | None,
    why: str,
    only: type | None = None,
) -> Response[Accepted]:
    raws = _split(await request.body(), request.headers.get("content-type", ""))
    now = int(time.time() * 1000)
    good: list[Record] = []
    bad: list[Bad] = []
    for index, raw in enumerate(raws):
        try:
            record = decode(raw, now, service.limits)
            if (never is not None and isinstance(record, never)) or (only is not None and not isinstance(record, only)):
                raise EventError("wrong-topic", why)
            if record.domain not in service.domains:
                known = ", ".join(service.domains)
                raise EventError("unknown-domain", f"domain={record.domain!r} is not one of {known}")
        except EventError as error:
            metrics.records_rejected.labels(error.reason).inc()
            bad.append(Bad(index, error.reason, error.detail))
        else:
            good.append(stamped(record, service))
    if bad and not good:
        first = bad[0]
        raise Problem(400, first.reason, first.detail, errors=[msgspec.to_builtins(one) for one in bad])
    positions = await service.producer.send_many(good)
    metrics.records_accepted.labels(type(good[0]).__name__.lower() if good else "none").inc(len(good))
    topic = "" if only is None else f"{topics.ITEMS if only is Item else topics.USERS}/"
    newest: dict[int, int] = {}
    for one in positions:
        newest[one.partition] = max(one.offset, newest.get(one.partition, -1))
    token = ",".join(f"{topic}{partition}:{offset}" for partition, offset in sorted(newest.items()))
    tokens = [topic + one.token() for one in positions]
    return Response(Accepted(len(good), token, tokens, bad), status_code=202)


def stamped(record: Record, service: Service) -> Record:
    """The event with its item's category and its user's segment, where it came without: the log alone decides then."""
    if not isinstance(record, Interaction) or (record.category and record.segment):
        return record
    domain = service.domains[record.domain].domain
    category = record.category or domain.category_of(record.item_id)
    segment = record.segment or domain.segments.get(record.user_id)
    if category == record.category and segment == record.segment:
        return record
    return msgspec.structs.replace(record, category=category, segment=segment)


def _split(body: bytes, content_type: str) -> list[bytes]:
    if len(body) > MOST_BYTES:
        raise Problem(413, "too-large", f"the body has {len(body)} bytes; send at most {MOST_BYTES} at a time")
    if "ndjson" in content_type or "jsonl" in content_type:
        return [line for line in body.splitlines() if line.strip()]
    if not body.strip():
        raise Problem(400, "not-json", "the body is empty; send one event, or an array of them")
    if not body.lstrip().startswith(b"["):
        return [body[: MAX_EVENT_BYTES + 1]]
    try:
        return [bytes(one) for one in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, "not-json", f"the body is not a JSON array: {error}") from None
