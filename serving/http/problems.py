"""Every refusal and failure as problem details (RFC 9457), by Litestar's plugin."""

import logging
from collections.abc import Callable, Mapping
from random import getrandbits
from typing import Any, Final

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.plugins.problem_details import ProblemDetailsConfig, ProblemDetailsException, ProblemDetailsPlugin

from features.errors import StoreError
from stream.errors import BrokerError, ColdstreamError

NO_TYPE: Final = "about:blank"
"""The status code says everything (RFC 9457, section 4.2.1)."""
RETRY: Final = {"Retry-After": "1"}
TITLES: Final = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    413: "Content too large",
    415: "Unsupported media type",
    429: "Too many requests",
    500: "Internal error",
    503: "Unavailable",
    504: "Not yet applied",
}

log = logging.getLogger("coldstream.api")


class Problem(ProblemDetailsException):
    """A refusal: a stable `type` for programs, and a sentence with the cure for people. `fields` join the body."""

    def __init__(
        self, status: int, type_: str, detail: str, *, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> None:
        super().__init__(
            detail=detail,
            status_code=status,
            type_=type_,
            title=TITLES.get(status, "Error"),
            headers=dict(headers) if headers else None,
            extra=fields or None,
        )


def problem_details() -> ProblemDetailsPlugin:
    """The plugin, with a conversion for every expected exception that a route can raise."""
    conversions: dict[type[Exception], Callable[[Any], ProblemDetailsException]] = {
        HTTPException: _from_http_exception,
        StoreError: _unavailable,
        BrokerError: _unavailable,
        ColdstreamError: _refused,
    }
    return ProblemDetailsPlugin(ProblemDetailsConfig(exception_to_problem_detail_map=conversions))


def on_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[dict[str, Any]]:
    """An error that no conversion foresees: the log gets its trace, the client the id to find it by."""
    request_id = new_request_id()
    what = "%s %s: unexpected error, request %s"
    log.error(what, request.method, request.scope["path"], request_id, exc_info=error)
    return unexpected_problem(request_id).to_response(request)


def unexpected_problem(request_id: str) -> Problem:
    """What a client learns of an error that nothing foresaw."""
    detail = f"unexpected error; the log of the API has the details of request {request_id}"
    return Problem(500, NO_TYPE, detail, request_id=request_id)


def new_request_id() -> str:
    """An id that a problem and a line of the log share."""
    return f"{getrandbits(64):016x}"


def problem_body(problem: Problem) -> dict[str, Any]:
    """The document of a problem, for responses that no route makes."""
    fields = problem.extra if isinstance(problem.extra, dict) else {}
    head = {"status": problem.status_code, "type": problem.type_, "title": problem.title, "detail": problem.detail}
    return {**head, **fields}


def _from_http_exception(error: HTTPException) -> Problem:
    """Litestar's own refusals: no such route, a parameter that does not fit, a body that is too large."""
    fields = {"errors": error.extra} if error.extra else {}
    return Problem(error.status_code, NO_TYPE, error.detail, headers=error.headers, **fields)


def _unavailable(error: Exception) -> Problem:
    return Problem(503, "unavailable", str(error), headers=RETRY)


def _refused(error: Exception) -> Problem:
    return Problem(400, "refused", str(error))
