"""Files and folders: found, opened, unpacked; JSON lines and Parquet into frames. `delimited` reads CSV and its kin.

What is wrong with a file as a whole raises `SourceError`; what is wrong with a row rejects that row, with its line.
"""

import gzip
import sys
import zlib
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from stream.cleaning import LINE, Cleaner
from stream.cleaning_report import FileCount, RejectedRow
from stream.errors import SourceError

STANDARD_INPUT: Final = "-"
PACKED: Final = {
    b"PK\x03\x04": ("a zip archive or a workbook", "unpack it and name the file inside, or save the sheet as CSV"),
    b"\xd0\xcf\x11\xe0": ("an old workbook", "save the sheet as CSV"),
    b"BZh": ("packed with bzip2", "unpack it through a pipe: bzip2 -dc FILE, with - as the file here"),
    b"\xfd7zXZ\x00": ("packed with xz", "unpack it through a pipe: xz -dc FILE, with - as the file here"),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", "unpack it through a pipe: zstd -dc FILE, with - as the file here"),
    b"\x04\x22\x4d\x18": ("packed with lz4", "unpack it through a pipe: lz4 -dc FILE, with - as the file here"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it and name the file inside"),
    b"Rar!": ("a RAR archive", "unpack it and name the file inside"),
    b"ARROW1": ("an Arrow file", "write it as Parquet"),
    b"FEA1": ("a Feather file", "write it as Parquet"),
    b"ORC": ("an ORC file", "write it as Parquet"),
    b"Obj\x01": ("an Avro file", "write it as Parquet"),
    b"SQLite format 3": ("a database of SQLite", "export the table as CSV"),
    b"\x89HDF": ("an HDF5 file", "write it as Parquet"),
    b"\x93NUMPY": ("a NumPy array", "write it as CSV or Parquet"),
    b"%PDF": ("a PDF document", "export the table as CSV"),
    b"version https://git-lfs": ("a pointer of Git LFS, not the file", "fetch the file: git lfs pull"),
    b"<": ("a web page or XML, not a table", "was it a download that wanted a login? Fetch it again, or export CSV"),
}
"""How files begin that are not read, what they are, and the cure."""
TAR_MARK: Final = slice(257, 262)
MAX_PACKED: Final = 3
"""How often a file may be packed into itself."""


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
    """What the file holds, unpacked where it is gzip. `-` is standard input; a pipe is read once, to its end.

    Raises:
        SourceError: missing, a folder, empty, cut off, or of a form that is not read.
    """
    return unpacked(path, raw_bytes(path))


def raw_bytes(path: Path) -> bytes:
    """The bytes of a file or a pipe, as they are.

    Raises:
        SourceError: missing, a folder, or not readable.
    """
    if path.is_dir():
        raise SourceError(f"{path}: is a folder; name the file in it")
    try:
        return sys.stdin.buffer.read() if str(path) == STANDARD_INPUT else path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SourceError(f"{path}: cannot be read: {why}; check the path") from None


def unpacked(path: Path, raw: bytes) -> bytes:
    """The text in bytes that may be packed.

    Raises:
        SourceError: empty, cut off, or of a form that is not read.
    """
    for _ in range(MAX_PACKED):
        if raw[:2] == b"\x1f\x8b":
            raw = _unpacked(path, raw)
    for mark, (what, cure) in PACKED.items():
        if raw.startswith(mark):
            raise SourceError(f"{path}: is {what}; {cure}")
    if raw[TAR_MARK] == b"ustar":
        raise SourceError(f"{path}: is a tar archive; unpack it (tar -xf FILE) and name the file inside")
    if not raw.strip():
        raise SourceError(f"{path}: is empty; give a file with a header line and events")
    return raw


def is_regular(path: Path) -> bool:
    """Whether the path is a file that can be read twice: no pipe, no standard input."""
    return str(path) != STANDARD_INPUT and (path.is_file() or not path.exists())


def is_parquet(head: bytes) -> bool:
    """Whether a file that begins so is Parquet."""
    return head.startswith(b"PAR1")


def read_json_lines(path: Path, cleaner: Cleaner, row: type[msgspec.Struct]) -> pl.DataFrame:
    """A file of one JSON object a line, as `row` describes it; columns are its fields, and `LINE`.

    Raises:
        SourceError: the file cannot be read.
    """
    decoder = msgspec.json.Decoder(row)
    rows: list[msgspec.Struct] = []
    lines: list[int] = []
    rejected: list[RejectedRow] = []
    blank = 0
    texts = open_bytes(path).splitlines()
    for number, text in enumerate(texts, 1):
        if not text.strip():
            blank += 1
            continue
        try:
            rows.append(decoder.decode(text))
            lines.append(number)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            shown = text[:500].decode("utf-8", "replace")
            reason = f"not a JSON object as expected: {error}"
            rejected.append(RejectedRow(path.name, number, reason, {"text": shown}, "not a JSON object as expected"))
    cleaner.count(FileCount(path.name, len(texts), len(rows) + len(rejected), blank=blank))
    cleaner.reject(rejected)
    names = row.__struct_fields__
    return pl.DataFrame(
        {name: [getattr(parsed, name) for parsed in rows] for name in names} | {LINE: lines}, strict=False
    )


def read_parquet(path: Path, cleaner: Cleaner) -> pl.DataFrame:
    """A Parquet file with its own types, and `LINE` (the row, from 1).

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
    cleaner.count(FileCount(path.name, frame.height, frame.height))
    return frame.with_row_index(LINE, 1).with_columns(pl.col(LINE).cast(pl.Int64))


def _unpacked(path: Path, raw: bytes) -> bytes:
    try:
        return gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(
            f"{path}: the gzip file is damaged or cut off ({error}); fetch it again and compare its size"
        ) from None
