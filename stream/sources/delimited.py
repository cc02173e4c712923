"""Delimited text into frames: CSV and its kin, gz or not. Every value stays text here, empty ones are null."""

import io
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from stream.cleaning import LINE, Cleaner, RejectedRow
from stream.errors import SourceError
from stream.sources.files import open_bytes

DELIMITERS: Final = (",", "\t", ";", "|", "::")
BLOCK_BYTES: Final = 16 * 1024 * 1024
NULLS: Final = ("", "NULL", "null", "NaN", "nan", "NA", "N/A", "None", "\\N")
MAX_UNDECODABLE: Final = 0.01
"""Share of rows with bytes of another encoding from which on the whole file is taken to be in another encoding."""
_STAND_IN: Final = b"\x1f"  # ASCII's own unit separator stands in for a delimiter of two characters


def read_text(
    path: Path,
    cleaner: Cleaner,
    *,
    columns: list[str] | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    fallback: str | None = None,
    quote: bool = True,
) -> pl.DataFrame:
    """A delimited text file: every column a String (null where empty), and `line_number`.

    Without `columns` the first line names them. Without `delimiter` it is taken from that line.
    Rows with another number of fields, or with bytes of another encoding, are rejected; a file that is not in
    `encoding` is read in `fallback` where one is named.

    Raises:
        SourceError: the file cannot be read as asked.
    """
    raw = open_bytes(path)
    if fallback is not None and not _decodes(raw, encoding):
        cleaner.note(f"{path.name} is not {encoding}: read as {fallback}")
        encoding = fallback
    _check_encoding(path, raw, encoding)
    first = raw[: _line_end(raw)].decode(encoding, "replace").lstrip("\ufeff").rstrip("\r")
    delimiter = delimiter or sniff(path, first)
    if delimiter not in first:
        raise SourceError(f"{path}: its first line {first[:120]!r} has no {delimiter!r}; {_likely(first)}")
    if len(delimiter) > 1:
        raw, first, delimiter = (
            raw.replace(delimiter.encode(), _STAND_IN),
            first.replace(delimiter, _STAND_IN.decode()),
            _STAND_IN.decode(),
        )
    names = columns or _header(path, first, delimiter, quote)
    table, broken = _parse(
        path, raw, names, delimiter=delimiter, encoding=encoding, quote=quote, header=columns is None
    )
    numbers = _row_numbers(table.num_rows, broken, first_row=1 if columns else 2)
    cleaner.read(table.num_rows + len(broken))
    cleaner.reject([_broken(path, names, row) for row in broken])
    frame = _as_text(path, table, numbers, cleaner)
    blank = pl.all_horizontal(pl.all().exclude(LINE).is_null())
    kept = frame.filter(~blank)
    cleaner.read(kept.height - frame.height)  # an empty line is no row
    return _true_lines(kept) if quote and b'"' in raw else kept


def sniff(path: Path, first: str) -> str:
    """The delimiter that a header line was written with.

    Raises:
        SourceError: none of the usual ones occurs in it.
    """
    counts = {delimiter: first.count(delimiter) for delimiter in DELIMITERS}
    best = max(counts, key=lambda delimiter: (counts[delimiter], len(delimiter)))
    if not counts[best]:
        raise SourceError(
            f"{path}: no comma, tab, semicolon, bar or :: in its first line {first[:120]!r}; "
            "name the delimiter, or check that the first line holds the names of the columns"
        )
    return best


def _check_encoding(path: Path, raw: bytes, encoding: str) -> None:
    if raw[:2] in {b"\xff\xfe", b"\xfe\xff"} and not encoding.lower().startswith("utf-16"):
        raise SourceError(f"{path}: is UTF-16; save it as UTF-8, or give encoding=utf-16")
    try:
        raw[:1000].decode(encoding, "ignore")
    except LookupError:
        raise SourceError(f"{path}: encoding {encoding!r} is not known; utf-8, latin-1 and cp1252 are usual") from None
    if b"\x00" in raw[:1000] and not encoding.lower().startswith("utf-16"):
        raise SourceError(f"{path}: is binary, not text; CSV (gz or not) and Parquet files can be read")


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _line_end(raw: bytes) -> int:
    end = raw.find(b"\n")
    return len(raw) if end < 0 else end


def _likely(first: str) -> str:
    counts = {delimiter: first.count(delimiter) for delimiter in DELIMITERS}
    best = max(counts, key=lambda delimiter: counts[delimiter])
    return f"it looks like {best!r}" if counts[best] else "no usual delimiter is in it"


def _header(path: Path, first: str, delimiter: str, quote: bool) -> list[str]:
    names = [name.strip().strip('"' if quote else "") for name in first.split(delimiter)]
    names = [name or f"column_{number}" for number, name in enumerate(names, 1)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise SourceError(
            f"{path}: the header names {', '.join(repeated)} more than once; give columns their own names"
        )
    return names


def _parse(
    path: Path, raw: bytes, names: list[str], *, delimiter: str, encoding: str, quote: bool, header: bool
) -> tuple[pa.Table, list[pa_csv.InvalidRow]]:
    broken: list[pa_csv.InvalidRow] = []

    def skip(row: pa_csv.InvalidRow) -> str:
        broken.append(row)
        return "skip"

    try:
        table = pa_csv.read_csv(
            io.BytesIO(raw),
            read_options=pa_csv.ReadOptions(
                use_threads=False,  # only then an invalid row knows its number
                column_names=names,
                skip_rows=1 if header else 0,
                encoding=encoding,
                block_size=BLOCK_BYTES,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=delimiter,
                quote_char='"' if quote else False,
                newlines_in_values=quote,
                ignore_empty_lines=False,
                invalid_row_handler=skip,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                strings_can_be_null=True,
                null_values=list(NULLS),
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV" in str(error):
            return pa.table({name: pa.array([], pa.binary()) for name in names}), []
        raise SourceError(
            f"{path}: cannot be read: {error}; is a quote opened and never closed, or the delimiter another?"
        ) from None
    return table, broken


def _broken(path: Path, names: list[str], row: pa_csv.InvalidRow) -> RejectedRow:
    if row.text.count('"') % 2 and "\n" in row.text:
        raise SourceError(
            f"{path} line {row.number}: a quote is opened and not closed, and the rest of the file would be lost: "
            f"{row.text[:80]!r}; correct that line, or read without quotes"
        )
    reason = f"{row.actual_columns} fields where the header has {len(names)}"
    return RejectedRow(path.name, row.number, reason, {"text": row.text[:500]})


def _row_numbers(good: int, broken: list[pa_csv.InvalidRow], first_row: int) -> np.ndarray:
    every = np.arange(first_row, first_row + good + len(broken))
    return np.delete(every, [row.number - first_row for row in broken])


def _as_text(path: Path, table: pa.Table, numbers: np.ndarray, cleaner: Cleaner) -> pl.DataFrame:
    try:
        text = table.cast(pa.schema([(name, pa.large_string()) for name in table.column_names]))
    except pa.ArrowInvalid:
        table, numbers = _without_undecodable(path, table, numbers, cleaner)
        text = table.cast(pa.schema([(name, pa.large_string()) for name in table.column_names]))
    frame = pl.from_arrow(text)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.Series(LINE, numbers, pl.Int64))


def _without_undecodable(
    path: Path, table: pa.Table, numbers: np.ndarray, cleaner: Cleaner
) -> tuple[pa.Table, np.ndarray]:
    bad: dict[int, str] = {}
    for name in table.column_names:
        for place, value in enumerate(table.column(name).to_pylist()):
            try:
                if value is not None:
                    value.decode("utf-8")
            except UnicodeDecodeError as error:
                bad[place] = f"{name}: byte {value[error.start]:#04x} is not UTF-8"
    if len(bad) > max(1, table.num_rows * MAX_UNDECODABLE):
        place, reason = next(iter(bad.items()))
        raise SourceError(
            f"{path} line {numbers[place]}: {reason}, and so in {len(bad):,} of {table.num_rows:,} rows; "
            "give the file's encoding (latin-1 and cp1252 are usual)"
        )
    rows = table.take(sorted(bad)).to_pylist()
    shown = [{name: v.decode("utf-8", "replace") if v else None for name, v in row.items()} for row in rows]
    cleaner.reject(
        [RejectedRow(path.name, int(numbers[i]), bad[i], row) for i, row in zip(sorted(bad), shown, strict=True)]
    )
    good = np.setdiff1d(np.arange(table.num_rows), np.fromiter(bad, int))
    return table.take(good), numbers[good]


def _true_lines(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows that span lines (a quoted line break) push later rows down."""
    texts = [name for name in frame.columns if name != LINE]
    breaks = pl.sum_horizontal(pl.col(name).str.count_matches("\n", literal=True).fill_null(0) for name in texts)
    before = breaks.cum_sum() - breaks
    return frame.with_columns(pl.col(LINE) + before.cast(pl.Int64))
