"""A file of one's own, text or Parquet, plain, packed or through a pipe: opened once, its columns chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from stream.cleaning import LINE, Cleaner
from stream.sources.columnar import CheckedColumns, as_ids, flat, is_plain, read_columns
from stream.sources.delimited import TextForm, read_table
from stream.sources.files import is_parquet, is_regular, raw_bytes, unpacked
from stream.sources.table_options import TableOptions
from stream.sources.times import AUTO, form_of

NULL_NAMES: Final = ("NA", "N/A", "NULL", "null", "None", "none", "nan", "NaN", "\\N")
"""Texts that often mean "nothing", but are names as well: kept, and pointed out."""
HEAD: Final = 16
TEXT_FORMULA: Final = r'^="([^"]*)"$'


def open_columns(path: Path, cleaner: Cleaner, options: TableOptions, skip: int = 0) -> CheckedColumns:
    """The file's columns. Texts have no blanks around them and are null where empty, or in `options.missing`.

    The first `skip` lines of a text file are left out.

    Raises:
        SourceError: it cannot be read as asked.
    """
    size = _size(path)
    raw: bytes | None = None if is_regular(path) and _is_parquet_file(path) else unpacked(path, raw_bytes(path))
    if raw is None or is_parquet(raw[:HEAD]):
        opened = read_columns(path, cleaner, raw)
    else:
        form = TextForm(
            delimiter=options.delimiter,
            encoding=options.encoding,
            quotes=options.quotes,
            missing=options.missing,
            skip=skip,
        )
        text = read_table(path, cleaner, form, raw)
        opened = CheckedColumns(text.frame, hint=text.hint)
    if _size(path) != size:
        cleaner.note(f"{path.name}: has changed while it was read, and its last line may be cut off; import it again")
    nothing = ["", *options.missing]
    texts = [column for column in opened.frame.get_columns() if column.dtype == pl.String]
    stripped = [_bare(cleaner, path, column) for column in texts]
    frame = opened.frame.with_columns(column.set(column.is_in(nothing), None) for column in stripped)
    return msgspec.structs.replace(opened, frame=frame)


def _bare(cleaner: Cleaner, path: Path, column: pl.Series) -> pl.Series:
    """Texts without blanks around them, and without the formula that keeps a spreadsheet from changing them."""
    text = column.str.strip_chars()
    formulas = text.str.contains(TEXT_FORMULA).fill_null(value=False)
    if not formulas.any():
        return text
    cleaner.note(f'{path.name}: {column.name}: {int(formulas.sum()):,} written as ="TEXT", taken as TEXT')
    return text.str.replace(TEXT_FORMULA, "$1").str.strip_chars()


def labels(
    cleaner: Cleaner, path: Path, frame: pl.DataFrame, chosen: Mapping[str, str], fields: Sequence[str]
) -> dict[str, pl.Series]:
    """The chosen columns of those fields as texts; what was changed, and what may mean "nothing", is said."""
    texts: dict[str, pl.Series] = {}
    for field in fields:
        if field not in chosen:
            continue
        column = frame[chosen[field]]
        if not is_plain(column.dtype) and field not in {"user_id", "item_id"}:
            given = column.is_not_null()
            if given.any():
                example = row_example(path, frame, given, column.name)
                cleaner.leave_out(field, int(given.sum()), f"{example} is no single text (another column: --map)")
            column = pl.Series(column.name, [None], pl.String).new_from_index(0, len(column))
        text, note = as_ids(path, column)
        texts[field] = text.alias(field)
        if note is not None:
            cleaner.note(f"{path.name}: {field}: {note}")
        doubtful = text.filter(text.is_in(NULL_NAMES))
        if len(doubtful):
            names = doubtful.unique().sort().to_list()
            cleaner.note(
                f"{path.name}: {field}: {', '.join(names)} in {len(doubtful):,} rows kept as a name; only empty values "
                f"are missing (if it means nothing: --missing {','.join(names)})"
            )
    return texts


def note_other_times(cleaner: Cleaner, path: Path, frame: pl.DataFrame, column: str, times: pl.Series) -> None:
    """Say how many rows of a column are written in another form than those that became `times`, and the cure."""
    others = times.is_null() & frame[column].is_not_null()
    if not others.any() or times.null_count() == len(times):
        return
    form = form_of(flat(frame[column].filter(others)).cast(pl.String).str.strip_chars())
    cure = f"'{AUTO}|{form}' reads them too" if form else f"'{AUTO}|FORM' reads a second form"
    cleaner.note(
        f"at: {int(others.sum()):,} rows rejected, whose times are written in another form, such as "
        f"{row_example(path, frame, others, column)} (--time-format {cure})"
    )


def row_example(path: Path, frame: pl.DataFrame, rows: pl.Series, column: str) -> str:
    """Where the first of `rows` (Boolean) is, and what it holds in `column`."""
    place = rows.arg_true()[0]
    return f"{path.name} line {frame[LINE][place]}: {str(flat(frame[column].gather([place]))[0])[:80]!r}"


def _size(path: Path) -> int | None:
    return path.stat().st_size if is_regular(path) and path.exists() else None


def _is_parquet_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_parquet(file.read(HEAD))
    except OSError:
        return False
