"""Liveness, readiness and metrics of this process."""

from typing import Any

from litestar import Response, get
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from serving import metrics
from serving.http.readiness import missing_parts
from serving.http.routes.parameters import InjectedService


@get("/healthz", tags=["operations"], summary="Is the process alive?", sync_to_thread=False)
def get_liveness() -> dict[str, str]:
    """Always 200 while the process answers."""
    return {"status": "ok"}


@get("/readyz", tags=["operations"], summary="Can it serve?")
async def get_readiness(service: InjectedService) -> Response[dict[str, Any]]:
    """200 when store, broker and catalogue are ready; otherwise 503 with what is missing, and the cure."""
    missing = await missing_parts(service)
    body = {"status": "not ready" if missing else "ready", "missing": missing}
    return Response(body, status_code=503 if missing else 200)


@get("/metrics", tags=["operations"], summary="Prometheus metrics", sync_to_thread=False)
def get_metrics() -> Response[bytes]:
    """The metrics of this process."""
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)
