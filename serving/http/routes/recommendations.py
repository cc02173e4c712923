"""Recommendations of a user, and of an anonymous visitor."""

import time

from litestar import Response, get, post
from litestar.params import FromPath, JSONBody

from features.activity import LoggedEvent, apply
from serving.http.problems import Problem
from serving.http.routes.lookup_options import InjectedLookup, LookupBody, SessionBody, body_request
from serving.http.routes.parameters import JSON, After, InjectedService
from stream.errors import EventError
from stream.events import check


@get("/v1/users/{user_id:str}/recommendations", tags=["recommendations"], summary="A user's recommendations")
async def get_recommendations(
    service: InjectedService, user_id: FromPath[str], lookup: InjectedLookup, after: After = None
) -> Response[bytes]:
    """Computed at request time from the user's current features and the live release."""
    if after is not None:
        await service.wait_for_token(lookup.domain, user_id, after)
    return Response((await service.recommend(user_id, lookup)).body, media_type=JSON)


@post(
    "/v1/users/{user_id:str}/recommendations",
    status_code=200,
    tags=["recommendations"],
    summary="The same, with candidates and rules in the body",
)
async def post_recommendations(
    service: InjectedService, user_id: FromPath[str], data: JSONBody[LookupBody]
) -> Response[bytes]:
    """Only `candidates` are ranked; `rules` apply to this answer alone."""
    lookup = body_request(service, data)
    if data.after is not None:
        await service.wait_for_token(lookup.domain, user_id, data.after)
    return Response((await service.recommend(user_id, lookup)).body, media_type=JSON)


@post("/v1/sessions/recommendations", status_code=200, tags=["recommendations"], summary="For an anonymous visitor")
async def session_recommendations(service: InjectedService, data: JSONBody[SessionBody]) -> Response[bytes]:
    """The visitor's events come with the request; their features are computed in memory."""
    lookup = body_request(service, data)
    if data.after is not None:
        await service.wait_for_token(lookup.domain, "", data.after)
    now_ms = int(time.time() * 1000)
    events = [event.interaction(number) for number, event in enumerate(data.events)]
    for index, event in enumerate(events):
        try:
            check(event, now_ms, service.time_limits)
        except EventError as error:
            raise Problem(400, error.reason, f"events[{index}]: {error.detail}") from None
    log = [LoggedEvent(event, "session/0", offset) for offset, event in enumerate(events)]
    activity = apply(None, log, service.fold_settings)
    return Response((await service.lookups.of_visitor(activity, lookup, data.profile)).body, media_type=JSON)
