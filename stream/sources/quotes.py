"""Quote signs in delimited text: which lines belong together, and which quotes are stray.

A quoted value may span lines. A stray quote (`"7 inch single`) looks the same until its end, and a lenient parser
swallows every row up to the next quote. Here each quote has to close before a delimiter or a line's end, and the lines
within must not look like rows; otherwise it is plain text, and each line is read by itself. What leaves this module is
well formed, so that every parser reads it alike.
"""

import re
from typing import Final

import msgspec
import numpy as np

QUOTE: Final = ord('"')
NEWLINE: Final = ord("\n")
MAX_LINES: Final = 10_000
"""A value that spans more lines than this is taken for a stray quote."""
BACKSLASHED: Final = re.compile(rb'(?<!\\)((?:\\\\)*)\\"')
SAMPLE: Final = 1_000


class QuotedText(msgspec.Struct, frozen=True):
    """Well-formed text. `continued` marks lines that go on with a value of the line before (None: there are none);
    `stray` are the numbers of lines (from 0) whose quotes are plain text."""

    body: bytes
    continued: np.ndarray | None
    stray: list[int]
    backslashes: bool


class QuoteRules:
    """How fields are told apart for one delimiter (a single byte)."""

    def __init__(self, delimiter: bytes) -> None:
        sign = re.escape(delimiter)
        quoted = rb'"(?:[^"]++|"")*+"(?=%s|\n|\Z)' % sign
        value = rb'(?:%s|[^"\n%s][^\n%s]*+|)' % (quoted, sign, sign)
        self.delimiter = delimiter
        self.record = re.compile(rb"(?:%s%s)*+%s(?=\n|\Z)" % (value, sign, value))
        self.field = re.compile(rb"(?:(%s)|([^\n%s]*+))(?:%s|(?=\n)|\Z)" % (quoted, sign, sign))

    def fields(self, line: bytes) -> list[tuple[bytes, bool]]:
        """The fields of one line, each with whether it is quoted; a quote that does not close is plain text."""
        parts: list[tuple[bytes, bool]] = []
        place = 0
        while True:
            match = self.field.match(line, place)
            assert match is not None  # the bare form fits everything
            group = 2 if match[1] is None else 1
            parts.append((match[group], group == 1))
            if not line.startswith(self.delimiter, match.end(group)):
                return parts
            place = match.end()

    def well_formed(self, line: bytes) -> bytes:
        """The line with quotes that are plain text enclosed and doubled."""
        return self.delimiter.join(
            text if quoted or b'"' not in text else b'"' + text.replace(b'"', b'""') + b'"'
            for text, quoted in self.fields(line)
        )

    def values(self, line: bytes) -> list[bytes]:
        """The values of one record, without their quotes."""
        return [text[1:-1].replace(b'""', b'"') if quoted else text for text, quoted in self.fields(line)]


def settle_quotes(body: bytes, delimiter: bytes, width: int) -> QuotedText:
    """`body` (UTF-8, lines end in a line feed) as well-formed text of rows with `width` fields."""
    rules = QuoteRules(delimiter)
    backslashes = b'\\"' in body and _has_backslash_quotes(body, rules, width)
    if backslashes:
        body = BACKSLASHED.sub(rb'\1""', body)
    begins, suspects = _suspicious_lines(body, delimiter)
    continued: list[tuple[int, int]] = []
    replaced: dict[int, bytes] = {}
    until = -1
    for line in suspects.tolist():
        if line <= until:
            continue
        until = _last_line(body, begins, line, rules, width)
        if until > line:
            continued.append((line + 1, until + 1))
        elif until < line:
            replaced[line] = rules.well_formed(_line(body, begins, line))
    return QuotedText(_with(body, begins, replaced), _mask(continued, len(begins) - 1), list(replaced), backslashes)


def _has_backslash_quotes(body: bytes, rules: QuoteRules, width: int) -> bool:
    r"""Whether `\"` stands for a quote within a value: lines read better so."""
    better = examined = place = 0
    while examined < SAMPLE and (place := body.find(b'\\"', place)) >= 0:
        first, last = body.rfind(b"\n", 0, place) + 1, body.find(b"\n", place)
        line = body[first : last if last >= 0 else len(body)]
        place = last if last >= 0 else len(body)
        examined += 1
        if not _fits(line, rules, width):
            better += 1 if _fits(BACKSLASHED.sub(rb'\1""', line), rules, width) else -1
        else:
            better -= 1
    return better > 0


def _fits(line: bytes, rules: QuoteRules, width: int) -> bool:
    match = rules.record.match(line)
    return match is not None and match.end() == len(line) and len(rules.fields(line)) == width


def _suspicious_lines(body: bytes, delimiter: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Where each line begins (and the end of the last), and the lines whose quotes do not all enclose whole values.

    In a well-formed line the quotes number 0, 2, 4 ... open a value or double the one before them; the others close one
    or are doubled by the next.
    """
    codes = np.frombuffer(body, np.uint8)
    ends = np.flatnonzero(codes == NEWLINE)
    if not body.endswith(b"\n"):
        ends = np.append(ends, len(body))
    begins = np.concatenate([[0], ends + 1])
    quotes = np.flatnonzero(codes == QUOTE)
    lines = np.searchsorted(ends, quotes)
    numbers = np.arange(len(quotes)) - np.searchsorted(lines, lines)
    before = np.where(quotes > 0, codes[quotes - 1], NEWLINE)
    after = np.where(quotes + 1 < len(codes), codes[np.minimum(quotes + 1, len(codes) - 1)], NEWLINE)
    beside = np.where(numbers % 2 == 0, before, after)
    wrong = (beside != NEWLINE) & (beside != QUOTE) & (beside != delimiter[0])
    odd = np.flatnonzero(np.bincount(lines, minlength=len(ends)) % 2)
    return begins, np.union1d(odd, lines[wrong])


def _last_line(body: bytes, begins: np.ndarray, line: int, rules: QuoteRules, width: int) -> int:
    """The last line of the record that begins with `line`; `line - 1` where its quotes are stray."""
    match = rules.record.match(body, int(begins[line]))
    if match is None:
        return line - 1
    last = int(np.searchsorted(begins, match.end(), "right")) - 1
    texts = match[0].split(b"\n")
    if last - line > MAX_LINES or (last > line and _are_rows(texts, rules, width)):
        return line - 1
    return last


def _are_rows(lines: list[bytes], rules: QuoteRules, width: int) -> bool:
    """Whether lines that a quoted value spans look like rows of their own."""
    first, *others = (len(rules.fields(line)) == width for line in lines)
    return sum(others) * 2 > len(others) and (first or len(others) > 2)


def _line(body: bytes, begins: np.ndarray, line: int) -> bytes:
    return body[int(begins[line]) : int(begins[line + 1])].rstrip(b"\n")


def _with(body: bytes, begins: np.ndarray, replaced: dict[int, bytes]) -> bytes:
    if not replaced:
        return body
    parts: list[bytes] = []
    place = 0
    for line, text in replaced.items():
        parts += [body[place : int(begins[line])], text, b"\n"]
        place = int(begins[line + 1])
    return b"".join([*parts, body[place:]])


def _mask(spans: list[tuple[int, int]], lines: int) -> np.ndarray | None:
    if not spans:
        return None
    mask = np.zeros(lines, bool)
    for first, last in spans:
        mask[first:last] = True
    return mask
