"""What routes have in common: the injected service, query parameters, and JSON responses."""

from typing import Annotated, Any, Final

import msgspec
from litestar import Response
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from serving.http.problems import Problem
from serving.http.service import Service
from serving.recommend.request import MAX_ITEMS

JSON: Final = "application/json"

InjectedService = NamedDependency[Service]
N = Annotated[int, QueryParameter(ge=1, le=MAX_ITEMS, description="The number of items.")]
DomainName = Annotated[
    str | None, QueryParameter(name="domain", description="The domain. Default: the setting `domain`.")
]
Category = Annotated[str | None, QueryParameter(description="Only items of this category.")]
After = Annotated[
    str | None, QueryParameter(description="Wait until the features contain this token of an earlier write.")
]

_encode = msgspec.json.Encoder().encode


def domain_of(service: Service, name: str | None) -> str:
    """The requested domain, or the default one.

    Raises:
        Problem: the domain is unknown.
    """
    domain = name or service.settings.domain
    if domain not in service.domains:
        raise Problem(404, "unknown-domain", f"domain={domain!r} is not one of {', '.join(service.domains)}")
    return domain


def json_response(value: Any) -> Response[bytes]:
    """A value of structs, mappings and lists as JSON."""
    return Response(_encode(value), media_type=JSON)
