"""Free ports on loopback, no two workers of a test run given the same one."""

import functools
import itertools
import os
import random
import socket
from collections.abc import Iterator
from typing import Final

LISTENING_PORTS: Final = range(12_000, 32_000)
"""Below the range from which Linux takes the ports of outgoing connections: those can be taken between the check and
the use."""
PORTS_PER_WORKER: Final = 5_000


def free_port() -> int:
    """A port on loopback on which nothing listens at this moment, and which no other test worker is given."""
    for port in _candidates():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError("unreachable: the candidates never end")


@functools.cache
def _candidates() -> Iterator[int]:
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    first = PORTS_PER_WORKER * int(worker.removeprefix("gw")) if worker else random.randrange(len(LISTENING_PORTS))
    return (LISTENING_PORTS[number % len(LISTENING_PORTS)] for number in itertools.count(first))
