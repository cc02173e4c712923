"""Files and folders: found, opened, unpacked; JSON lines and Parquet into frames. `delimited` reads CSV and its kin.

What is wrong with a file as a whole raises `SourceError`; what is wrong with a row rejects that row, with its line.
"""

import gzip
import zlib
from pathlib import Path

import msgspec
import polars as pl

from stream.cleaning import LINE, Cleaner, RejectedRow
from stream.errors import SourceError


def find(folder: Path, *names: str) -> Path:
    """The first of `names` in `folder`, as it is or with .gz.

    Raises:
        SourceError: none of them is there; the names are listed.
    """
    path = find_optional(folder, *names)
    if path is None:
        what = "is not a folder" if folder.exists() and not folder.is_dir() else f"has no {' or '.join(names)} (or .gz)"
        raise SourceError(f"{folder}: {what}; give the folder that holds the data set as it was downloaded")
    return path


def find_optional(folder: Path, *names: str) -> Path | None:
    """The first of `names` in `folder`, as it is or with .gz; None where there is none."""
    places = [folder / (name + ending) for name in names for ending in ("", ".gz")]
    return next((place for place in places if place.is_file()), None)


def open_bytes(path: Path) -> bytes:
    """What the file holds, unpacked where it is gzip.

    Raises:
        SourceError: missing, a folder, empty, cut off, or of a form that is not read.
    """
    if path.is_dir():
        raise SourceError(f"{path}: is a folder; name the file in it")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}; check the path") from None
    if raw[:2] == b"PK":
        raise SourceError(f"{path}: is a zip archive; unpack it and name the file inside")
    if raw[:2] == b"\x1f\x8b":
        raw = _unpacked(path, raw)
    if not raw.strip():
        raise SourceError(f"{path}: is empty; give a file with a header line and events")
    return raw


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does; false where there is no such file."""
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PAR1"
    except OSError:
        return False


def read_json_lines(path: Path, cleaner: Cleaner, row: type[msgspec.Struct]) -> pl.DataFrame:
    """A file of one JSON object a line, as `row` describes it; columns are its fields, and `line_number`.

    Raises:
        SourceError: the file cannot be read.
    """
    decoder = msgspec.json.Decoder(row)
    rows: list[msgspec.Struct] = []
    lines: list[int] = []
    rejected: list[RejectedRow] = []
    for number, text in enumerate(open_bytes(path).splitlines(), 1):
        if not text.strip():
            continue
        try:
            rows.append(decoder.decode(text))
            lines.append(number)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            shown = text[:500].decode("utf-8", "replace")
            rejected.append(RejectedRow(path.name, number, f"not a JSON object as expected: {error}", {"text": shown}))
    cleaner.read(len(rows) + len(rejected))
    cleaner.reject(rejected)
    names = row.__struct_fields__
    return pl.DataFrame(
        {name: [getattr(parsed, name) for parsed in rows] for name in names} | {LINE: lines}, strict=False
    )


def read_parquet(path: Path, cleaner: Cleaner | None = None) -> pl.DataFrame:
    """A Parquet file with its own types, and `line_number` (the row, from 1).

    Raises:
        SourceError: missing, or not Parquet.
    """
    if path.is_dir() or not path.exists():
        raise SourceError(f"{path}: is {'a folder' if path.is_dir() else 'not there'}; name a Parquet file")
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(
            f"{path}: cannot be read as Parquet ({str(error)[:200]}); was it cut off in a download?"
        ) from None
    if cleaner is not None:
        cleaner.read(frame.height)
    return frame.with_row_index(LINE, 1).with_columns(pl.col(LINE).cast(pl.Int64))


def _unpacked(path: Path, raw: bytes) -> bytes:
    try:
        return gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(
            f"{path}: the gzip file is damaged or cut off ({error}); fetch it again and compare its size"
        ) from None
