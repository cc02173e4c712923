"""Releases: the serving one, stored ones, refused ones, and those on trial."""

from typing import Any

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from models.errors import ReleaseError
from models.releases import release_store
from models.releases.manifest import Card
from serving.http.problems import Problem
from serving.http.routes.parameters import DomainName, InjectedService, domain_of
from serving.rollout.canary import describe_rollout


@get("/v1/releases", tags=["operations"], summary="Releases of every domain", sync_to_thread=True)
def list_releases(service: InjectedService) -> dict[str, Any]:
    """For each domain: the live release, every stored one, those that were refused and why, canary and shadow."""
    loader = service.releases
    refused, counts = list(loader.refused.values()), service.outcomes.counts()
    return {
        name: {
            "serving": loader.serving_id(name),
            "releases": msgspec.to_builtins(release_store.list_releases(loader.root, name)),
            "refused": [msgspec.to_builtins(release) for release in refused if release.domain == name],
            "rollout": describe_rollout(name, loader.rollouts.get(name), service.canaries, counts.get(name, {})),
        }
        for name in service.domains
    }


@get("/v1/releases/{release_id:str}", tags=["operations"], summary="One release", sync_to_thread=True)
def get_release(service: InjectedService, release_id: FromPath[str], domain: DomainName = None) -> Response[Card]:
    """Its card: data cut and hash, hyperparameters, metrics with intervals, parent, gate. Times are epoch ms."""
    name = domain_of(service, domain)
    try:
        card = release_store.card(service.releases.root, name, release_id)
    except ReleaseError as error:
        raise Problem(404, error.reason, error.detail) from None
    if card is None:
        raise Problem(404, "unknown-release", f"{name} has no release {release_id!r}; GET /v1/releases lists them")
    return Response(card)
