"""Open connections of the API's port: how many, whose, and which of them have to go.

The server accepts `max_connections` at a time, whoever opens them. So that no client keeps the others out, a guard ends
the connections that were idle longest, of the address with the most of them, before the limit is reached.
"""

import asyncio
import contextlib
import logging
import os
import resource
import socket
import stat
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from serving import metrics

CHECK_EVERY_S: Final = 0.5
FULL: Final = 0.9
"""The share of `max_connections` from which the guard ends connections."""
FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
RESERVED_FILES: Final = 512
"""Open files that are no connections of clients: the store, Kafka, the release."""
STALLED_MS: Final = 30_000
"""A connection whose client takes nothing of what was sent ends after this time."""
KEEP_ALIVE_S: Final = 60
_TCP_INFO_BYTES: Final = 104
_LAST_SENT, _LAST_RECEIVED = 44, 52
"""Offsets of `tcpi_last_data_sent` and `tcpi_last_data_recv` (ms ago, uint32) in Linux' `tcp_info`."""

log = logging.getLogger("coldstream.api")


class OpenConnection(NamedTuple):
    """A connection of a client. `idle_ms`: since anything was sent or received."""

    client: tuple[str, int]
    idle_ms: int


class ConnectionGuard:
    """Watches the connections of one port of this process."""

    def __init__(self, port: int, max_connections: int) -> None:
        self._port = port
        self._limit = max_connections
        self._is_prepared = False
        metrics.open_connections.set_function(self.count)

    async def run(self) -> None:
        """Watch until cancelled. Costs a listing of a folder while there are few connections."""
        while True:
            if not self._is_prepared:
                self._prepare()
            if len(os.listdir("/proc/self/fd")) > FULL * self._limit:
                await asyncio.to_thread(self.make_room)
            await asyncio.sleep(CHECK_EVERY_S)

    def count(self) -> int:
        """How many connections are open, as the kernel counts them."""
        local, established = b":%04X" % self._port, b"01"
        return sum(
            fields[1].endswith(local) and fields[3] == established
            for name in ("tcp", "tcp6")
            for fields in _kernel_table(name)
        )

    def make_room(self) -> int:
        """End the connections that were idle longest, of the addresses with the most; how many."""
        connections = list(self._connections())
        excess = len(connections) - int(FULL * self._limit)
        if excess <= 0:
            return 0
        of_address = Counter(connection.client[0] for connection in connections)
        connections.sort(key=lambda connection: (of_address[connection.client[0]], connection.idle_ms), reverse=True)
        victims = [connection.client for connection in connections[: excess + self._limit // 20]]
        ended = self._end_those(set(victims))
        metrics.connections_ended.labels("full").inc(ended)
        log.warning("%d connections are open, most from %s; %d idle ones were ended", *_summary(connections, ended))
        return ended

    def end_all(self) -> None:
        """End every connection: the server stops, and waits for them."""
        self._end_those({connection.client for connection in self._connections()})

    def end(self, client: tuple[str, int]) -> bool:
        """End the connection of a client's address and port; whether there was one."""
        ended = self._end_those({client})
        metrics.connections_ended.labels("slow body").inc(ended)
        return ended > 0

    def _end_those(self, clients: set[tuple[str, int]]) -> int:
        ended = 0
        for connection in self._sockets():
            with contextlib.suppress(OSError):
                if connection.getpeername()[:2] in clients:
                    connection.shutdown(socket.SHUT_RDWR)
                    ended += 1
        return ended

    def _connections(self) -> Iterator[OpenConnection]:
        for connection in self._sockets():
            with contextlib.suppress(OSError):
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
                idle_ms = min(struct.unpack_from("I", info, offset)[0] for offset in (_LAST_SENT, _LAST_RECEIVED))
                host, port = connection.getpeername()[:2]
                yield OpenConnection((host, port), idle_ms)

    def _sockets(self) -> Iterator[socket.socket]:
        """A duplicate of each socket of this process on the port; closed after its turn."""
        for name in os.listdir("/proc/self/fd"):
            copy = _duplicate(int(name))
            if copy is None:
                continue
            with copy, contextlib.suppress(OSError):
                if copy.getsockname()[1] == self._port:
                    yield copy

    def _prepare(self) -> None:
        """Give the listening socket options that every connection inherits: stalled and vanished clients end."""
        for listener in self._sockets():
            if listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MS)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_S)
                self._is_prepared = True


def _duplicate(number: int) -> socket.socket | None:
    """A socket over the same connection; None for a descriptor that is no TCP socket, or is closed by now."""
    copy: int | None = None
    try:
        copy = os.dup(number)
        if not stat.S_ISSOCK(os.fstat(copy).st_mode):
            return None
        connection = socket.socket(fileno=copy)
    except OSError:
        return None
    else:
        copy = None
        if connection.family in FAMILIES:
            return connection
        connection.close()
        return None
    finally:
        if copy is not None:
            os.close(copy)


def allowed_connections(requested: int) -> int:
    """`wanted`, or fewer if this process may not open so many files; raises its soft limit first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = requested + RESERVED_FILES
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    allowed = max(1, needed - RESERVED_FILES)
    if allowed < requested:
        log.warning(
            "only %d of max_connections=%d: the limit of open files is %d (ulimit -n)", allowed, requested, hard
        )
    return allowed


def _kernel_table(name: str) -> Iterator[list[bytes]]:
    try:
        lines = Path(f"/proc/self/net/{name}").read_bytes().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        yield line.split(None, 4)


def _summary(connections: list[OpenConnection], ended: int) -> tuple[int, str, int]:
    return len(connections), connections[0].client[0], ended
