"""The HTTP API: Litestar on Granian, one process. It imports neither Keras nor TensorFlow."""

import asyncio
import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from litestar import Litestar
from litestar.config.compression import CompressionConfig
from litestar.config.cors import CORSConfig
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin

from models.errors import PresetError
from serving.http.background import keep_running
from serving.http.bodies import MAX_BODY_BYTES, BoundedRequest
from serving.http.connections import ConnectionGuard, allowed_connections
from serving.http.door import Door
from serving.http.operations import start_operations
from serving.http.problems import on_unexpected, problem_details
from serving.http.query_names import QueryNames
from serving.http.routes import assets, events, health, items, live, popular, recommendations, releases, rules, users
from serving.http.routes.lookup_options import query_lookup
from serving.http.service import Service
from serving.process import logs, memory
from serving.settings import EXIT_MISCONFIGURED, Settings, read
from stream.addresses import bracketed

if TYPE_CHECKING:
    from granian.server.embed import Server

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a request's line and headers."""
STOP_TIMEOUT_S: Final = 10.0
"""What requests in flight have to end when the process stops."""
BACKLOG: Final = 2_048
"""Connections that the kernel has accepted, and the server not yet."""
ROUTES: list[Any] = [
    events.post_events,
    items.put_items,
    items.patch_item,
    users.put_users,
    users.patch_user,
    recommendations.get_recommendations,
    recommendations.post_recommendations,
    live.stream_recommendations,
    recommendations.session_recommendations,
    items.similar_items,
    items.get_item,
    users.get_features,
    popular.popular_items,
    rules.list_rules,
    rules.get_rule,
    rules.put_rule,
    rules.delete_rule,
    health.get_liveness,
    health.get_readiness,
    releases.list_releases,
    releases.get_release,
    health.get_metrics,
    assets.get_start_page,
    assets.get_asset,
]

log = logging.getLogger("coldstream.api")


def build(service: Service) -> Litestar:
    """The application around a service."""
    swagger = SwaggerRenderPlugin(
        js_url="/assets/swagger-ui-bundle.js",
        css_url="/assets/swagger-ui.css",
        standalone_preset_js_url="/assets/swagger-ui-standalone-preset.js",
        favicon="<link rel='icon' href='/assets/favicon-32x32.png'>",
        path="/",
    )
    names = QueryNames()
    app = Litestar(
        ROUTES,
        before_request=names.check,
        dependencies={
            "service": Provide(lambda: service, use_cache=True, sync_to_thread=False),
            "lookup": Provide(query_lookup, sync_to_thread=False),
        },
        on_startup=[service.start],
        on_shutdown=[service.stop],
        plugins=[problem_details()],
        exception_handlers={Exception: on_unexpected},
        request_class=BoundedRequest,
        openapi_config=OpenAPIConfig(
            "Coldstream", "0.1.0", path="/docs", render_plugins=[swagger], description="Recommendations in real time."
        ),
        compression_config=CompressionConfig("gzip", exclude=["/stream$"], minimum_size=64 * 1024),
        request_max_body_size=MAX_BODY_BYTES + 1,
        cors_config=_cors(service.settings),
        logging_config=None,
    )
    names.learn(app)
    return app


def _cors(settings: Settings) -> CORSConfig | None:
    """Which pages of other origins may call the API; None: no page may."""
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    return CORSConfig(allow_origins=origins, allow_methods=["*"], max_age=600) if origins else None


async def serve(settings: Settings, service: Service) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are finished."""
    loop = asyncio.get_running_loop()
    max_connections = allowed_connections(settings.max_connections)
    guard = ConnectionGuard(settings.port, max_connections)
    server = _server(Door(build(service), guard.end, settings.body_timeout_ms / 1000), settings, max_connections)

    def stop() -> None:
        service.close_streams()
        server.stop()
        loop.call_later(STOP_TIMEOUT_S, guard.end_all)

    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop)
    start_operations(service, settings.host, settings.api_metrics_port, loop)
    watching = asyncio.create_task(keep_running("watching connections", guard.run))
    log.info("listening on http://%s:%d, docs at /docs", bracketed(settings.host), settings.port)
    try:
        await server.serve()
    finally:
        watching.cancel()


def _server(application: Door, settings: Settings, max_connections: int) -> "Server":
    """The HTTP/1.1 server. A connection has `idle_timeout_ms` for each request's head, the first one included."""
    from granian.constants import HTTPModes, Interfaces
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    return Server(
        application,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=settings.idle_timeout_ms, max_buffer_size=MAX_HEAD_BYTES),
        backlog=BACKLOG,
        backpressure=max_connections,
        log_access=False,
        log_enabled=False,
        websockets=False,
    )


def main(settings: Settings | None = None) -> int:
    """Run the API process; returns its exit code."""
    import uvloop

    memory.configure_allocator(memory.LOOKUPS)
    memory.freeze_survivors()
    settings = settings or read()
    logs.configure(settings)
    for name in ("port", "api_metrics_port"):
        port = getattr(settings, name)
        port_error = _port_error(settings.host, port)
        if port_error is not None:
            what = "port %d on %s cannot be used (%s); set %s (COLDSTREAM_%s)"
            log.error(what, port, settings.host, port_error, name, name.upper())
            return EXIT_MISCONFIGURED
    try:
        service = Service(settings)
    except PresetError as error:
        log.error("%s", error)
        return EXIT_MISCONFIGURED
    uvloop.run(serve(settings, service))
    return 0


def _port_error(host: str, port: int) -> OSError | None:
    """Why the API cannot listen on a port; None if it can."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


if __name__ == "__main__":
    sys.exit(main())
