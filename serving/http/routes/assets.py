"""The start page, and the files of the page /docs, which come from the package swagger-ui-py."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from litestar import MediaType, Response, get
from litestar.params import FromPath

from serving.http.problems import Problem

MEDIA_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".png": "image/png", ".html": "text/html"}
START_PAGE: Final = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Coldstream</title>
<style>body{font:1rem/1.6 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}</style></head>
<body>
<h1>Coldstream</h1>
<p>A real-time recommender. This is its HTTP API.</p>
<ul>
<li><a href="/docs">Documentation</a>: every route, to try out; <a href="/docs/openapi.json">as OpenAPI</a></li>
<li><a href="/readyz">Status</a>: whether this process can serve, and what is missing</li>
<li><a href="/v1/releases">Releases</a> that are live, stored and refused</li>
<li><a href="/metrics">Metrics</a> for Prometheus</li>
</ul>
</body>
</html>
"""


@get("/", include_in_schema=False, media_type=MediaType.HTML, sync_to_thread=False)
def get_start_page() -> str:
    """Links to what a browser can show."""
    return START_PAGE


@get("/assets/{name:str}", include_in_schema=False, sync_to_thread=True)
def get_asset(name: FromPath[str]) -> Response[bytes]:
    """A file of the page /docs, by its exact name."""
    path = _assets().get(name)
    if path is None:
        raise Problem(404, "unknown-asset", "there is no such file; /docs names those that exist")
    media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
    return Response(path.read_bytes(), media_type=media_type, headers={"Cache-Control": "max-age=86400"})


@cache
def _assets() -> dict[str, Path]:
    """The files by name. The package's own code is not run."""
    spec = find_spec("swagger_ui")
    assert spec is not None, "swagger-ui-py is a dependency"
    assert spec.origin is not None, "swagger-ui-py is a package of files"
    return {path.name: path for path in (Path(spec.origin).parent / "static").iterdir() if path.is_file()}
