"""Liveness, readiness and metrics of this process."""

from litestar import Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serving import metrics
from serving.http.operations import readiness_reply
from serving.http.readiness import missing_parts, substitutes
from serving.http.routes.parameters import InjectedService


@get("/healthz", tags=["operations"], summary="Is the process alive?", sync_to_thread=False)
def get_liveness() -> dict[str, str]:
    """Always 200 while the process answers."""
    return {"status": "ok"}


@get("/readyz", tags=["operations"], summary="Can it serve?")
async def get_readiness(service: InjectedService) -> Response[bytes]:
    """200 when store, broker, catalogue and a ranking are ready; otherwise 503 with what is missing, and the cure.

    `substitutes` is there for domains whose current release is damaged: the replacement, and why.
    """
    status, media_type, body = readiness_reply(await missing_parts(service), substitutes(service))
    return Response(body, status_code=status, media_type=media_type)


@get("/metrics", tags=["operations"], summary="Prometheus metrics", sync_to_thread=False)
def get_metrics() -> Response[bytes]:
    """The metrics of this process."""
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
