"""Every refusal and failure as problem details (RFC 9457), by Litestar's plugin."""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from litestar.exceptions import HTTPException
from litestar.plugins.problem_details import ProblemDetailsConfig, ProblemDetailsException, ProblemDetailsPlugin
from litestar.types import Scope

from features.errors import StoreError
from stream.errors import BrokerError, ColdstreamError

NO_TYPE: Final = "about:blank"
"""The status code says everything (RFC 9457, section 4.2.1)."""
RETRY: Final = {"Retry-After": "1"}
TITLES: Final = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    413: "Content too large",
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
    """The plugin, with a conversion for every exception that a route can raise."""
    conversions: dict[type[Exception], Callable[[Any], ProblemDetailsException]] = {
        HTTPException: _from_http_exception,
        StoreError: _unavailable,
        BrokerError: _unavailable,
        ColdstreamError: _refused,
        Exception: _unexpected,
    }
    return ProblemDetailsPlugin(ProblemDetailsConfig(exception_to_problem_detail_map=conversions))


async def log_unexpected(error: Exception, scope: Scope) -> None:
    """A hook of the application: an error that no conversion foresees is logged with its request."""
    if not isinstance(error, HTTPException | ColdstreamError):
        log.error("%s %s: unexpected error", scope.get("method", ""), scope["path"], exc_info=error)


def _from_http_exception(error: HTTPException) -> Problem:
    """Litestar's own refusals: no such route, a parameter that does not fit, a body that is too large."""
    fields = {"errors": error.extra} if error.extra else {}
    return Problem(error.status_code, NO_TYPE, error.detail, headers=error.headers, **fields)


def _unavailable(error: Exception) -> Problem:
    return Problem(503, "unavailable", str(error), headers=RETRY)


def _refused(error: Exception) -> Problem:
    return Problem(400, "refused", str(error))


def _unexpected(_: Exception) -> Problem:
    return Problem(500, NO_TYPE, "unexpected error; the log of the API has the details")
