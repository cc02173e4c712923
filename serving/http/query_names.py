"""Query parameters that a route does not have: refused with the nearest name, instead of ignored."""

from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from typing import Any, Final

from litestar import Litestar, Request
from litestar.routes import HTTPRoute

from serving.http.problems import Problem

CHECKED: Final = "/v1/"

BeforeRequest = Callable[[Request[Any, Any, Any]], Awaitable[None]]


class QueryNames:
    """The query parameters of each route; known once the application is built."""

    def __init__(self) -> None:
        self._names: dict[int, frozenset[str]] = {}

    def learn(self, app: Litestar) -> None:
        """Read the parameters of every route of the API."""
        for route in app.routes:
            if isinstance(route, HTTPRoute) and route.path.startswith(CHECKED):
                for handler, model in route.route_handler_map.values():
                    names = (parameter.field_alias for parameter in model.expected_query_params)
                    self._names[id(handler)] = frozenset(names)

    async def check(self, request: Request[Any, Any, Any]) -> None:
        """A hook before each request. The query is parsed once; its text is remembered by the parser.

        Raises:
            Problem: the route does not have a parameter of the request.
        """
        if not request.scope["query_string"]:
            return
        known = self._names.get(id(request.scope["route_handler"]))
        if known is not None and not known.issuperset(request.query_params):
            raise _unknown(next(name for name in request.query_params if name not in known), known)


def _unknown(name: str, known: frozenset[str]) -> Problem:
    near = get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    these = f"this route takes {', '.join(sorted(known))}" if known else "this route takes no query parameters"
    return Problem(400, "unknown-parameter", f"the parameter {name[:80]!r} does not exist; {hint}{these}")
