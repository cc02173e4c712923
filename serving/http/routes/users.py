"""Users: profiles that are added, and the features of a user."""

from typing import Any

import msgspec
from litestar import Request, Response, get, patch, put
from litestar.params import FromPath

from features.activity import Activity
from serving.http.ingest import AcceptedRecords, accept_records, send_records
from serving.http.patches import UserPatchOperation, update_of
from serving.http.problems import Problem
from serving.http.routes.parameters import DomainName, InjectedService, domain_of, json_response
from stream import topics


@put("/v1/users", status_code=202, tags=["users"], summary="Add or change profiles")
async def put_users(request: Request[Any, Any, Any], service: InjectedService) -> Response[AcceptedRecords]:
    """One profile or an array of them. A field that is left out stays as it is, null clears it, and the newer `at`
    wins field by field."""
    return await accept_records(request, service, topics.USERS, "only users go here")


@patch(
    "/v1/users/{user_id:str}",
    status_code=202,
    tags=["users"],
    summary="Change fields of a profile",
    operation_class=UserPatchOperation,
)
async def patch_user(
    request: Request[Any, Any, Any], service: InjectedService, user_id: FromPath[str], domain: DomainName = None
) -> Response[AcceptedRecords]:
    """The fields to change; the others stay as they are. Adds the profile where none is known."""
    update = update_of(await request.body(), topics.USERS, user_id, domain, service.settings.domain)
    return await send_records([update], service, topics.USERS, "only users go here")


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
