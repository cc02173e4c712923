"""The HTTP API: Litestar on Granian, one process. It imports neither Keras nor TensorFlow."""

import asyncio
import logging
import signal
import socket
import sys
from typing import Any

from litestar import Litestar
from litestar.config.compression import CompressionConfig
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin

from models.errors import PresetError
from serving.http.bodies import MAX_BODY_BYTES, BoundedRequest
from serving.http.door import Door
from serving.http.problems import on_unexpected, problem_details
from serving.http.routes import assets, events, health, items, live, popular, recommendations, releases, rules, users
from serving.http.routes.lookup_options import query_lookup
from serving.http.service import Service
from serving.process import logs, memory
from serving.settings import EXIT_MISCONFIGURED, Settings, read

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
    return Litestar(
        ROUTES,
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
        logging_config=None,
    )


async def serve(settings: Settings, service: Service) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are finished."""
    from granian.constants import Interfaces
    from granian.server.embed import Server

    server = Server(
        Door(build(service)),
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        log_access=False,
        log_enabled=False,
        websockets=False,
    )
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, server.stop)
    log.info("listening on http://%s:%d, docs at /docs", settings.host, settings.port)
    await server.serve()


def main(settings: Settings | None = None) -> int:
    """Run the API process; returns its exit code."""
    import uvloop

    memory.configure_allocator(memory.LOOKUPS)
    memory.freeze_survivors()
    settings = settings or read()
    logs.configure(settings)
    port_error = _port_error(settings)
    if port_error is not None:
        log.error(
            "port %d on %s cannot be used (%s); set port (COLDSTREAM_PORT)", settings.port, settings.host, port_error
        )
        return EXIT_MISCONFIGURED
    try:
        service = Service(settings)
    except PresetError as error:
        log.error("%s", error)
        return EXIT_MISCONFIGURED
    uvloop.run(serve(settings, service))
    return 0


def _port_error(settings: Settings) -> OSError | None:
    """Why the API cannot listen on its port; None if it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return error
    return None


if __name__ == "__main__":
    sys.exit(main())
