"""Columns of Parquet as this system can hold them: checked one by one, never cast in the dark.

Ids become text, attributes become texts, numbers, Booleans and lists of these; a struct becomes one attribute for each
of its fields (`geo.lat`), what lies deeper becomes JSON text.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from stream.cleaning import LINE, Cleaner
from stream.cleaning_report import FileCount
from stream.errors import SourceError
from stream.sources.columns import usable_name
from stream.sources.numbers import read_numbers, whole_ids

PLAIN: Final = (pl.String, pl.Boolean, pl.Binary, pl.Null, pl.Categorical, pl.Enum, pl.Decimal)
"""Types that hold one value, beside numbers and times; all others are lists, structs, maps and their like."""
POLARS_ERRORS: Final = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
WIDE: Final = (pl.UInt64, pl.Int128, pl.UInt128)
"""Integers that the event schema may not hold: as attributes, floats."""
ISO: Final = "%Y-%m-%dT%H:%M:%S%.3f"


class CheckedColumns(msgspec.Struct, frozen=True):
    """A table with `LINE`, and for columns that hold bytes which are no text: the rows of these.

    `hint` is what an error adds where the columns do not have the names of fields.
    """

    frame: pl.DataFrame
    unreadable: dict[str, pl.Series] = {}
    hint: str = ""


def read_columns(path: Path, cleaner: Cleaner, raw: bytes | None) -> CheckedColumns:
    """A Parquet file (`raw`: its bytes, where it came through a pipe), with binary columns as text.

    Raises:
        SourceError: it is not Parquet, or damaged.
    """
    frame = _read(path, raw, cleaner)
    frame.columns = [usable_name(name) for name in frame.columns]
    cleaner.count(FileCount(path.name, frame.height, frame.height))
    unreadable: dict[str, pl.Series] = {}
    columns: list[pl.Series] = []
    for column in frame.get_columns():
        text, bad = _without_bytes(column)
        columns.append(text)
        if bad is not None and bad.any():
            unreadable[column.name] = bad
    lines = pl.int_range(1, frame.height + 1, dtype=pl.Int64, eager=True).alias(LINE)
    return CheckedColumns(pl.DataFrame([*columns, lines]), unreadable)


def flat(column: pl.Series) -> pl.Series:
    """The column without lists, structs and durations: these as text, for comparing and showing."""
    return column if is_plain(column.dtype) and column.dtype != pl.Duration else _texts_of(column)


def as_ids(path: Path, column: pl.Series) -> tuple[pl.Series, str | None]:
    """The column as ids or labels, text without blanks around it, null where empty; and what was changed.

    Raises:
        SourceError: it holds lists or structs.
    """
    if not is_plain(column.dtype):
        raise SourceError(
            f"{path}: column {column.name!r} holds {_kind_of(column.dtype)}, not texts or numbers; map another (--map)"
        )
    if column.dtype.is_temporal():
        return _scalar(column), None
    if isinstance(column.dtype, pl.Decimal) and not column.dtype.scale:
        return column.cast(pl.String), None
    text, note = whole_ids(column)
    return text.set(text.str.len_chars() == 0, None), note


def as_attributes(column: pl.Series, depth: int = 2) -> list[pl.Series]:
    """The column as attributes: itself, or one for each field of its structs."""
    if column.dtype == pl.Struct and depth:
        fields = [column.struct.field(field.name).alias(f"{column.name}.{field.name}") for field in _fields(column)]
        return [attribute for field in fields for attribute in as_attributes(field, depth - 1)]
    if column.dtype == pl.Struct:
        return [_texts_of(column)]
    if column.dtype in (pl.List, pl.Array):
        return [_list(column)]
    return [_scalar(column) if is_plain(column.dtype) else _texts_of(column)]


def _read(path: Path, raw: bytes | None, cleaner: Cleaner) -> pl.DataFrame:
    reason = "zones of times that are no names"
    names, readable = _described(path if raw is None else pa.BufferReader(raw))
    repeated = sorted(name for name, times in Counter(names).items() if times > 1)
    if repeated:
        raise SourceError(f"{path}: names {', '.join(repeated)} more than once; give columns their own names")
    try:
        if readable:
            return pl.read_parquet(path if raw is None else BytesIO(raw))
    except POLARS_ERRORS as error:
        reason = str(error)
    except OSError as error:
        reason = error.strerror or str(error)
    try:
        table = pq.read_table(path if raw is None else pa.BufferReader(raw))
        return pl.DataFrame([_from_arrow(cleaner, path, name, table.column(name)) for name in table.column_names])
    except (pa.ArrowException, OSError, ValueError, TypeError, *POLARS_ERRORS):
        raise SourceError(
            f"{path}: cannot be read as Parquet ({reason[:200]}); was it cut off in a download?"
        ) from None


def _described(source: Path | pa.BufferReader) -> tuple[list[str], bool]:
    """The columns, and whether Polars knows the zone of every time.

    Offsets such as +05:30, and names of zones that do not exist, make it panic.
    """
    try:
        schema = pq.read_schema(source)
    except (pa.ArrowException, OSError, ValueError):
        return [], True  # Polars says what is wrong
    zones = {zone for field in schema for zone in _zones(field.type)}
    return schema.names, all(_is_zone(zone) for zone in zones)


def _zones(kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        yield kind.tz
    for number in range(kind.num_fields):
        yield from _zones(kind.field(number).type)


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return False
    return True


def _from_arrow(cleaner: Cleaner, path: Path, name: str, column: pa.ChunkedArray) -> pl.Series:
    """A column that may hold bytes which are no text: as binary."""
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    if pa.types.is_timestamp(column.type) and column.type.tz is not None:  # the moments stay the same
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    if pa.types.is_decimal256(column.type):  # wider than Polars has them
        column = column.cast(pa.float64(), safe=False)
    try:
        series = pl.Series(name, column)
        series.to_list()
    except (UnicodeDecodeError, pa.ArrowException, *POLARS_ERRORS):
        cleaner.note(f"{path.name}: column {name!r} ({column.type}) cannot be read and is left out")
        return pl.Series(name, [None], pl.String).new_from_index(0, len(column))
    return series


def _without_bytes(column: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    """Binary and categories as text, with the rows that are none; floats that are no numbers as missing.

    A text with U+0000 is none either: the event schema refuses it.
    """
    kind = column.dtype
    if kind == pl.Binary:
        text = pl.Series(column.name, [_text(value) for value in column.to_list()], pl.String)
        return text, text.is_null() & column.is_not_null()
    if kind.is_float():
        return column.set(~column.is_finite().fill_null(value=True), None), None
    if kind in (pl.Categorical, pl.Enum, pl.Null, pl.Time):
        column = column.cast(pl.String)
    if column.dtype != pl.String:
        return column, None
    bad = column.str.contains("\0", literal=True).fill_null(value=False)
    return (column.set(bad, None), bad) if bad.any() else (column, None)


def _scalar(column: pl.Series) -> pl.Series:
    kind = column.dtype
    if kind == pl.Datetime:
        zone = getattr(kind, "time_zone", None)
        moments = column.dt.convert_time_zone("UTC") if zone else column
        return moments.dt.strftime(f"{ISO}{'Z' if zone else ''}")
    if kind in (pl.Decimal, pl.Duration):
        return read_numbers(column)[0]
    if kind in (pl.Int128, pl.UInt128):
        return column.cast(pl.Float64)
    if kind == pl.UInt64:
        return column.cast(pl.Int64) if _fits(column) else column.cast(pl.Float64)
    if kind.is_numeric() or kind == pl.Boolean:
        return column
    return _without_bytes(column)[0].cast(pl.String)


def _fits(column: pl.Series) -> bool:
    most = column.max()
    return not isinstance(most, int) or most < 2**63


def _list(column: pl.Series) -> pl.Series:
    inner = column.dtype.inner  # type: ignore[attr-defined]
    if inner in (pl.String, pl.Boolean) or (inner.is_integer() and inner not in WIDE):
        return column.cast(pl.List(inner)) if column.dtype == pl.Array else column
    rows = [None if row is None else [_plain(value) for value in row] for row in column.to_list()]
    if inner in WIDE:
        rows = [None if row is None else [None if v is None else float(v) for v in row] for row in rows]
    numbers = all(isinstance(value, int | float | None) for row in rows for value in row or ())
    if not numbers:
        rows = [None if row is None else [None if v is None else str(v) for v in row] for row in rows]
    return pl.Series(column.name, rows, pl.List(pl.Float64 if numbers else pl.String))


def _texts_of(column: pl.Series) -> pl.Series:
    return pl.Series(column.name, [None if v is None else str(_plain(v)) for v in column.to_list()], pl.String)


def _plain(value: Any) -> str | int | float | bool | None:
    """A value of any type as JSON can hold it by itself."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else float(value)
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, pl.Series):
        value = value.to_list()
    try:
        text = msgspec.json.encode(value, enc_hook=str).decode()
    except (TypeError, ValueError, msgspec.EncodeError):
        return str(value)
    return text.strip('"')


def _text(value: bytes | None) -> str | None:
    try:
        text = None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if text is None or "\0" in text else text


def _fields(column: pl.Series) -> list[pl.Field]:
    assert isinstance(column.dtype, pl.Struct)
    return column.dtype.fields


def _kind_of(dtype: pl.DataType) -> str:
    return "structs" if dtype == pl.Struct else "lists" if dtype in (pl.List, pl.Array) else str(dtype)


def is_plain(dtype: pl.DataType) -> bool:
    """Whether a type holds one value: no list, struct or map."""
    return dtype in PLAIN or dtype.is_numeric() or dtype.is_temporal()
