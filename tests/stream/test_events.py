"""The event schema: what it lets in comes back equal, and what it refuses says why."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.errors import EventError
from stream.events import (
    DEFAULT_LIMITS,
    KIND_CODES,
    KINDS,
    REASONS,
    Impression,
    Interaction,
    Item,
    Search,
    TimeLimits,
    User,
    check,
    decode,
    encode,
    key_of,
)

NOW = 1_700_000_000_000
VIEW = {"type": "interaction", "event_id": "e1", "user_id": "u1", "item_id": "i1", "kind": "view", "at": NOW}


def raw(**changes: Any) -> bytes:
    """A good view as JSON, with `changes`; a value of ... leaves the field out."""
    fields = {name: value for name, value in (VIEW | changes).items() if value is not ...}
    return msgspec.json.encode(fields)


REFUSED = [
    ("too-large", raw(context={"note": "x" * 65_536})),
    ("not-utf8", b'{"type":"interaction","event_id":"\xff"}'),
    ("not-utf8", '{"type":"view"}'.encode("utf-16")),
    ("not-json", b""),
    ("not-json", b'{"type":"interaction","event_id":"e1"'),
    ("not-json", b"user 1 viewed item 2"),
    ("not-json", b"\x00" * 100),
    ("not-json", b'{"unknown":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
    ("bad-field", b"[" * 30_000),
    ("unknown-type", raw(type="order")),
    ("unknown-type", raw(type=...)),
    ("unknown-kind", raw(kind="stare")),
    ("missing-id", raw(event_id=...)),
    ("missing-id", raw(user_id=...)),
    ("missing-id", raw(item_id="")),
    ("missing-id", raw(type="impression", item_ids=[])),
    ("missing-field", raw(at=...)),
    ("missing-field", raw(kind=...)),
    ("missing-field", raw(type="search")),
    ("bad-field", raw(user_id=7)),
    ("bad-field", raw(user_id="u" * 257)),
    ("bad-field", raw(domain="Not A Domain")),
    ("bad-field", raw(user_id="a\x00b")),
    ("bad-field", raw(context={"page": "\\\x00"})),
    ("bad-field", raw(context={"nested": {"deep": 1}})),
    ("bad-field", b"[1, 2]"),
    ("bad-field", b"null"),
    ("bad-time", raw(at="yesterday")),
    ("bad-time", raw(at=NOW + 0.5)),
    ("bad-time", raw(at=NOW // 1000)),
    ("bad-time", raw(at=NOW + 300_001)),
    ("bad-time", raw(at=10**30)),
    ("not-a-number", raw(value=1).replace(b'"value":1', b'"value":NaN')),
    ("not-a-number", raw(value=1).replace(b'"value":1', b'"value":-Infinity')),
    ("not-a-number", raw(value=1).replace(b'"value":1', b'"value":1e999')),
]
ELSEWHERE = {"unknown-domain", "wrong-topic", "wrong-key"}
"""Reasons that only a reader of the topics can give: it knows the domains, and which topic a record came on."""


@pytest.mark.parametrize(("reason", "bad"), REFUSED, ids=[f"{n}-{reason}" for n, (reason, _) in enumerate(REFUSED)])
def test_what_does_not_fit_is_refused_with_its_reason(reason: str, bad: bytes) -> None:
    with pytest.raises(EventError) as refused:
        decode(bad, NOW)
    assert refused.value.reason == reason
    assert refused.value.detail == str(refused.value) != ""


def test_every_reason_is_shown() -> None:
    assert {reason for reason, _ in REFUSED} | ELSEWHERE == set(REASONS)


def test_the_detail_names_the_field_and_the_cure() -> None:
    with pytest.raises(EventError, match=r"`\$\.at`; give epoch milliseconds as a whole number"):
        decode(raw(at="yesterday"), NOW)
    with pytest.raises(EventError, match="are these seconds"):
        decode(raw(at=1_700_000_000), NOW)
    with pytest.raises(EventError, match="known kinds: view, click, cart, purchase"):
        decode(raw(kind="stare"), NOW)
    with pytest.raises(EventError, match="65600 bytes; the limit is 65536"):
        decode(b" " * 65_600, NOW)


def test_only_a_real_nul_is_refused() -> None:
    path = r"C:\u0000"  # a backslash and six plain characters
    assert decode(raw(user_id=path), NOW).user_id == path
    with pytest.raises(EventError, match=r"user_id has the character U\+0000, which no text may have; leave it out"):
        decode(raw(user_id=path + "\0"), NOW)


def test_five_minutes_ahead_is_the_last_moment_that_fits() -> None:
    assert decode(raw(at=NOW + 300_000), NOW).at == NOW + 300_000
    with pytest.raises(EventError, match="301 s in the future; at most 300 s"):
        decode(raw(at=NOW + 301_000), NOW)
    assert decode(raw(at=NOW + 301_000), NOW, TimeLimits(max_future_ms=400_000)).at == NOW + 301_000


def test_the_largest_event_fits() -> None:
    short = raw(context={"note": ""})
    exact = raw(context={"note": "x" * (65_536 - len(short))})
    assert len(exact) == 65_536
    assert decode(exact, NOW).user_id == "u1"
    with pytest.raises(EventError):
        decode(exact + b" ", NOW)


def test_a_value_that_is_not_finite_is_refused_where_no_json_stands_between() -> None:
    view = Interaction(event_id="e1", user_id="u1", item_id="i1", kind="rate", at=NOW, value=float("nan"))
    with pytest.raises(EventError) as refused:
        check(view, NOW)
    assert refused.value.reason == "not-a-number"


def test_fields_left_out_have_their_defaults() -> None:
    assert decode(raw(), NOW) == Interaction(
        event_id="e1",
        user_id="u1",
        item_id="i1",
        kind="view",
        at=NOW,
        domain="shop",
        value=None,
        session_id=None,
        category=None,
        segment=None,
        context={},
    )


def test_kinds_keep_their_stored_codes() -> None:
    assert KINDS[:6] == ("view", "click", "cart", "purchase", "play", "skip")
    assert KIND_CODES["view"] == 0
    assert KIND_CODES["cancel"] == 13


def test_a_key_keeps_a_user_on_one_partition_over_all_domains() -> None:
    assert key_of(decode(raw(), NOW)) == b"u1"
    assert key_of(decode(raw(domain="music"), NOW)) == b"u1"
    assert key_of(Impression(event_id="e", user_id="u1", item_ids=["i"], at=NOW)) == b"u1"
    assert key_of(Search(event_id="e", user_id="u1", query="tea", at=NOW)) == b"u1"
    assert key_of(Item(item_id="i1", at=NOW, domain="music")) == b"music/i1"
    assert key_of(User(user_id="u1", at=NOW)) == b"shop/u1"


characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ids = st.text(characters, min_size=1, max_size=40)
labels = st.none() | st.text(characters, max_size=20)
times = st.integers(DEFAULT_LIMITS.earliest_at, NOW + DEFAULT_LIMITS.max_future_ms)
finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | finite | st.text(characters, max_size=10)
contexts = st.dictionaries(st.text(characters, max_size=10), scalars, max_size=3)
attributes = st.dictionaries(st.text(characters, max_size=10), scalars | st.lists(scalars, max_size=3), max_size=3)
common = {"at": times, "domain": st.from_regex(r"\A[a-z][a-z0-9_]{0,31}\Z")}
happened = {**common, "event_id": ids, "user_id": ids, "session_id": st.none() | ids, "context": contexts}
records = st.one_of(
    st.builds(
        Interaction,
        **happened,
        item_id=ids,
        kind=st.sampled_from(KINDS),
        value=st.none() | finite,
        category=labels,
        segment=labels,
    ),
    st.builds(
        Impression, **happened, item_ids=st.lists(ids, min_size=1, max_size=9), release=labels, request_id=labels
    ),
    st.builds(Search, **happened, query=ids),
    st.builds(
        Item, **common, item_id=ids, title=labels, category=labels, available=st.booleans(), attributes=attributes
    ),
    st.builds(User, **common, user_id=ids, segment=labels, attributes=attributes),
)


@given(records)
def test_what_is_encoded_decodes_equal(record: Any) -> None:
    assert decode(encode(record), NOW) == record


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(garbage: bytes) -> None:
    with pytest.raises(EventError) as refused:
        decode(garbage, NOW)
    assert refused.value.reason in REASONS


@given(records, st.data())
def test_a_torn_event_is_refused(record: Any, data: st.DataObject) -> None:
    whole = encode(record)
    with pytest.raises(EventError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))], NOW)
