"""The event schema: what may enter, written once for Kafka and for HTTP.

Five kinds of record, told apart by their `type` field. `docs/events.md` shows an example of each.
Decoding is strict: what does not fit raises `EventError` with a stable reason and a precise sentence.
"""

import math
import re
from typing import Annotated, Final, Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

from stream.errors import EventError

MAX_EVENT_BYTES: Final = 64 * 1024
MAX_FUTURE_MS: Final = 5 * 60 * 1000
EARLIEST_AT: Final = 631_152_000_000  # 1990-01-01: older than any click log, so a unit mix-up (seconds) shows

Kind = Literal[
    "view",
    "click",
    "cart",
    "purchase",
    "play",
    "skip",
    "rate",
    "like",
    "dislike",
    "read",
    "save",
    "hide",
    "remove",
    "cancel",
]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
"""Position in this tuple is the kind's stored code: append only."""
KIND_CODES: Final[dict[str, int]] = {kind: code for code, kind in enumerate(KINDS)}

REASONS: Final = (
    "too-large",
    "not-utf8",
    "not-json",
    "unknown-type",
    "unknown-kind",
    "missing-id",
    "missing-field",
    "bad-field",
    "bad-time",
    "not-a-number",
    "unknown-domain",
    "wrong-topic",
    "wrong-key",
)

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
DOMAIN_PATTERN: Final = "^[a-z][a-z0-9_]{0,31}$"
Domain = Annotated[str, msgspec.Meta(pattern=DOMAIN_PATTERN)]
Label = Annotated[str, msgspec.Meta(max_length=256)]
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Longer numbers are refused where they enter: no column and no array holds them."""
Scalar = str | Int64 | float | bool | None
Attributes = dict[str, Scalar | list[Scalar]]


class Interaction(msgspec.Struct, tag_field="type", tag="interaction", frozen=True, omit_defaults=True):
    """A user did something with an item.

    `at` is epoch milliseconds. `value` is the kind's own amount: a rating, a price, seconds watched.
    `category` and `segment` may be left out: the API stamps them from the catalogue and the profile at the door,
    so that the log alone decides what a fold computes.
    """

    event_id: Id
    user_id: Id
    item_id: Id
    kind: Kind
    at: Int64
    domain: Domain = "shop"
    value: float | None = None
    session_id: Id | None = None
    category: Label | None = None
    segment: Label | None = None
    context: dict[str, Scalar] = {}


class Impression(msgspec.Struct, tag_field="type", tag="impression", frozen=True, omit_defaults=True):
    """A user was shown a list: `item_ids` in order, by `release`, in answer to `request_id`."""

    event_id: Id
    user_id: Id
    item_ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=500)]
    at: Int64
    domain: Domain = "shop"
    release: Label | None = None
    request_id: Label | None = None
    session_id: Id | None = None
    context: dict[str, Scalar] = {}


class Search(msgspec.Struct, tag_field="type", tag="search", frozen=True, omit_defaults=True):
    """A user searched for `query`."""

    event_id: Id
    user_id: Id
    query: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    at: Int64
    domain: Domain = "shop"
    session_id: Id | None = None
    context: dict[str, Scalar] = {}


class Item(msgspec.Struct, tag_field="type", tag="item", frozen=True, omit_defaults=True):
    """An update of an item: a field that is absent stays as it is, null clears it, the newer `at` wins field by field.

    `attributes` are updated one by one. `available=false` takes the item out of every answer, `expires_at` (epoch ms)
    does so at a time. `valid_from` (epoch ms, default `at`) is since when the update is true, for training.
    """

    item_id: Id
    at: Int64
    domain: Domain = "shop"
    title: Annotated[str, msgspec.Meta(max_length=4096)] | UnsetType | None = UNSET
    category: Label | UnsetType | None = UNSET
    available: bool | UnsetType | None = UNSET
    expires_at: Int64 | UnsetType | None = UNSET
    attributes: Attributes | UnsetType | None = UNSET
    valid_from: Int64 | UnsetType = UNSET


class User(msgspec.Struct, tag_field="type", tag="user", frozen=True, omit_defaults=True):
    """An update of a user's profile, merged like an `Item`. Users of a `segment` get a popularity list of their own."""

    user_id: Id
    at: Int64
    domain: Domain = "shop"
    segment: Label | UnsetType | None = UNSET
    attributes: Attributes | UnsetType | None = UNSET
    valid_from: Int64 | UnsetType = UNSET


Event = Interaction | Impression | Search
"""What the topic `events` carries, keyed by `user_id`."""
Record = Interaction | Impression | Search | Item | User

_record_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
_encoder = msgspec.json.Encoder()
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The character U+0000 in JSON; an even number of backslashes before it are characters themselves."""


class TimeLimits(msgspec.Struct, frozen=True):
    """How far an event's `at` may lie: at most `max_future_ms` after now, and not before `earliest_at`."""

    max_future_ms: int = MAX_FUTURE_MS
    earliest_at: int = EARLIEST_AT


DEFAULT_LIMITS: Final = TimeLimits()


def encode(record: Record) -> bytes:
    """UTF-8 JSON of a record; `decode` gives it back equal."""
    return _encoder.encode(record)


def decode(raw: bytes, now_ms: int, limits: TimeLimits = DEFAULT_LIMITS) -> Record:
    """The record that `raw` (UTF-8 JSON) holds.

    Raises:
        EventError: with one of `REASONS`; the detail names the field and the cure.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise EventError("too-large", f"the event has {len(raw)} bytes; the limit is {MAX_EVENT_BYTES}")
    try:
        record = _record_decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _explain(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(raw, error) from None
    if b"\\u0000" in raw:
        _check_texts(record)
    check(record, now_ms, limits)
    return record


def check(record: Record, now_ms: int, limits: TimeLimits = DEFAULT_LIMITS) -> None:
    """Refuse what the types alone cannot: absurd times and numbers that are not finite.

    Raises:
        EventError: `bad-time` or `not-a-number`.
    """
    _check_time("at", record.at, now_ms, limits)
    if isinstance(record, Item | User):
        _check_update(record, now_ms, limits)
    if isinstance(record, Interaction) and record.value is not None and not math.isfinite(record.value):
        raise EventError("not-a-number", "value is not a finite number; leave it out or give one")


def _check_texts(record: Record) -> None:
    """Refuse U+0000 in any text: pandas ends a text there when it groups, so it would take several ids for one."""
    for name, value in msgspec.to_builtins(record).items():
        if _NUL.search(_encoder.encode(value)):
            raise EventError("bad-field", f"{name} has the character U+0000, which no text may have; leave it out")


def _check_time(name: str, at: int, now_ms: int, limits: TimeLimits) -> None:
    if at < limits.earliest_at:
        raise EventError(
            "bad-time", f"{name}={at} lies before {limits.earliest_at}; give epoch milliseconds (are these seconds?)"
        )
    if at > now_ms + limits.max_future_ms:
        ahead_s = (at - now_ms) // 1000
        raise EventError(
            "bad-time",
            f"{name}={at} lies {ahead_s} s in the future; at most {limits.max_future_ms // 1000} s are allowed",
        )


def _check_update(update: Item | User, now_ms: int, limits: TimeLimits) -> None:
    if update.valid_from is not UNSET:
        _check_time("valid_from", update.valid_from, now_ms, limits)
    expires_at = update.expires_at if isinstance(update, Item) else None
    if isinstance(expires_at, int) and expires_at < limits.earliest_at:
        raise EventError(
            "bad-time", f"expires_at={expires_at} lies before {limits.earliest_at}; give epoch milliseconds"
        )


def decode_event(key: bytes | None, raw: bytes, logged_at: int, limits: TimeLimits = DEFAULT_LIMITS) -> Event:
    """The event in a message of the topic `events`, as every reader of the log judges it.

    Times are held against the broker's (`logged_at`, epoch ms), so that who reads the log later decides alike.

    Raises:
        EventError: as `decode`; also `wrong-topic` and `wrong-key`.
    """
    record = decode(raw, logged_at, limits)
    if isinstance(record, Item | User):
        raise EventError("wrong-topic", "items and users have topics of their own: items, users")
    if key != record.user_id.encode():
        raise EventError("wrong-key", f"the message's key is {key!r}; key events by their user_id")
    return record


def decode_catalogue_update(
    topic: str, raw: bytes | None, logged_at: int, limits: TimeLimits = DEFAULT_LIMITS
) -> Item | User:
    """The update in a message of the topic `items` or `users`, as every reader of the log judges it.

    Times are held against the broker's (`logged_at`, epoch ms), so that who reads the log later decides alike.

    Raises:
        EventError: as `decode`; also `wrong-topic`, and `not-json` for a tombstone, which updates do not have.
    """
    if raw is None:
        raise EventError("not-json", "the message is empty; to hide an item send available=false")
    record = decode(raw, logged_at, limits)
    if not isinstance(record, Item if topic == "items" else User):
        raise EventError("wrong-topic", f"a record of another type than the topic {topic} holds")
    return record


def key_of(record: Record) -> bytes:
    """The Kafka key: the user for what a user does or is, the item (with its domain) for the catalogue."""
    if isinstance(record, Item):
        return f"{record.domain}/{record.item_id}".encode()
    if isinstance(record, User):
        return f"{record.domain}/{record.user_id}".encode()
    return record.user_id.encode()


def _explain(error: msgspec.ValidationError) -> EventError:
    text = str(error)
    if "`$.kind`" in text:
        return EventError("unknown-kind", f"{text}; known kinds: {', '.join(KINDS)}")
    if "`$.type`" in text or "missing required field `type`" in text:
        return EventError("unknown-type", f"{text}; known types: interaction, impression, search, item, user")
    if "missing required field" in text:
        reason = "missing-id" if "_id`" in text or "_ids`" in text else "missing-field"
        return EventError(reason, f"{text}; docs/events.md shows every field")
    if "_id" in text and "length >= 1" in text:
        return EventError("missing-id", f"{text}; an id must not be empty")
    if "`$.at`" in text or "`$.expires_at`" in text:
        return EventError("bad-time", f"{text}; give epoch milliseconds as a whole number")
    if "out of range" in text:
        return EventError("not-a-number", text)
    return EventError("bad-field", text)


def _unreadable(raw: bytes, error: Exception) -> EventError:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as bad:
        return EventError("not-utf8", f"byte {bad.start} is not UTF-8; send UTF-8 JSON")
    if b"NaN" in raw or b"Infinity" in raw:
        return EventError("not-a-number", f"NaN and Infinity are not JSON: {error}")
    return EventError("not-json", f"not JSON: {error}")
