"""The files of a release, read without trusting them: nothing outside the folder is opened, and nothing is allocated
beyond the size of a file."""

import io
import math
import os
import re
import stat
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from models.arrays import AnyArray
from models.errors import ReleaseError
from models.recommenders.item_product import options_of

MAX_JSON_BYTES: Final = 16 * 1024 * 1024
"""Largest manifest, pointer or other small JSON file that is read; a manifest has a few kilobytes."""
MAX_HEADER_BYTES: Final = 10_000
NAME: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,199}")
"""Names of releases and of their files: none leads out of a folder."""

Content = TypeVar("Content")


def checked_name(name: str, what: str) -> str:
    """The name of a release or of a file in one.

    Raises:
        ReleaseError: bad-name; `what` says whose name it is.
    """
    if not NAME.fullmatch(name):
        raise ReleaseError("bad-name", f"{what}: {name[:80]!r} is no name of letters, digits, '.', '_' and '-'")
    return name


def read_plain(path: Path, size: int | None = None) -> bytearray:
    """The content of a plain file, which has to have `size` bytes where that is given.

    Raises:
        ReleaseError: missing-file, not-a-file for a folder, a link or a device, hash-mismatch for another size,
            unreadable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ReleaseError("missing-file", f"{path} is missing; train again or roll back") from None
    except OSError as error:
        reason = "not-a-file" if path.is_symlink() else "unreadable"
        raise ReleaseError(reason, f"{path} cannot be opened: {error.strerror}; train again or roll back") from error
    try:
        content = bytearray(_checked_size(path, os.fstat(descriptor), size))
        if _filled(descriptor, content) < len(content):
            raise ReleaseError("hash-mismatch", f"{path} became shorter while it was read; train again or roll back")
    except OSError as error:
        raise ReleaseError("unreadable", f"{path} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return content


def _filled(descriptor: int, content: bytearray) -> int:
    """Fill `content` from a file; the number of bytes that it had."""
    view, filled = memoryview(content), 0
    while filled < len(content) and (count := os.readv(descriptor, [view[filled:]])):
        filled += count
    return filled


def check_plain(path: Path, size: int) -> None:
    """Check a file without reading it. Raises ReleaseError like `read_plain`."""
    try:
        _checked_size(path, path.lstat(), size)
    except FileNotFoundError:
        raise ReleaseError("missing-file", f"{path} is missing; train again or roll back") from None
    except OSError as error:
        raise ReleaseError("unreadable", f"{path} cannot be read: {error.strerror}") from error


def read_json(path: Path, content: type[Content], reason: str, cure: str = "train again or roll back") -> Content:
    """A small JSON file as `content`.

    Raises:
        ReleaseError: like `read_plain`, or `reason` if the file is something else than UTF-8 JSON of this shape.
    """
    size = path.lstat().st_size if path.exists() else 0
    if size > MAX_JSON_BYTES:
        raise ReleaseError(reason, f"{path} has {size} bytes, more than {MAX_JSON_BYTES}; {cure}")
    return decode_json(read_plain(path), content, reason, path, cure)


def decode_json(raw: bytes | bytearray, content: type[Content], reason: str, path: Path, cure: str) -> Content:
    """The JSON of `path` as `content`. Raises ReleaseError with `reason`; the detail ends with `cure`."""
    try:
        raw.decode("utf-8")  # msgspec skips unknown fields without a look
        return msgspec.json.decode(raw, type=content)
    except (ValueError, RecursionError) as error:  # msgspec's errors and UnicodeDecodeError are ValueErrors
        raise ReleaseError(reason, f"{path}: {error}; {cure}") from error


def array_of(raw: bytearray, path: Path) -> AnyArray:
    """The array in the content of a `.npy` file: numbers, and exactly as many as the header says.

    Raises:
        ReleaseError: bad-array.
    """
    try:
        shape, fortran, dtype, start = _header(raw)
    except Exception as error:  # numpy parses the header as a Python literal: many kinds of errors
        raise ReleaseError("bad-array", f"{path} has no header of an array: {type(error).__name__}") from error
    if dtype.kind not in "fiu" or dtype.names is not None or not dtype.isnative or dtype.itemsize > 8:
        raise ReleaseError("bad-array", f"{path} holds {dtype}, not numbers of up to 64 bits; train again or roll back")
    count = math.prod(shape)
    if any(size < 0 for size in shape) or count * dtype.itemsize != len(raw) - start:
        content = f"{len(raw) - start} bytes"
        raise ReleaseError("bad-array", f"{path} has {content} for an array of shape {shape}; train again or roll back")
    if not shape:
        raise ReleaseError("bad-array", f"{path} holds a single number, not an array; train again or roll back")
    array = np.frombuffer(raw, dtype, count, start) if count else np.zeros(0, dtype)
    shaped = array.reshape(shape, order="F" if fortran else "C")
    return shaped if shaped.flags.aligned else shaped.copy()


def session_of(raw: bytearray, path: Path, threads: int) -> Any:
    """The ONNX Runtime session of a model, which has to hold all of its weights itself.

    Raises:
        ReleaseError: unreadable.
    """
    import onnxruntime

    options = options_of(threads)
    options.log_severity_level = 4  # the error that is raised says it
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    try:
        return onnxruntime.InferenceSession(bytes(raw), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base below Exception
        raise ReleaseError("unreadable", f"{path}: {error}") from error


def with_cure(detail: str, cure: str) -> str:
    """A sentence that ends with its cure."""
    return detail if detail.endswith(cure) else f"{detail.removesuffix('; train again or roll back')}; {cure}"


def _checked_size(path: Path, status: os.stat_result, size: int | None) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise ReleaseError("not-a-file", f"{path} is not a plain file; train again or roll back")
    if size is not None and status.st_size != size:
        raise ReleaseError("hash-mismatch", f"{path} has {status.st_size} bytes, not {size}; train again or roll back")
    return status.st_size


def _header(raw: bytearray) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran order, dtype, and where the numbers start."""
    start = io.BytesIO(raw[: MAX_HEADER_BYTES + 16])
    version = np.lib.format.read_magic(start)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if version not in {(1, 0), (2, 0)}:
        raise ValueError(f"version {version}")
    shape, fortran, dtype = read(start, max_header_size=MAX_HEADER_BYTES)
    return shape, fortran, dtype, start.tell()
