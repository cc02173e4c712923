"""Events that are sent to the log."""

from typing import Any

from litestar import Request, Response, post

from serving.http.ingest import AcceptedRecords, accept_records
from serving.http.routes.parameters import InjectedService
from stream import topics


@post("/v1/events", status_code=202, tags=["events"], summary="Send one event, an array, or NDJSON")
async def post_events(request: Request[Any, Any, Any], service: InjectedService) -> Response[AcceptedRecords]:
    """Interactions, impressions and searches. Valid events are stored; each invalid one gets its reason."""
    elsewhere = "items and users have routes of their own: PUT /v1/items, /v1/users"
    return await accept_records(request, service, topics.EVENTS, elsewhere)
