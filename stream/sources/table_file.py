"""A file of one's own, text or Parquet, plain, packed or through a pipe: opened once, its columns chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from stream.cleaning import LINE, Cleaner
from stream.sources.columnar import CheckedColumns, as_ids, flat, is_plain, read_columns
from stream.sources.delimited import TextForm, read_text
from stream.sources.files import is_parquet, is_regular, raw_bytes, unpacked
from stream.sources.table_options import TableOptions

NULL_NAMES: Final = ("NA", "N/A", "NULL", "null", "None", "none", "nan", "NaN", "\\N")
"""Texts that often mean "nothing", but are names as well: kept, and pointed out."""
HEAD: Final = 16


def open_columns(path: Path, cleaner: Cleaner, options: TableOptions) -> CheckedColumns:
    """The file's columns. Texts have no blanks around them and are null where empty, or in `options.missing`.

    Raises:
        SourceError: it cannot be read as asked.
    """
    raw: bytes | None = None if is_regular(path) and _is_parquet_file(path) else raw_bytes(path)
    if raw is None or is_parquet(raw[:HEAD]):
        opened = read_columns(path, cleaner, raw)
    else:
        form = TextForm(
            delimiter=options.delimiter, encoding=options.encoding, quotes=options.quotes, missing=options.missing
        )
        opened = CheckedColumns(read_text(path, cleaner, form, unpacked(path, raw)))
    nothing = ["", *options.missing]
    texts = [column for column in opened.frame.get_columns() if column.dtype == pl.String]
    stripped = [column.str.strip_chars() for column in texts]
    frame = opened.frame.with_columns(column.set(column.is_in(nothing), None) for column in stripped)
    return CheckedColumns(frame, opened.unreadable)


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


def row_example(path: Path, frame: pl.DataFrame, rows: pl.Series, column: str) -> str:
    """Where the first of `rows` (Boolean) is, and what it holds in `column`."""
    place = rows.arg_true()[0]
    return f"{path.name} line {frame[LINE][place]}: {str(flat(frame[column].gather([place]))[0])[:80]!r}"


def _is_parquet_file(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_parquet(file.read(HEAD))
    except OSError:
        return False
