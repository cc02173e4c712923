"""Ids in addresses: percent-encoded in the path, with whatever characters they have, or in the query.

`/v1/users/shop%2F42/features` and `/v1/users/features?user_id=shop%2F42` are the same address: some proxies decode or
refuse an encoded slash, and no client keeps the ids `.` and `..` in a path.
"""

from typing import Any, Final
from urllib.parse import unquote_to_bytes

from litestar.types import HTTPScope

from serving.http.problems import Problem

RESOURCE_OF: Final = {b"user_id": "users", b"item_id": "items"}
"""The resource whose id a query parameter gives."""
VERSION: Final = "v1"
_ESCAPE: Final = "\x1b"
"""Stands for a slash in an id until the router has split the path; followed by `s` for a slash, `e` for itself."""


class _Scope(dict[str, Any]):
    """A scope whose path parameters come back from the router with the slashes of the ids."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "path_params":
            value = {name: _restored(text) for name, text in value.items()}
        super().__setitem__(key, value)


def needs_parsing(scope: HTTPScope) -> bool:
    """Whether the server's decoded path may differ from what the address says; False for most requests."""
    raw = scope["raw_path"]
    return b"_id=" in scope["query_string"] or (b"%" in raw and (b"%2" in raw or "\ufffd" in scope["path"]))


def parsed(scope: HTTPScope) -> HTTPScope:
    """The scope with the path and the query that the address says.

    Raises:
        Problem: the address is not UTF-8, or names an id in the query that is empty.
    """
    segments = [_decoded(segment) for segment in scope["raw_path"].partition(b"?")[0].split(b"/")]
    query = scope["query_string"]
    if segments[:2] == ["", VERSION] and len(segments) > 2:
        query, ids = _ids_in(query, segments[2])
        segments[3:3] = ids
    path = "/".join(segment.replace(_ESCAPE, f"{_ESCAPE}e").replace("/", f"{_ESCAPE}s") for segment in segments)
    changed = _Scope(scope)
    changed |= {"path": path, "query_string": query}
    return changed  # type: ignore[return-value] # a scope is a dict with these keys


def _ids_in(query: bytes, resource: str) -> tuple[bytes, list[str]]:
    """The query without the parameter that gives an id of the resource, and that id, if it is there."""
    others: list[bytes] = []
    ids: list[str] = []
    for part in query.split(b"&"):
        name, _, value = part.partition(b"=")
        if RESOURCE_OF.get(name) != resource:
            others.append(part)
            continue
        ids.append(_decoded(value.replace(b"+", b" ")))
        if not ids[-1] or len(ids) > 1:
            text = name.decode()
            raise Problem(400, "missing-id", f"{text} is empty or there twice; give one id, such as {text}=a%2Fb")
    return b"&".join(others), ids


def _decoded(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise Problem(
            400, "not-utf8", "the address is not UTF-8; percent-encode ids as UTF-8, a/ä as a%2F%C3%A4"
        ) from None


def _restored(value: Any) -> Any:
    return value.replace(f"{_ESCAPE}s", "/").replace(f"{_ESCAPE}e", _ESCAPE) if isinstance(value, str) else value
