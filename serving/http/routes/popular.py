"""Popular items."""

from itertools import islice
from typing import Annotated, Any

import msgspec
from litestar import Response, get
from litestar.params import QueryParameter

from features.popularity import EVERYONE
from serving.http.routes.parameters import Category, DomainName, InjectedService, N, domain_of

Segment = Annotated[str | None, QueryParameter(description="Popular with the users of this segment.")]


class PopularItems(msgspec.Struct, frozen=True):
    """Currently popular items, most popular first."""

    domain: str
    segment: str | None
    items: list[dict[str, Any]]


@get("/v1/popular", tags=["recommendations"], summary="Popular items")
async def popular_items(
    service: InjectedService,
    n: N = 20,
    domain: DomainName = None,
    segment: Segment = None,
    category: Category = None,
) -> Response[PopularItems]:
    """Time-decayed counts of events by all users or by a segment, in all categories or in one."""
    name = domain_of(service, domain)
    view = service.domains[name].view
    catalogue = view.domain
    rows = (
        {"item_id": item_id, "score": count, "title": catalogue.title_of(item_id)}
        for item_id, count in catalogue.popular.get(segment or EVERYONE, [])
        if view.shows(item_id) and (category is None or catalogue.category_of(item_id) == category)
    )
    return Response(PopularItems(name, segment, list(islice(rows, n))))
