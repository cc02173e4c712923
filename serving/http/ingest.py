"""Records of a request, checked one by one and sent to Kafka. 202 comes after the broker's acknowledgement."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from litestar import Request, Response

from serving import metrics
from serving.http.bodies import MAX_BODY_BYTES
from serving.http.problems import Problem
from serving.http.read_your_writes import format_token, newest_token
from serving.http.record_arrays import MAX_RECORDS, split_array, too_many
from serving.http.service import Service
from stream import topics
from stream.errors import EventError
from stream.events import MAX_EVENT_BYTES, Impression, Interaction, Item, Record, Search, User, decode
from stream.producer import Position

MAX_REPORTED: Final = 100
"""Refused records that an answer lists."""
SLICE: Final = 1_000
"""Records that are checked and sent before other requests get a turn."""
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
    """The number of records in the log and of refused ones, a token for all of them, one for each, and the first 100
    refused records."""

    accepted: int
    refused: int
    token: str
    tokens: list[str]
    errors: list[RefusedRecord]


async def accept_records(
    request: Request[Any, Any, Any], service: Service, topic: str, wrong_type: str
) -> Response[AcceptedRecords]:
    """Send the valid records of a request to `topic`, in slices. Each other one is refused: with `wrong_type`, if it
    belongs to another topic.

    Raises:
        Problem: the body cannot be read, or no record is valid.
        BrokerError: Kafka does not acknowledge.
    """
    raw_records = await _split(await request.body(), request.headers.get("content-type", ""))
    return await send_records(raw_records, service, topic, wrong_type)


async def send_records(
    raw_records: Sequence[bytes], service: Service, topic: str, wrong_type: str
) -> Response[AcceptedRecords]:
    """`accept_records`, for records that are taken out of a body already. Raises like it."""
    service.check_log()
    positions: list[Position] = []
    refused: list[RefusedRecord] = []
    for start in range(0, len(raw_records), SLICE):
        if start:
            await asyncio.sleep(0)
        valid = _checked(raw_records[start : start + SLICE], start, service, (topic, wrong_type), refused)
        if valid:
            positions += service.on_sent(topic, await service.producer.send_many(valid))
            metrics.records_accepted.labels(type(valid[0]).__name__.lower()).inc(len(valid))
    reported = refused[:MAX_REPORTED]
    if refused and not positions:
        first, errors = refused[0], msgspec.to_builtins(reported)
        raise Problem(400, first.reason, first.detail, refused=len(refused), errors=errors)
    tokens = [format_token(topic, position) for position in positions]
    accepted = AcceptedRecords(len(positions), len(refused), newest_token(topic, positions), tokens, reported)
    return Response(accepted, status_code=202)


def _checked(
    raw_records: Sequence[bytes],
    first_index: int,
    service: Service,
    destination: tuple[str, str],
    refused: list[RefusedRecord],
) -> list[Record]:
    """The valid records of some; the others are added to `refused`. `destination`: a topic, and the sentence for
    records of other topics."""
    topic, wrong_type = destination
    now_ms = int(time.time() * 1000)
    valid: list[Record] = []
    for index, raw in enumerate(raw_records, first_index):
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
    return valid


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


async def _split(body: bytes, content_type: str) -> list[bytes]:
    if len(body) > MAX_BODY_BYTES:
        raise Problem(413, "too-large", f"the body has {len(body)} bytes; send at most {MAX_BODY_BYTES} at a time")
    if is_ndjson(content_type):
        if body.count(b"\n") > 2 * MAX_RECORDS:
            raise too_many("lines")
        return _bounded([line for line in body.splitlines() if line.strip()])
    text = body.lstrip()
    if not text:
        raise Problem(400, "not-json", "the body is empty; send one event, or an array of them")
    if not text.startswith(b"["):
        return [body[: MAX_EVENT_BYTES + 1]]
    return await split_array(body)


def is_ndjson(content_type: str) -> bool:
    """Whether a body has one JSON value a line: application/x-ndjson, application/jsonl, text/jsonlines, ..."""
    name = content_type.lower()
    return any(word in name for word in ("ndjson", "jsonl", "json-lines"))


def _bounded(records: list[bytes]) -> list[bytes]:
    if len(records) > MAX_RECORDS:
        raise too_many("records")
    return records
