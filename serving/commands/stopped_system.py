"""The log of a system that is stopped, for commands that nothing else may run beside."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from serving.process.state_folder import check_state_folder, is_running
from serving.settings import Settings
from stream.errors import ColdstreamError


@contextmanager
def stopped_system(settings: Settings) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Address and security of the log, its topics created; the embedded broker runs within the block.

    Raises:
        ColdstreamError: the system runs, or Kafka does not answer.
    """
    from stream.admin import create_topics
    from stream.broker import Broker
    from stream.topics import topics

    check_state_folder(settings.state_path)
    if is_running(settings):
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
        yield settings.bootstrap, settings.kafka_security
    finally:
        if broker is not None:
            broker.stop()
