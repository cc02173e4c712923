"""The bodies of PATCH: some fields of one item or profile, as an update; and their schema for the API's docs."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

from serving.http.bodies import text_of
from serving.http.problems import Problem
from stream import topics
from stream.events import Item, User

UPDATES: Final[dict[str, tuple[type[Item | User], str, str]]] = {
    topics.ITEMS: (Item, "item", "item_id"),
    topics.USERS: (User, "user", "user_id"),
}
"""By topic: the struct of an update, its `type`, and the name of its id."""


def update_of(body: bytes, topic: str, identity: str, domain: str | None, default_domain: str) -> bytes:
    """The update (JSON) that a body with some of its fields stands for; `at` is now where the body has none.

    `domain` is what the address says, `default_domain` holds where neither it nor the body names one.

    Raises:
        Problem: the body is no JSON object, has unknown fields, or names another record than the address.
    """
    kind, tag, key = UPDATES[topic]
    fields = _fields(body)
    for name in fields:
        if name != "type" and name not in kind.__struct_fields__:
            raise Problem(400, "bad-field", _unknown(name, kind))
    given = {"type": tag, key: identity} | ({"domain": domain} if domain is not None else {})
    for name, value in given.items():
        if name in fields and (other := msgspec.json.decode(fields[name])) != value:
            raise Problem(400, "bad-field", f"{name}={other!r} contradicts the address, which says {value!r}")
    defaults: dict[str, Any] = {"at": int(time.time() * 1000), "domain": default_domain}
    return msgspec.json.encode({**defaults, **fields, **given})


def _fields(body: bytes) -> Mapping[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(text_of(body), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "not-json", f"the body is not a JSON object with the fields to change: {error}") from None


def _unknown(name: str, kind: type[Item | User]) -> str:
    nearest = get_close_matches(name, kind.__struct_fields__, 1)
    cure = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(kind.__struct_fields__)}"
    return f"the field {name[:80]!r} does not exist; {cure}"


def _nullable(*types: OpenAPIType, text: str) -> Schema:
    return Schema(type=[*types, OpenAPIType.NULL], description=text)


_COMMON: Final = {
    "attributes": _nullable(OpenAPIType.OBJECT, text="Changed one by one; null clears one attribute, or all."),
    "at": Schema(type=OpenAPIType.INTEGER, description="Epoch ms; default: now. The newer one wins field by field."),
    "valid_from": Schema(type=OpenAPIType.INTEGER, description="Epoch ms since which this is true; default: `at`."),
}
_ITEM: Final = {
    "title": _nullable(OpenAPIType.STRING, text="Null clears it."),
    "category": _nullable(OpenAPIType.STRING, text="Null clears it."),
    "available": _nullable(OpenAPIType.BOOLEAN, text="False takes the item out of every answer."),
    "expires_at": _nullable(OpenAPIType.INTEGER, text="Epoch ms when the item leaves every answer; null clears it."),
}
_USER: Final = {"segment": _nullable(OpenAPIType.STRING, text="Null clears it.")}


def _body(properties: Mapping[str, Schema]) -> RequestBody:
    schema = Schema(type=OpenAPIType.OBJECT, properties=dict(properties))
    return RequestBody(content={"application/json": OpenAPIMediaType(schema=schema)}, required=True)


@dataclass
class ItemPatchOperation(Operation):
    """PATCH of an item in the API's docs."""

    def __post_init__(self) -> None:
        self.request_body = _body(_ITEM | _COMMON)


@dataclass
class UserPatchOperation(Operation):
    """PATCH of a profile in the API's docs."""

    def __post_init__(self) -> None:
        self.request_body = _body(_USER | _COMMON)
