"""The command line's one client of the HTTP API."""

from collections.abc import Mapping
from typing import Any

import httpx

from serving.settings import Settings
from stream.errors import ColdstreamError

TIMEOUT_S = 10


def call_api(
    settings: Settings, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: bytes | None = None
) -> Any:
    """The JSON that the running API answers.

    Raises:
        ColdstreamError: no API listens there, or it refuses the request.
    """
    url = f"{settings.api_url}{path}"
    try:
        response = httpx.request(method, url, params=query, content=body, timeout=TIMEOUT_S)
    except httpx.TransportError as error:
        raise ColdstreamError(f"no API at {url} ({error}); start it with coldstream up, or give --port") from error
    if response.status_code >= 400:
        raise ColdstreamError(f"{response.status_code}: {_detail(response)}")
    return response.json()


def _detail(response: httpx.Response) -> str:
    """The sentences of a problem (RFC 9457); the whole body where another program answered."""
    try:
        problem = response.json()
        detail = str(problem.get("detail", response.text))
        fields = [f"{field['key']}: {field['message']}" for field in problem.get("errors", ()) if "key" in field]
    except (ValueError, AttributeError, TypeError, KeyError):
        return response.text
    return "; ".join([detail, *fields])
