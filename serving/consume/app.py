"""The consumer: a Faust app whose event path is a Service (`serving.consume.events`), with agents on control topics."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from mode import Service
from prometheus_client import start_http_server

from features.activity import FoldSettings
from features.errors import StoreError
from features.outcomes import JoinWindow
from features.store import OnlineStore, open_store
from models.errors import PresetError
from serving import metrics
from serving.consume.events import ConsumerOptions, EventProcessor, disconnect
from serving.domain_presets import popularity_settings
from serving.errors import ConsumerError, MessageError
from serving.messages import decode_announcement, decode_forget
from serving.process import logs, memory
from serving.settings import EXIT_MISCONFIGURED, Settings, read
from stream import topics
from stream.admin import wait_ready
from stream.client import aiokafka_config
from stream.errors import BrokerError, EventError
from stream.events import Item, TimeLimits, User, decode

CATALOGUE_GROUP: Final = "coldstream-catalogue"
CATALOGUE_BATCH: Final = 250
"""Small: events wait while a batch is written."""
CRASH_LOOK_S: Final = 0.5
SESSION_S: Final = 10.0

log = logging.getLogger("coldstream.consumer")


class CatalogueProcessor(Service):  # type: ignore[misc]  # mode has no types
    """Items and users in micro-batches into the store; their topics hold the newest word per key."""

    def __init__(self, store: OnlineStore, path: EventProcessor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.store = store
        self.path = path

    async def on_start(self) -> None:
        options = self.path.options
        self.consumer = AIOKafkaConsumer(
            topics.ITEMS,
            topics.USERS,
            **aiokafka_config(options.bootstrap, options.security),
            group_id=CATALOGUE_GROUP,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_interval_ms=600_000,
        )
        await self.consumer.start()

    async def on_stop(self) -> None:
        if not await disconnect([self.consumer], self.path.patience_s):
            log.warning("the catalogue path stopped without Kafka's answer")

    @Service.task  # type: ignore[untyped-decorator]  # mode and Faust have no types
    async def run(self) -> None:
        while not self.should_stop:
            try:
                fetched = await self.consumer.getmany(timeout_ms=500, max_records=CATALOGUE_BATCH)
                values = [one.value for records in fetched.values() for one in records if one.value]
                for place, records in fetched.items():
                    end = self.consumer.highwater(place) or 0
                    metrics.consumer_lag.labels(f"{place.topic}/{place.partition}").set(
                        max(0, end - records[-1].offset - 1)
                    )
                if values:
                    await self._write([decoded for value in values if (decoded := _record(value)) is not None])
                    await self.consumer.commit()
            except KafkaError as error:
                log.warning("Kafka: %s: %s; trying again", type(error).__name__, error)
                await self.sleep(0.5)

    async def _write(self, records: list[Item | User]) -> None:
        known = [one for one in records if one.domain in self.store.domains]
        items = [one for one in known if isinstance(one, Item)]
        users = [one for one in known if isinstance(one, User)]
        if items:
            await self.path.stored(lambda: self.store.write_items(items), "write")
        if users:
            await self.path.stored(lambda: self.store.write_profiles(users), "write")


def build(store: OnlineStore, settings: Settings) -> tuple[faust.App, EventProcessor, list[Service]]:
    """The app with its agents, the event path, and all services that run as its children: that and the catalogue's."""
    app = faust.App(
        "coldstream",
        broker=f"aiokafka://{settings.bootstrap}",
        broker_credentials=_credentials(settings),
        store="memory://",
        value_serializer="raw",
        web_enabled=False,
        broker_session_timeout=SESSION_S,  # Faust's 60 s would be how long a start waits after kill -9
        broker_heartbeat_interval=SESSION_S / 4,
        topic_disable_leader=True,
        autodiscover=False,
    )
    options = ConsumerOptions(
        bootstrap=settings.bootstrap,
        security=settings.kafka_security,
        rules=FoldSettings(history_length=settings.history_length, late_ms=settings.late_ms),
        limits=TimeLimits(max_future_ms=settings.max_future_ms),
        batch_events=settings.batch_events,
        batch_ms=settings.batch_ms,
        cached_users=settings.cached_users,
        flush_ms=settings.popularity_every_ms,
        counting=popularity_settings(settings),
        window=JoinWindow(settings.click_window_ms, settings.waiting_lists),
    )
    path = EventProcessor(store, options)
    forget = app.topic(topics.FORGET, value_type=bytes, value_serializer="raw")
    releases = app.topic(topics.RELEASES, value_type=bytes, value_serializer="raw")

    @app.agent(forget)  # type: ignore[untyped-decorator]  # mode and Faust have no types
    async def on_forget(stream: Any) -> None:
        async for value in stream:
            try:
                message = decode_forget(value)
            except MessageError as error:
                log.warning("%s", error)
                continue
            await path.forget(message.user_id)
            log.info("deleted the features of user %s", message.user_id)

    @app.agent(releases)  # type: ignore[untyped-decorator]  # mode and Faust have no types
    async def on_release(stream: Any) -> None:
        async for value in stream:
            try:
                message = decode_announcement(value)
            except MessageError as error:
                log.warning("%s", error)
                continue
            log.info("%s: release %s (%s)", message.domain, message.release, message.action)

    return app, path, [path, CatalogueProcessor(store, path)]


def _credentials(settings: Settings) -> Any:
    """What Faust's own clients need to be let into a cluster that asks who they are."""
    chosen = aiokafka_config(settings.bootstrap, settings.kafka_security)
    context = chosen.get("ssl_context")
    if "sasl_mechanism" in chosen:
        return faust.SASLCredentials(
            mechanism=chosen["sasl_mechanism"],
            username=chosen.get("sasl_plain_username"),
            password=chosen.get("sasl_plain_password"),
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
    store = open_store(settings.state_path / "feast", settings.store, settings.domain_names)
    app, path, services = build(store, settings)
    try:
        await app.start()
    except KafkaError as error:
        store.close()
        raise ConsumerError(f"Kafka was lost while the consumer started ({error}); start it again") from error
    for service in services:
        await app.add_runtime_dependency(service)
    log.info("the consumer is ready")
    watching = asyncio.create_task(_first_crash([app, *services]))
    await asyncio.wait({watching, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    watching.cancel()
    ended = await _end(app, path, services)
    store.close()
    crash = (
        None if stop.is_set() else f"the consumer ends, to begin again from what is committed: {watching.result()!r}"
    )
    if not ended:
        log.warning("Faust waits for Kafka; it is left behind")
        _leave(crash)
    if crash is not None:
        raise ConsumerError(crash)


async def _end(app: faust.App, path: EventProcessor, services: Sequence[Service]) -> bool:
    """Stop our services side by side, then the app, within a bound; whether everything stopped.

    Not by `asyncio.timeout`: Faust's services pass over a cancellation and wait for the next of them.
    """
    await path.prepare_stop()
    await asyncio.gather(*[one.stop() for one in services])
    stopping = asyncio.create_task(app.stop())
    done, _ = await asyncio.wait({stopping}, timeout=2 * path.patience_s)
    return bool(done)


def _leave(crash: str | None) -> NoReturn:
    """End the process although a thread of Faust's still runs: one whose Kafka is away dies without a word or never.

    All that was consumed is in the store or comes again; there is nothing left to be written.
    """
    if crash is not None:
        log.error("%s", crash)
    logging.shutdown()
    os._exit(0 if crash is None else 1)


async def _first_crash(services: Sequence[Service]) -> BaseException | None:
    """Return when one of them has crashed: a part that stands still in a process that lives would not be noticed."""
    while True:
        for one in services:
            if one.crashed:
                result: BaseException | None = one.crash_reason
                return result
        await asyncio.sleep(CRASH_LOOK_S)


def main(settings: Settings | None = None) -> int:
    """The process."""
    settings = settings or read()
    logs.configure(settings.log_format, settings.log_level)
    gc.set_threshold(100_000, 20, 20)  # rows are trees of plain values: collecting them often costs a tenth of the time
    memory.configure_allocator(memory.SMALL)
    memory.freeze_survivors()
    start_http_server(settings.consumer_metrics_port, settings.host, metrics.registry)
    try:
        popularity_settings(settings)  # before Kafka is waited for: a bad preset will not mend itself
        asyncio.run(serve(settings))
    except PresetError as error:
        log.error("%s", error)
        return EXIT_MISCONFIGURED
    except (StoreError, BrokerError, ConsumerError) as error:
        log.error("%s", error)
        return 1
    return 0


def _record(value: bytes) -> Item | User | None:
    try:
        record = decode(value, 2**53)
    except EventError as error:
        metrics.dead_letters.labels(error.reason).inc()
        log.warning("a catalogue record is passed over: %s", error.detail)
        return None
    return record if isinstance(record, Item | User) else None


if __name__ == "__main__":
    sys.exit(main())
