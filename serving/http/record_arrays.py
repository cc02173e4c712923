"""JSON arrays of records, taken apart in slices: a body of 32 MiB holds the event loop no longer than a small one."""

import asyncio
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from serving.http.problems import Problem

MAX_RECORDS: Final = 10_000
MAX_VALUES: Final = 250_000
"""Commas in a JSON array: its elements have to be found before they are counted."""
SLICE_BYTES: Final = 256 * 1024
COUNTED_BYTES: Final = 4 * 1024 * 1024
MAX_TRIES: Final = 50
"""Ends of objects that are tried behind a slice: those of nested objects are none of a record."""
OBJECT_END: Final = re.compile(rb"\}[ \t\r\n]*,")


async def split_array(body: bytes) -> list[bytes]:
    """The elements of a JSON array. Other requests get a turn between its slices.

    Raises:
        Problem: it is no JSON array, or has too many elements or values.
    """
    await _check_values(body)
    records: list[bytes] = []
    start = body.index(b"[") + 1
    while True:
        elements, end = await _slice(body, start)
        records += map(bytes, elements)
        if len(records) > MAX_RECORDS:
            raise too_many("records")
        if end is None:
            return records
        start = end
        await asyncio.sleep(0)


async def _check_values(body: bytes) -> None:
    values = 0
    for place in range(0, len(body), COUNTED_BYTES):
        values += body.count(b",", place, place + COUNTED_BYTES)
        if values > MAX_VALUES:
            raise too_many("values")
        if place:
            await asyncio.sleep(0)


async def _slice(body: bytes, start: int) -> tuple[Sequence[msgspec.Raw], int | None]:
    """The elements from `start` (behind `[` or a comma) on, and where the next ones begin; None: these are the last.

    What begins like an array and parses as one up to an object's end ends there with an element of the array.
    """
    tries = OBJECT_END.finditer(body, start + SLICE_BYTES)
    for number, end in enumerate(tries):
        if number == MAX_TRIES:
            raise Problem(413, "too-large", "a record of the array is far larger than a record may be; send less")
        try:
            return _decode(b"[" + body[start : end.start() + 1] + b"]"), end.end()
        except Problem:
            await asyncio.sleep(0)
    last = _decode(b"[" + body[start:])
    if not last and b"[" not in body[start - 1 : start]:
        raise Problem(400, "not-json", "the body is not a JSON array: it ends with a comma")
    return last, None


def _decode(text: bytes) -> Sequence[msgspec.Raw]:
    try:
        return msgspec.json.decode(text, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "not-json", f"the body is not a JSON array: {error}") from None


def too_many(what: str) -> Problem:
    """The refusal of a body with too many records, lines or values."""
    detail = f"the body has too many {what}; send at most {MAX_RECORDS} records, with {MAX_VALUES} values, at a time"
    return Problem(413, "too-many", detail)
