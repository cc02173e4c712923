"""A second consumer process of a running system, and how many partitions a consumer owns."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from serving.process.supervisor import MODULES
from stream.child_process import python_command, start_child
from testing.ports import free_port
from testing.system import System


@contextmanager
def second_consumer(system: System, **variables: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """Another consumer of the group: the address of its metrics, and its process.

    `variables` are further environment variables.
    """
    port = free_port()
    environment = {**system.environment, "COLDSTREAM_CONSUMER_METRICS_PORT": str(port), **variables}
    with (system.state / "second.log").open("ab") as log:
        process = start_child(python_command(MODULES["consumer"]), env=environment, stdout=log, stderr=log)
        try:
            yield f"http://127.0.0.1:{port}/metrics", process
        finally:
            process.terminate()
            process.wait(60)


def owned_partitions(url: str) -> int:
    """The partitions of `events` that the consumer with metrics at `url` owns; 0 while it does not answer."""
    try:
        return httpx.get(url, timeout=5).text.count('coldstream_consumer_lag{partition="events/')
    except httpx.TransportError:
        return 0
