"""Users: profiles that are added, and the features of a user."""

from typing import Any

import msgspec
from litestar import Request, Response, get, put
from litestar.params import FromPath

from features.activity import Activity
from serving.http.ingest import AcceptedRecords, accept_records
from serving.http.problems import Problem
from serving.http.routes.parameters import DomainName, InjectedService, domain_of, json_response
from stream import topics


@put("/v1/users", status_code=202, tags=["users"], summary="Add or change profiles")
async def put_users(request: Request[Any, Any, Any], service: InjectedService) -> Response[AcceptedRecords]:
    """One profile or an array of them."""
    return await accept_records(request, service, topics.USERS, "only users go here")


@get("/v1/users/{user_id:str}/features", tags=["users"], summary="A user's features")
async def get_features(service: InjectedService, user_id: FromPath[str], domain: DomainName = None) -> Response[bytes]:
    """The user's row in the online store (recent events, summary, applied log positions), and the profile."""
    name = domain_of(service, domain)
    activity = await service.activity(name, user_id)
    profile = await service.lookups.call(lambda store: store.read_profile(name, user_id))
    if activity is None and profile is None:
        raise Problem(404, "unknown-user", f"nothing is known of user {user_id!r} in {name}")
    row = msgspec.to_builtins(activity or Activity())
    return json_response({"user_id": user_id, "domain": name, **row, "profile": profile})
