"""Routes for those who run the system: health, readiness, releases, metrics."""

from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from models.errors import ReleaseError
from models.releases import release_store
from models.releases.manifest import Card
from serving import metrics
from serving.http.problems import Problem
from serving.http.routes.recommendations import DomainName, domain_of
from serving.http.service import Service
from serving.rollout.canary import describe_rollout

Injected = NamedDependency[Service]


@get("/healthz", tags=["operations"], summary="Is the process alive?", sync_to_thread=False)
def healthz() -> dict[str, str]:
    """Always 200 while the process answers."""
    return {"status": "ok"}


@get("/readyz", tags=["operations"], summary="Can it serve?")
async def readyz(service: Injected) -> Response[dict[str, Any]]:
    """200 when the store, the broker and the catalogue answer; 503 with what is missing, and the cure."""
    missing = await service.missing()
    body = {"status": "not ready" if missing else "ready", "missing": missing}
    return Response(body, status_code=503 if missing else 200)


@get("/v1/releases", tags=["operations"], summary="Releases of every domain", sync_to_thread=True)
def list_releases(service: Injected) -> dict[str, Any]:
    """For each domain the release that serves here, every one on disk, and those refused, with the reason."""
    refused, counts = list(service.current.refused.values()), service.told.counts()
    return {
        name: {
            "serving": service.current.serving_id(name),
            "releases": msgspec.to_builtins(release_store.list_releases(service.current.root, name)),
            "refused": [msgspec.to_builtins(one) for one in refused if one.domain == name],
            "rollout": describe_rollout(
                name, service.current.rollouts.get(name), service.decider, counts.get(name, {})
            ),
        }
        for name in service.domains
    }


@get("/v1/releases/{release_id:str}", tags=["operations"], summary="One release", sync_to_thread=True)
def show_release(service: Injected, release_id: FromPath[str], domain: DomainName = None) -> Response[Card]:
    """Its card: data cut and hash, parameters, metrics with intervals, parent, gate. Times are epoch ms."""
    name = domain_of(service, domain)
    try:
        found = release_store.card(service.current.root, name, release_id)
    except ReleaseError as error:
        raise Problem(404, error.reason, error.detail) from None
    if found is None:
        raise Problem(404, "unknown-release", f"{name} has no release {release_id!r}; GET /v1/releases lists them")
    return Response(found)


@get("/metrics", tags=["operations"], summary="Prometheus metrics", sync_to_thread=False)
def read_metrics() -> Response[bytes]:
    """The metrics of this process."""
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
