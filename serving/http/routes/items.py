"""The catalogue: items that are added, shown, and compared."""

from typing import Any

import msgspec
from litestar import Request, Response, get, patch, put
from litestar.params import FromPath

from serving.http.ingest import AcceptedRecords, accept_records, send_records
from serving.http.patches import ItemPatchOperation, update_of
from serving.http.problems import Problem
from serving.http.routes.parameters import DomainName, InjectedService, N, domain_of, json_response
from serving.recommend.request import MAX_ITEMS
from stream import topics


@put("/v1/items", status_code=202, tags=["catalogue"], summary="Add or change items")
async def put_items(request: Request[Any, Any, Any], service: InjectedService) -> Response[AcceptedRecords]:
    """One item or an array of them. A field that is left out stays as it is, null clears it, and the newer `at` wins
    field by field. `available: false` removes an item from every answer."""
    return await accept_records(request, service, topics.ITEMS, "only items go here")


@patch(
    "/v1/items/{item_id:str}",
    status_code=202,
    tags=["catalogue"],
    summary="Change fields of an item",
    operation_class=ItemPatchOperation,
)
async def patch_item(
    request: Request[Any, Any, Any], service: InjectedService, item_id: FromPath[str], domain: DomainName = None
) -> Response[AcceptedRecords]:
    """The fields to change; the others stay as they are. Adds the item where the catalogue does not know it."""
    update = update_of(await request.body(), topics.ITEMS, item_id, domain, service.settings.domain)
    return await send_records([update], service, topics.ITEMS, "only items go here")


@get("/v1/items/{item_id:str}", tags=["catalogue"], summary="One item")
async def get_item(service: InjectedService, item_id: FromPath[str], domain: DomainName = None) -> Response[bytes]:
    """The item as its updates say together."""
    name = domain_of(service, domain)
    item = service.domains[name].domain.items.get(item_id)
    if item is None:
        raise Problem(404, "unknown-item", f"the catalogue of {name} has no item {item_id!r}; PUT /v1/items adds it")
    stored = await service.lookups.call(lambda store: store.read_item(name, item_id))
    if stored is not None:
        return json_response(stored)
    return json_response({"item_id": item_id, "domain": name, **msgspec.structs.asdict(item)})


@get("/v1/items/{item_id:str}/similar", tags=["catalogue"], summary="Similar items")
async def similar_items(
    service: InjectedService, item_id: FromPath[str], n: N = 20, domain: DomainName = None
) -> Response[bytes]:
    """Neighbors by co-occurrence; for an item that the release does not know, popular items of its category."""
    view = service.domains[domain_of(service, domain)].view
    catalogue = view.domain
    neighbors = view.similar(item_id, MAX_ITEMS)
    reason = "similar"
    if not neighbors:
        category = catalogue.category_of(item_id) or ""
        reason = "category" if category else "empty"
        popular, members = (
            catalogue.popular_by_category.get(category, ()),
            catalogue.items_by_category.get(category, ()),
        )
        candidates = dict.fromkeys([*popular, *list(members)])
        neighbors = [(candidate, 0.0) for candidate in candidates if candidate != item_id]
    items = [
        {"item_id": neighbor, "score": round(score, 6), "title": catalogue.title_of(neighbor)}
        for neighbor, score in neighbors
        if view.shows(neighbor)
    ]
    return json_response({"item_id": item_id, "reason": reason if items else "empty", "items": items[:n]})
