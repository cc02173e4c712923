"""Records of a request, checked one by one and sent to Kafka. 202 comes after the broker's acknowledgement."""

import time
from typing import Any, Final

import msgspec
from litestar import Request, Response

from serving import metrics
from serving.http.problems import Problem
from serving.http.read_your_writes import format_token, newest_token
from serving.http.service import Service
from stream import topics
from stream.errors import EventError
from stream.events import MAX_EVENT_BYTES, Impression, Interaction, Item, Record, Search, User, decode

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
TYPES: Final[dict[str, tuple[type, ...]]] = {
    topics.EVENTS: (Interaction, Impression, Search),
    topics.ITEMS: (Item,),
    topics.USERS: (User,),
}
"""The records of each topic."""


class RefusedRecord(msgspec.Struct, frozen=True):
    """A record that was refused: its index in the request, the reason, and a sentence with the cure."""

    index: int
    reason: str
    detail: str


class AcceptedRecords(msgspec.Struct, frozen=True):
    """The number of records in the log, a token for all of them, one for each, and the refused records."""

    accepted: int
    token: str
    tokens: list[str]
    errors: list[RefusedRecord]


async def accept_records(
    request: Request[Any, Any, Any], service: Service, topic: str, wrong_type: str
) -> Response[AcceptedRecords]:
    """Send the valid records of a request to `topic`. Each other one is refused: with `wrong_type`, if it belongs
    to another topic.

    Raises:
        Problem: the body cannot be read, or no record is valid.
        BrokerError: Kafka does not acknowledge.
    """
    raw_records = _split(await request.body(), request.headers.get("content-type", ""))
    now_ms = int(time.time() * 1000)
    valid: list[Record] = []
    refused: list[RefusedRecord] = []
    for index, raw in enumerate(raw_records):
        try:
            record = decode(raw, now_ms, service.time_limits)
            if not isinstance(record, TYPES[topic]):
                raise EventError("wrong-topic", wrong_type)
            if record.domain not in service.domains:
                known = ", ".join(service.domains)
                raise EventError("unknown-domain", f"domain={record.domain!r} is not one of {known}")
        except EventError as error:
            metrics.records_rejected.labels(error.reason).inc()
            refused.append(RefusedRecord(index, error.reason, error.detail))
        else:
            valid.append(enriched(record, service))
    if refused and not valid:
        first = refused[0]
        raise Problem(400, first.reason, first.detail, errors=msgspec.to_builtins(refused))
    positions = await service.producer.send_many(valid)
    metrics.records_accepted.labels(type(valid[0]).__name__.lower() if valid else "none").inc(len(valid))
    tokens = [format_token(topic, position) for position in positions]
    accepted = AcceptedRecords(len(valid), newest_token(topic, positions), tokens, refused)
    return Response(accepted, status_code=202)


def enriched(record: Record, service: Service) -> Record:
    """An interaction with its item's category and its user's segment, where they are missing.

    So the log alone determines the features.
    """
    if not isinstance(record, Interaction) or (record.category and record.segment):
        return record
    domain = service.domains[record.domain].domain
    category = record.category or domain.category_of(record.item_id)
    segment = record.segment or domain.segments.get(record.user_id)
    if category == record.category and segment == record.segment:
        return record
    return msgspec.structs.replace(record, category=category, segment=segment)


def _split(body: bytes, content_type: str) -> list[bytes]:
    if len(body) > MAX_BODY_BYTES:
        raise Problem(413, "too-large", f"the body has {len(body)} bytes; send at most {MAX_BODY_BYTES} at a time")
    if "ndjson" in content_type or "jsonl" in content_type:
        return [line for line in body.splitlines() if line.strip()]
    if not body.strip():
        raise Problem(400, "not-json", "the body is empty; send one event, or an array of them")
    if not body.lstrip().startswith(b"["):
        return [body[: MAX_EVENT_BYTES + 1]]
    try:
        return [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, "not-json", f"the body is not a JSON array: {error}") from None
