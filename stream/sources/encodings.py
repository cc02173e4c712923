"""Bytes of a text file as UTF-8 with line feeds, whatever they were written in."""

import codecs
import re
from pathlib import Path
from typing import Final

from stream.errors import SourceError

MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks, longer ones first."""
HEAD: Final = 1_000
MARKED: Final = r"[\x{10FF00}-\x{10FFFF}]"
"""Private characters that stand for bytes which could not be decoded: 0x10FF00 and the byte."""
NUL_MARK: Final = "\U0010ff00"
"""Stands for a NUL byte, which no text holds."""
MARKED_BYTES: Final = b"\xf4\x8f"
"""How every mark begins in UTF-8."""
_ESCAPED: Final = {0xDC00 + byte: 0x10FF00 + byte for byte in range(128, 256)}
USUAL: Final = "utf-8, cp1252, latin-1 and utf-16 are usual"


def to_utf8(path: Path, raw: bytes, encoding: str | None) -> tuple[bytes, str | None]:
    """The text as UTF-8 without a byte order mark, and the encoding that its mark shows, if that is another one.

    `encoding` None means UTF-8, or what the mark says. Bytes that do not fit the encoding become marks (`MARKED`).

    Raises:
        SourceError: the encoding is not known, or the file is binary.
    """
    marked = next((name for mark, name in MARKS if raw.startswith(mark)), None)
    chosen = encoding or marked or "utf-8"
    _check(path, chosen)
    text = _decoded(path, raw.removeprefix(codecs.BOM_UTF8) if _same(chosen, "utf-8") else raw, chosen)
    if text[:HEAD].count(b"\x00") * 10 > len(text[:HEAD]):
        raise SourceError(f"{path}: is binary, not text{_looks_wide(raw)}; CSV (gzip or not) and Parquet can be read")
    if b"\x00" in text:
        text = text.replace(b"\x00", NUL_MARK.encode())
    text = text.replace(b"\n" + codecs.BOM_UTF8, b"\n")  # files that were put together
    return text, marked if encoding is None and marked not in {None, "utf-8"} else None


def with_line_feeds(text: bytes) -> bytes:
    """The text with every line end (CR LF, CR alone) as a line feed."""
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


def decodes(raw: bytes, encoding: str) -> bool:
    """Whether the bytes are text in that encoding."""
    try:
        raw.decode(encoding)
    except UnicodeError:
        return False
    return True


def _check(path: Path, encoding: str) -> None:
    try:
        codecs.lookup(encoding)
        "a".encode(encoding)
    except (LookupError, UnicodeError, ValueError):
        raise SourceError(f"{path}: --encoding {encoding}: there is no such text encoding; {USUAL}") from None


def unmarked(text: str) -> str:
    """The text for showing: marks as the sign for what cannot be read."""
    return re.sub("[\U0010ff00-\U0010ffff]", "\ufffd", text)


def _decoded(path: Path, raw: bytes, encoding: str) -> bytes:
    if _same(encoding, "utf-8") and decodes(raw, "utf-8"):
        return raw
    for errors in ("strict", "surrogateescape", "replace"):
        try:
            text = raw.decode(encoding, errors)
        except (UnicodeError, ValueError, TypeError):
            continue
        if errors == "replace":
            text = text.replace("\ufffd", chr(0x10FFFF))
        return text.removeprefix("\ufeff").translate(_ESCAPED).encode("utf-8", "replace")
    raise SourceError(f"{path}: cannot be read as {encoding}; give another --encoding ({USUAL})")


def _same(encoding: str, other: str) -> bool:
    return codecs.lookup(encoding).name == other


def _looks_wide(raw: bytes) -> str:
    head = raw[:HEAD]
    if len(head) > 3 and head[1::2].count(0) * 2 > len(head) // 2:
        return " (if it is UTF-16 without a mark: --encoding utf-16-le)"
    return ""
