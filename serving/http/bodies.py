"""Request bodies: bounded, decompressed, UTF-8. Whatever is wrong with a body is a refusal, never an error."""

import asyncio
import zlib
from typing import Any, Final

from litestar import Request
from litestar.types import HTTPScope, Receive

from serving.http.problems import Problem

MAX_BODY_BYTES: Final = 32 * 1024 * 1024
"""Of a body of records, before and after decompression."""
MAX_JSON_BYTES: Final = 1024 * 1024
"""Of any other body: it is decoded as one value, while the event loop waits."""
MAX_JSON_VALUES: Final = 100_000
BOM: Final = b"\xef\xbb\xbf"
ENCODINGS: Final = ("gzip", "zstd", "deflate", "identity")
_CHUNK: Final = 256 * 1024


class BoundedRequest(Request[Any, Any, Any]):
    """A request whose JSON body is bounded and may be refused: by its size, its bytes, its depth."""

    async def json(self) -> Any:
        """The value of the body. Raises Problem."""
        text_of(await self.body())
        try:
            return await super().json()
        except RecursionError:
            raise Problem(400, "too-deep", "the body is nested too deeply") from None

    async def body(self) -> bytes:
        """The body without a byte order mark."""
        return (await super().body()).removeprefix(BOM)


def text_of(body: bytes) -> bytes:
    """The body of one JSON value, if it is small enough and UTF-8.

    Raises:
        Problem: it is not.
    """
    if len(body) > MAX_JSON_BYTES:
        raise Problem(413, "too-large", f"the body has {len(body)} bytes; at most {MAX_JSON_BYTES} are allowed here")
    if body.count(b",") > MAX_JSON_VALUES:
        raise Problem(413, "too-many", f"the body has more than {MAX_JSON_VALUES} values")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Problem(400, "not-utf8", f"byte {error.start} is not UTF-8; send UTF-8 JSON") from None
    return body


async def decompressed(scope: HTTPScope, receive: Receive, encoding: bytes) -> tuple[HTTPScope, Receive]:
    """The scope and the body of a request as if it had come without `Content-Encoding`.

    Raises:
        Problem: the encoding is not known, the body does not fit it, or it becomes too large.
    """
    name = encoding.decode("latin-1").strip().lower()
    if name not in ENCODINGS:
        detail = f"Content-Encoding {name[:40]!r} is not known; send one of {', '.join(ENCODINGS)}"
        raise Problem(415, "unknown-encoding", detail)
    body = await _read(receive)
    if name != "identity":
        body = await asyncio.to_thread(_decompressed, body, name)
    dropped = (b"content-encoding", b"content-length")
    headers = [(key, value) for key, value in scope["headers"] if key not in dropped]
    headers.append((b"content-length", str(len(body)).encode()))
    return {**scope, "headers": headers}, _Replay(body)


class _Replay:
    """A `receive` that gives a body that was read already, then what the server says: that the client has left."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body

    async def __call__(self) -> Any:
        if self._body is None:
            await asyncio.get_running_loop().create_future()  # until the response is sent, and this is dropped
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Problem(400, "incomplete", "the body ended before its length")
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise Problem(413, "too-large", f"the body has more than {MAX_BODY_BYTES} bytes; send less at a time")
        parts.append(part)
    return b"".join(parts)


def _decompressed(body: bytes, encoding: str) -> bytes:
    try:
        text = _unzstd(body) if encoding == "zstd" else _inflated(body, gzip=encoding == "gzip")
    except (zlib.error, OSError, EOFError, ValueError) as error:
        raise Problem(400, "bad-encoding", f"the body is not {encoding}: {error}") from None
    if len(text) > MAX_BODY_BYTES:
        detail = f"the body has more than {MAX_BODY_BYTES} bytes after decompression; send less at a time"
        raise Problem(413, "too-large", detail)
    return text


def _inflated(body: bytes, *, gzip: bool) -> bytes:
    """Every member of a gzip file, or a zlib stream; at most a chunk more than is allowed."""
    parts: list[bytes] = []
    size = 0
    while body:
        stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | (16 if gzip else 0))
        while body and not stream.eof and size <= MAX_BODY_BYTES:
            parts.append(stream.decompress(body, _CHUNK))
            size += len(parts[-1])
            body = stream.unconsumed_tail
            if not parts[-1] and not body:
                break
        if size > MAX_BODY_BYTES:
            break
        if not stream.eof:
            raise EOFError("it ends before its end mark")
        body = stream.unused_data
    return b"".join(parts)


def _unzstd(body: bytes) -> bytes:
    import pyarrow

    with pyarrow.CompressedInputStream(pyarrow.BufferReader(body), "zstd") as stream:
        return bytes(stream.read(MAX_BODY_BYTES + 1))
