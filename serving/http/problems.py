"""Errors as problem details (RFC 9457), for every route and every way to fail."""

from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException

from features.errors import StoreError
from stream.errors import BrokerError, ColdstreamError

MEDIA_TYPE = "application/problem+json"


class Problem(HTTPException):
    """A refusal with a stable `type`, for machines, and a sentence with the cure, for people."""

    def __init__(self, status: int, kind: str, detail: str, **more: Any) -> None:
        super().__init__(detail=detail, status_code=status)
        self.kind = kind
        self.more = more


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """Any exception as a problem; what nobody foresaw is logged and answered with 500."""
    headers: dict[str, str] = {}
    more: dict[str, Any] = {}
    if isinstance(error, Problem):
        status, kind, detail, more = error.status_code, error.kind, error.detail, error.more
    elif isinstance(error, HTTPException):
        status, kind, detail = error.status_code, "about:blank", error.detail
        if error.extra:
            more = {"errors": error.extra}
    elif isinstance(error, StoreError | BrokerError):
        status, kind, detail = 503, "unavailable", str(error)
        headers["Retry-After"] = "1"
    elif isinstance(error, ColdstreamError):
        status, kind, detail = 400, "refused", str(error)
    else:
        request.logger.exception("unforeseen: %s %s", request.method, request.url.path) if request.logger else None
        status, kind, detail = 500, "about:blank", "an error that nobody foresaw; the log of the API says more"
    body = {"type": kind, "title": _TITLES.get(status, "Error"), "status": status, "detail": detail, **more}
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


_TITLES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    413: "Content too large",
    500: "Internal error",
    503: "Unavailable",
    504: "Not yet applied",
}
