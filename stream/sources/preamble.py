"""Lines above the header of a text file: left out where `--skip-lines` says so, pointed out where they show."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stream.errors import SourceError
from stream.sources.quotes import QuoteRules

EXAMINED: Final = 60
MAX_LINE: Final = 64 * 1024
"""Bytes of a line that are looked at."""
VALUE: Final = re.compile(r"\d[\d.,:/TZ+ -]*|.*\d{4}-\d{2}-\d{2}.*|.+@.+")
"""What no column is called: numbers, times, addresses."""


def without_first_lines(path: Path, text: bytes, lines: int) -> bytes:
    """The text below its first `lines` lines.

    Raises:
        SourceError: there is nothing below them.
    """
    place = 0
    for number in range(lines):
        end = text.find(b"\n", place)
        if end < 0 or not text[end + 1 :].strip():
            raise SourceError(f"{path}: --skip-lines {lines}: nothing stands below line {number + 1}")
        place = end + 1
    return text[place:]


def header_hint(body: bytes, delimiters: Sequence[str], top: int) -> str:
    """Which line looks like the header, if the first one of `body` does not; "" where nothing points to another one.

    `delimiters` are those in question, `top` the number of lines above `body`.
    """
    lines = [line[:MAX_LINE] for line in body[: EXAMINED * MAX_LINE].split(b"\n")[:EXAMINED]]
    sign = max(delimiters, key=lambda delimiter: sum(line.count(delimiter.encode()) for line in lines))
    rows = [_fields(line, sign) for line in lines]
    if not rows[1:]:
        return ""
    usual, lines_of_it = Counter(len(row) for row in rows[1:]).most_common(1)[0]
    first = next((number for number, row in enumerate(rows) if len(row) == usual), 0)
    if first == 0 or usual < 2 or lines_of_it < 2 or headless_hint(rows[first]):
        return ""
    return f"; line {top + first + 1} looks like the header (--skip-lines {top + first})"


def headless_hint(names: Sequence[str]) -> str:
    """The cure for a file whose first line holds values, not the names of columns; "" where it does not look so."""
    values = [name for name in names if VALUE.fullmatch(name)]
    if not values:
        return ""
    return f"; its first line looks like a row ({values[0]!r}): write a line with the names of the columns above it"


def _fields(line: bytes, sign: str) -> list[str]:
    fields = QuoteRules(sign.encode()).values(line) if len(sign) == 1 else line.split(sign.encode())
    return [field.decode("utf-8", "replace").strip() for field in fields]
