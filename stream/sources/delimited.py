"""Delimited text into frames: CSV and its kin, gz or not. Every value stays text here, empty ones are null.

Every physical line is accounted for: header, empty lines, lines within quoted values, rows kept and rows rejected.
"""

import io
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from stream.cleaning import LINE, MAX_SHOWN, Cleaner
from stream.cleaning_report import FileCount, RejectedRow
from stream.errors import SourceError
from stream.sources.columns import usable_name
from stream.sources.encodings import MARKED, MARKED_BYTES, NUL_MARK, decodes, to_utf8, unmarked, with_line_feeds
from stream.sources.files import open_bytes
from stream.sources.preamble import header_hint, headless_hint, without_first_lines
from stream.sources.quotes import QuotedText, QuoteRules, settle_quotes

DELIMITERS: Final = (",", "\t", ";", "|", "::")
NAMED: Final = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "bar": "|", "pipe": "|", "space": " "}
BLOCK_BYTES: Final = 16 * 1024 * 1024
MAX_BLOCK_BYTES: Final = 2**31 - 1
NULLS: Final = ("NULL", "null", "NaN", "nan", "NA", "N/A", "None", "\\N")
"""What the public data sets write for "nothing"."""
MAX_UNDECODABLE: Final = 0.01
"""Share of rows with bytes of another encoding from which on the whole file is taken to be in another encoding."""
SEPARATOR_LINE: Final = re.compile(rb'"?sep=([^\n"]+)"?\n', re.IGNORECASE)
"""What Excel writes as a first line of its own."""
WRONG_WIDTH: Final = "another number of fields than the header"
UNDECODABLE: Final = "bytes of another encoding"
MAX_HEADER_LINES: Final = 5
MAX_COLUMNS: Final = 10_000
_STAND_IN: Final = b"\x1f"  # ASCII's own unit separator stands in for a delimiter of several bytes


class TextForm(msgspec.Struct, frozen=True):
    """How a text file is written. `delimiter` and `encoding` are detected where they are None; `columns` names the
    columns of a file without a header; a file that is not in `encoding` is read in `fallback`; `missing` lists texts
    that mean "nothing", beside the empty one; the first `skip` lines are left out."""

    delimiter: str | None = None
    encoding: str | None = None
    fallback: str | None = None
    quotes: bool = True
    columns: tuple[str, ...] = ()
    missing: Sequence[str] = NULLS
    skip: int = 0


DEFAULT_FORM: Final = TextForm()


class Heading(msgspec.Struct, frozen=True):
    """What stands above the rows: names, the delimiter (one byte), and how many lines it takes.

    `skipped` lines and `blank` ones come first. `hint` is what an error adds where these are no names of columns.
    """

    names: list[str]
    delimiter: bytes
    lines: int
    blank: int
    skipped: int
    hint: str


class TextTable(msgspec.Struct, frozen=True):
    """The rows of a text file: every column a String (null where empty), and `LINE`.

    `hint` is what an error adds where the file's first line holds no names of columns.
    """

    frame: pl.DataFrame
    hint: str


def read_text(path: Path, cleaner: Cleaner, form: TextForm = DEFAULT_FORM) -> pl.DataFrame:
    """The rows of a delimited text file. Raises like `read_table`."""
    return read_table(path, cleaner, form, open_bytes(path)).frame


def read_table(path: Path, cleaner: Cleaner, form: TextForm, raw: bytes) -> TextTable:
    """A delimited text file, whose bytes are `raw`.

    Rows with another number of fields, or with bytes of another encoding, are rejected.

    Raises:
        SourceError: the file cannot be read as asked.
    """
    text = _utf8(path, raw, form, cleaner)
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    heading, body = _heading(path, text, form)
    top = heading.skipped + heading.blank + heading.lines
    quoted = QuotedText(body, None, [], backslashes=False)
    if form.quotes and b'"' in body:
        quoted = settle_quotes(body, heading.delimiter, len(heading.names))
        _say_quotes(cleaner, path, quoted, top)
    table, broken = _parse(path, quoted, heading, form)
    if broken and not table.num_rows and all(_ends_empty(row, heading) for row in broken):
        cleaner.note(f"{path.name}: every row ends in a delimiter, the header does not")
        heading = msgspec.structs.replace(heading, names=[*heading.names, f"column_{len(heading.names) + 1}"])
        table, broken = _parse(path, quoted, heading, form)
    if broken and not table.num_rows and heading.hint:
        raise SourceError(f"{path}: no row has as many fields as its first line{heading.hint}")
    numbers = _line_numbers(quoted, top)
    if len(numbers) != table.num_rows + len(broken):
        raise SourceError(
            f"{path}: {len(numbers):,} rows by its line ends, {table.num_rows + len(broken):,} by its quotes"
        )
    broken_rows = np.fromiter((row.number - 1 for row in broken), int, len(broken))
    good = np.delete(numbers, broken_rows)
    filled = _not_blank(table)
    rows = int(filled.sum()) + len(broken)
    continued = 0 if quoted.continued is None else int(quoted.continued.sum())
    blank = heading.blank + len(filled) - int(filled.sum())
    cleaner.count(FileCount(path.name, lines, rows, heading.lines, blank, continued, heading.skipped))
    cleaner.reject([_broken(path, heading, row, int(numbers[row.number - 1])) for row in broken])
    if not filled.all():
        table, good = table.filter(pa.array(filled)), good[filled]
    return TextTable(_as_text(path, table, good, cleaner, marked=MARKED_BYTES in body), heading.hint)


def sniff(path: Path, first: str, hint: str = "") -> str:
    """The delimiter that a header line was written with; what stands within quotes does not count.

    Raises:
        SourceError: none of the usual ones occurs in it.
    """
    outside = "".join(first.split('"')[::2])
    counts = {delimiter: outside.count(delimiter) for delimiter in DELIMITERS}
    best = max(counts, key=lambda delimiter: (counts[delimiter], len(delimiter)))
    if not counts[best]:
        raise SourceError(
            f"{path}: no comma, tab, semicolon, bar or :: in its first line {first[:120]!r}; "
            f"check that the first line holds the names of the columns, or name another --delimiter{hint}"
        )
    return best


def _utf8(path: Path, raw: bytes, form: TextForm, cleaner: Cleaner) -> bytes:
    encoding = form.encoding
    if form.fallback is not None and not decodes(raw, encoding or "utf-8"):
        cleaner.note(f"{path.name} is not {encoding or 'utf-8'}: read as {form.fallback}")
        encoding = form.fallback
    text, marked = to_utf8(path, raw, encoding)
    if marked is not None:
        cleaner.note(f"{path.name}: {marked}, by its byte order mark")
    text = with_line_feeds(text)
    if not text.strip():
        raise SourceError(f"{path}: is empty; give a file with a header line and rows")
    return text


def _heading(path: Path, text: bytes, form: TextForm) -> tuple[Heading, bytes]:
    """The heading, and the rows below it with a delimiter of one byte."""
    if text[:MAX_SHOWN].lstrip().startswith((b"{", b"[{", b"[\n")):
        raise SourceError(f"{path}: is JSON, not a table; give CSV or Parquet, or send it to POST /v1/events")
    text = without_first_lines(path, text, form.skip)
    blank = len(text) - len(text.lstrip(b"\n"))
    body, delimiter, lines = text[blank:], form.delimiter, 0
    stated = SEPARATOR_LINE.match(body)
    if stated:
        delimiter = delimiter or stated[1].decode("utf-8", "replace")
        body, lines = body[stated.end() :], 1
    first = body.split(b"\n", 1)[0].decode("utf-8", "replace")
    delimiter = _usable(path, delimiter) if delimiter else None
    hint = header_hint(body, (delimiter,) if delimiter else DELIMITERS, form.skip + blank + lines)
    delimiter = delimiter or sniff(path, first, hint)
    if delimiter not in first:
        raise SourceError(f"{path}: its first line {first[:120]!r} has no {delimiter!r}; {_likely(first)}{hint}")
    sign = delimiter.encode()
    if len(sign) > 1:
        body, sign = body.replace(sign, _STAND_IN), _STAND_IN
    if form.columns:
        return Heading(list(form.columns), sign, lines, blank, form.skip, ""), body
    record = _header_record(body, sign, quotes=form.quotes)
    values = QuoteRules(sign).values(record) if form.quotes else record.split(sign)
    names = _names(path, values, hint)
    heading = Heading(names, sign, lines + 1 + record.count(b"\n"), blank, form.skip, hint or headless_hint(names))
    return heading, body[len(record) + 1 :]


def _usable(path: Path, delimiter: str) -> str:
    delimiter = NAMED.get(delimiter.lower(), delimiter)
    if '"' in delimiter or "\n" in delimiter or "\r" in delimiter:
        raise SourceError(f"{path}: {delimiter!r} cannot be a --delimiter; give a sign such as ; or tab")
    return delimiter


def _header_record(body: bytes, sign: bytes, *, quotes: bool) -> bytes:
    """The header line; a name in quotes may span a few lines."""
    if quotes:
        rules = QuoteRules(sign)
        match = rules.record.match(body)
        lines = [] if match is None else match[0].split(b"\n")
        width = len(rules.fields(body.split(b"\n", 1)[0]))
        are_rows = any(len(rules.fields(line)) == width for line in lines[1:])
        if match is not None and len(lines) <= MAX_HEADER_LINES and not are_rows:
            return match[0]
    return body.split(b"\n", 1)[0]


def _names(path: Path, values: list[bytes], hint: str) -> list[str]:
    if len(values) > MAX_COLUMNS:
        raise SourceError(
            f"{path}: has {len(values):,} columns; {MAX_COLUMNS:,} are read. Is the delimiter another (--delimiter)? "
            "Otherwise leave columns out"
        )
    names = [value.decode("utf-8", "replace").strip() for value in values]
    names = [name or f"column_{number}" for number, name in enumerate(names, 1)]
    names = [usable_name(name) for name in names]
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise SourceError(
            f"{path}: the header names {', '.join(repeated)} more than once; give columns their own names{hint}"
        )
    return names


def _likely(first: str) -> str:
    counts = {delimiter: first.count(delimiter) for delimiter in DELIMITERS}
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return f"it looks like {best!r}" if counts[best] else "no usual delimiter is in it"


def _say_quotes(cleaner: Cleaner, path: Path, quoted: QuotedText, top: int) -> None:
    if quoted.backslashes:
        cleaner.note(f'{path.name}: \\" within quotes is read as a quote')
    if quoted.stray:
        if cleaner.cleaning.strict:
            raise SourceError(
                f"{path} line {quoted.stray[0] + top + 1}: a quote that encloses no value (--strict stops there; "
                "without it the line is read as plain text; --no-quotes reads every quote so)"
            )
        lines = ", ".join(str(line + top + 1) for line in quoted.stray[:3])
        cleaner.note(
            f"{path.name}: {len(quoted.stray):,} lines with a quote that encloses no value (line {lines}"
            f"{' ...' if len(quoted.stray) > 3 else ''}): read as plain text, each line by itself"
        )
    if quoted.continued is not None:
        first = int(quoted.continued.argmax()) + top
        cleaner.note(
            f"{path.name}: {int(quoted.continued.sum()):,} lines go on with a quoted value of the line before "
            f"(the first value is in line {first}; if that is wrong: --no-quotes)"
        )


def _parse(
    path: Path, quoted: QuotedText, heading: Heading, form: TextForm
) -> tuple[pa.Table, list[pa_csv.InvalidRow]]:
    if not quoted.body:
        return pa.table({name: pa.array([], pa.large_string()) for name in heading.names}), []
    for block in (BLOCK_BYTES, min(len(quoted.body) + 1, MAX_BLOCK_BYTES)):
        try:
            return _parsed_blocks(quoted, heading, form, block)
        except pa.ArrowInvalid as error:
            reason = str(error)[:200]
            if "straddl" not in reason:  # else: a row is longer than a block
                break
    raise SourceError(f"{path}: cannot be read: {reason}; is the delimiter another (--delimiter)?")


def _parsed_blocks(
    quoted: QuotedText, heading: Heading, form: TextForm, block: int
) -> tuple[pa.Table, list[pa_csv.InvalidRow]]:
    broken: list[pa_csv.InvalidRow] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        broken.append(row)
        return "skip"

    table = pa_csv.read_csv(
        io.BytesIO(quoted.body),
        read_options=pa_csv.ReadOptions(
            use_threads=False,  # only then an invalid row knows its number
            column_names=heading.names,
            block_size=block,
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=heading.delimiter.decode(),
            quote_char='"' if form.quotes else False,
            newlines_in_values=quoted.continued is not None,
            ignore_empty_lines=False,
            invalid_row_handler=skip,
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(heading.names, pa.large_string()),
            strings_can_be_null=True,
            null_values=["", *form.missing],
        ),
    )
    return table, broken


def _broken(path: Path, heading: Heading, row: pa_csv.InvalidRow, line: int) -> RejectedRow:
    reason = f"{row.actual_columns} fields where the header has {len(heading.names)}"
    if row.actual_columns > len(heading.names):
        reason += f" (a value that holds {_written(heading.delimiter)!r} has to stand in quotes)"
    text = _written(unmarked(row.text).encode())[:MAX_SHOWN]
    return RejectedRow(path.name, line, reason, {"text": text}, WRONG_WIDTH)


def _written(text: bytes) -> str:
    return text.replace(_STAND_IN, b"::").decode("utf-8", "replace")


def _ends_empty(row: pa_csv.InvalidRow, heading: Heading) -> bool:
    one_more: bool = row.actual_columns == len(heading.names) + 1
    return one_more and str(row.text).rstrip("\n").endswith(heading.delimiter.decode())


def _line_numbers(quoted: QuotedText, top: int) -> np.ndarray:
    """The line that each row begins with, from 1; `top` lines stand above the rows."""
    body = quoted.body
    lines = body.count(b"\n") + bool(body and not body.endswith(b"\n"))
    numbers = np.arange(top + 1, top + 1 + lines)
    return numbers if quoted.continued is None else numbers[~quoted.continued]


def _not_blank(table: pa.Table) -> np.ndarray:
    """Rows that hold anything; an empty line is no row."""
    filled = np.zeros(table.num_rows, bool)
    for column in table.columns:
        if not column.null_count:
            return np.ones(table.num_rows, bool)
        filled |= column.is_valid().to_numpy()
    return filled


def _as_text(path: Path, table: pa.Table, numbers: np.ndarray, cleaner: Cleaner, *, marked: bool) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame = frame.with_columns(pl.Series(LINE, numbers, pl.Int64))
    return _without_undecodable(path, frame, cleaner) if marked else frame


def _without_undecodable(path: Path, frame: pl.DataFrame, cleaner: Cleaner) -> pl.DataFrame:
    """Without the rows that hold bytes of another encoding."""
    empty = pl.Series([None], dtype=pl.String).new_from_index(0, frame.height)
    reasons = empty
    for column in frame.get_columns():
        if column.dtype == pl.String:
            bad = column.str.contains(MARKED).fill_null(value=False) & reasons.is_null()
            texts = [
                f"{column.name}: {'a NUL byte' if NUL_MARK in text else UNDECODABLE}: {unmarked(text)[:40]!r}"
                for text in column.filter(bad)
            ]
            reasons = reasons.scatter(bad.arg_true(), texts)
    nul = reasons.str.contains("a NUL byte: ", literal=True).fill_null(value=False)
    rows = reasons.is_not_null() & ~nul
    if rows.sum() > max(1, frame.height * MAX_UNDECODABLE):
        first = rows.arg_true()[0]
        raise SourceError(
            f"{path} line {frame[LINE][first]}: {reasons[first]}, and so in {rows.sum():,} of {frame.height:,} rows; "
            "give the file's --encoding (latin-1 and cp1252 are usual)"
        )
    fault = reasons.set(rows, UNDECODABLE).set(nul, "NUL bytes")
    faults = pl.DataFrame({"fault": fault, "reason": reasons})
    shown = frame.with_columns(pl.col(pl.String).str.replace_all(MARKED, "\ufffd"))
    return cleaner.keep_parsed(path.name, shown, frame, faults)
