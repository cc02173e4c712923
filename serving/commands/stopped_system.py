"""The log of a system that is stopped, for commands that nothing else may run beside."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from serving.process.state_folder import LOCK_FILE, prepare_state_folder
from serving.settings import Settings
from stream.errors import ColdstreamError
from stream.files import try_lock

WRITERS: Final = ("coldstream-events", "coldstream-catalogue", "coldstream-forget")
"""The consumer groups whose members write the online store, on whatever machine."""
LEAVE_WITHIN_S: Final = 15.0
"""The broker counts a killed consumer as a member until its session ends, after 10 s."""


@contextmanager
def stopped_system(settings: Settings) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Address and security of the log, its topics created; the embedded broker runs within the block.

    No system can be started on the state folder meanwhile.

    Raises:
        ColdstreamError: the system runs, a consumer runs on any machine, or Kafka does not answer.
    """
    from stream.admin import create_topics
    from stream.broker import Broker
    from stream.topics import topics

    prepare_state_folder(settings.state_path)
    lock = try_lock(settings.state_path / LOCK_FILE)
    if lock is None:
        raise ColdstreamError(
            f"a system runs on {settings.state_path}; stop it first: its consumer writes the same rows"
        )
    broker = None if settings.kafka else Broker(settings.state_path / "kafka", settings.kafka_port)
    try:
        if broker is not None:
            broker.start()
        create_topics(  # the log may be a new one
            settings.bootstrap,
            settings.kafka_security,
            topics(settings.partitions, settings.retention_ms),
            replication=settings.replication,
            min_insync_replicas=settings.min_insync_replicas,
        )
        kafka = (settings.bootstrap, settings.kafka_security)
        no_members(kafka)
        yield kafka
    finally:
        if broker is not None:
            broker.stop()
        lock.release()


def no_members(kafka: tuple[str, Mapping[str, str]]) -> None:
    """Raise ColdstreamError where a consumer runs, on this machine or another one: it writes the same rows."""
    from stream.admin import group_members

    until = time.monotonic() + LEAVE_WITHIN_S
    while members := [name for name, count in group_members(*kafka, WRITERS).items() if count]:
        if time.monotonic() > until:
            raise ColdstreamError(
                f"a consumer runs (the consumer group {members[0]} at {kafka[0]} has members); nothing was changed. "
                "Stop every part of the system, on every machine, and run this command again"
            )
        time.sleep(0.5)
