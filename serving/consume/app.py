"""The consumer: a Faust app with agents on control topics; `serving.consume.events` is a Service of it."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import faust
from aiokafka.errors import KafkaError
from mode import Service
from prometheus_client import start_http_server

from features.activity import FoldSettings
from features.errors import StoreError
from features.outcomes import JoinWindow
from features.store import OnlineStore, open_store
from models.errors import PresetError
from serving import metrics
from serving.consume.catalogue import CatalogueProcessor
from serving.consume.events import ConsumerOptions, EventProcessor
from serving.consume.faust_transport import ReadableTransport
from serving.consume.forget import ForgetProcessor
from serving.consume.health import ConsumerHealth
from serving.consume.log_guard import trusted_partitions
from serving.consume.membership import Instance
from serving.consume.partition_reader import PartitionReader
from serving.domain_presets import popularity_settings
from serving.errors import ConsumerError, InstanceError, LogError, MessageError
from serving.messages import decode_announcement
from serving.process import logs, memory
from serving.process.recent_quantiles import keep_recent
from serving.settings import EXIT_MISCONFIGURED, Settings, read
from stream import topics
from stream.admin import wait_ready
from stream.client import aiokafka_config
from stream.errors import BrokerError
from stream.events import TimeLimits

CRASH_CHECK_S: Final = 0.5
SESSION_S: Final = 10.0

log = logging.getLogger("coldstream.consumer")


def build(
    store: OnlineStore, settings: Settings, instance: str | None = None
) -> tuple[faust.App, EventProcessor, list[PartitionReader], list[Service]]:
    """The Faust app with its agents, the event processor, the readers of topics, and all services of the app.

    `instance` is the name of this process in the consumer groups.
    """
    app = faust.App(
        "coldstream",
        broker=broker_urls(settings),
        broker_credentials=_credentials(settings),
        store="memory://",
        datadir=settings.state_path / "faust",
        value_serializer="raw",
        web_enabled=False,
        broker_session_timeout=SESSION_S,  # with Faust's 60 s, a start after kill -9 waits that long
        broker_heartbeat_interval=SESSION_S / 4,
        consumer_group_instance_id=instance,
        topic_disable_leader=True,
        autodiscover=False,
    )
    app.transport = ReadableTransport(app, settings.bootstrap, settings.kafka_security)
    options = ConsumerOptions(
        bootstrap=settings.bootstrap,
        security=settings.kafka_security,
        fold_settings=FoldSettings(history_length=settings.history_length, late_ms=settings.late_ms),
        limits=TimeLimits(max_future_ms=settings.max_future_ms),
        batch_events=settings.batch_events,
        batch_ms=settings.batch_ms,
        cached_users=settings.cached_users,
        flush_ms=settings.popularity_every_ms,
        popularity_settings=popularity_settings(settings),
        session_timeout_ms=settings.session_timeout_ms,
        join_window=JoinWindow(settings.click_window_ms, settings.waiting_lists),
    )
    events = EventProcessor(store, options)
    catalogue = CatalogueProcessor(store, events)
    forget = ForgetProcessor(store, events)
    releases = app.topic(topics.RELEASES, value_type=bytes, value_serializer="raw")

    @app.agent(releases)  # type: ignore[untyped-decorator]  # mode and Faust have no types
    async def on_release(stream: Any) -> None:
        async for value in stream:
            try:
                message = decode_announcement(value)
            except MessageError as error:
                log.warning("%s", error)
                continue
            log.info("%s: release %s (%s)", message.domain, message.release, message.action)

    readers: list[PartitionReader] = [events, catalogue, forget]
    for reader in readers:
        reader.instance = instance
    return app, events, readers, [*readers, ConsumerHealth(events, catalogue, forget)]


def broker_urls(settings: Settings) -> list[str]:
    """The servers of the cluster, as Faust takes them."""
    return [f"aiokafka://{server}" for server in settings.bootstrap.split(",")]


def _credentials(settings: Settings) -> Any:
    """Credentials of Faust's own clients; None if the cluster needs none."""
    config = aiokafka_config(settings.bootstrap, settings.kafka_security)
    context = config.get("ssl_context")
    if "sasl_mechanism" in config:
        return faust.SASLCredentials(
            mechanism=config["sasl_mechanism"],
            username=config.get("sasl_plain_username"),
            password=config.get("sasl_plain_password"),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    wait_ready(settings.bootstrap, settings.kafka_security)
    instance = Instance(settings)
    store = open_store(settings.state_path / "feast", settings.store, settings.domain_names)
    app, events, readers, services = build(store, settings, instance.name)
    try:
        events.log_guard.start(store.read_log_marks(trusted_partitions(settings.partitions)))
        await app.start()
    except KafkaError as error:
        store.close()
        raise ConsumerError(
            f"lost the connection to Kafka while starting ({error}); start the consumer again"
        ) from error
    for service in services:
        await app.add_runtime_dependency(service)
    log.info("the consumer is ready: %s", instance.name)
    crash_watch = asyncio.create_task(_first_crash([app, *services]))
    fenced = [asyncio.create_task(reader.fenced.wait()) for reader in readers]
    await asyncio.wait({crash_watch, asyncio.create_task(stop.wait()), *fenced}, return_when=asyncio.FIRST_COMPLETED)
    if any(reader.fenced.is_set() for reader in readers):
        _end_fenced(instance.name)
    crash_watch.cancel()
    stopped = await _stop_all(app, events, services)
    store.close()
    crash = (
        None
        if stop.is_set()
        else f"the consumer crashed, a restart continues from its commits: {crash_watch.result()!r}"
    )
    if not stopped:
        log.warning("Faust still waits for Kafka; exiting without it")
        _exit_now(crash)
    if crash is not None:
        raise ConsumerError(crash)


async def _stop_all(app: faust.App, events: EventProcessor, services: Sequence[Service]) -> bool:
    """Stop the services concurrently, then the app; False if the app did not stop in time.

    `asyncio.timeout` does not work here: Faust's services ignore a cancellation.
    """
    await events.prepare_stop()
    await asyncio.gather(*[service.stop() for service in services])
    stopping = asyncio.create_task(app.stop())
    done, _ = await asyncio.wait({stopping}, timeout=2 * events.disconnect_timeout_s)
    return bool(done)


def _end_fenced(name: str) -> NoReturn:
    """End at once, without writing or committing: the partitions are another process's now."""
    log.error(
        "another consumer joined under the name %s and has its partitions now; give each consumer process "
        "a consumer_id of its own (COLDSTREAM_CONSUMER_ID)",
        name,
    )
    logging.shutdown()
    os._exit(EXIT_MISCONFIGURED)


def _exit_now(crash: str | None) -> NoReturn:
    """End the process while a thread of Faust still runs: without Kafka that thread may never end.

    Nothing is lost: everything consumed is in the store or will be redelivered.
    """
    if crash is not None:
        log.error("%s", crash)
    logging.shutdown()
    os._exit(0 if crash is None else 1)


async def _first_crash(services: Sequence[Service]) -> BaseException | None:
    """Return the reason once a service has crashed: a dead service in a live process would go unnoticed."""
    while True:
        for service in services:
            if service.crashed:
                reason: BaseException | None = service.crash_reason
                return reason
        await asyncio.sleep(CRASH_CHECK_S)


def main(settings: Settings | None = None) -> int:
    """Run the consumer process; returns its exit code."""
    settings = settings or read()
    logs.configure(settings)
    gc.set_threshold(100_000, 20, 20)  # rows are acyclic; frequent collections cost a tenth of the time
    memory.configure_allocator(memory.SMALL)
    memory.freeze_survivors()
    start_http_server(settings.consumer_metrics_port, settings.host, metrics.registry)
    keep_recent(metrics.event_to_feature, metrics.event_to_feature_recent)
    try:
        popularity_settings(settings)  # before waiting for Kafka: a bad preset is a permanent error
        asyncio.run(serve(settings))
    except PresetError as error:
        log.error("%s", error)
        return EXIT_MISCONFIGURED
    except InstanceError as error:
        log.error("%s", error)
        return EXIT_MISCONFIGURED
    except LogError:  # the guard has logged it
        return EXIT_MISCONFIGURED
    except (StoreError, BrokerError, ConsumerError) as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
