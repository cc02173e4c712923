"""A TCP relay between a client and a broker that closes connections on demand, for tests of faults."""

import select
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Relay(socketserver.ThreadingTCPServer):
    """Passes everything on between its clients and the broker on port `broker_port`.

    It closes the connection of the next request whose API key (a number of Kafka's protocol) is `refused`, and accepts
    only as many connections as are `left`.
    """

    daemon_threads = True

    def __init__(self, broker_port: int, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), RelayedConnection)
        self.broker_port = broker_port
        self.refused: int | None = None
        self.hung_up = 0
        self.left: int | None = None

    @property
    def address(self) -> str:
        return f"{self.server_address[0]!s}:{self.server_address[1]}"

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
        super().process_request(request, client_address)
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.socket.close()
                threading.Thread(target=self.shutdown, daemon=True).start()

    def lets_through(self, request: bytes) -> bool:
        if len(request) < 6 or struct.unpack_from(">h", request, 4)[0] != self.refused:
            return True
        self.refused = None
        self.hung_up += 1
        return False


class RelayedConnection(socketserver.BaseRequestHandler):
    """One connection."""

    server: Relay

    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.broker_port)) as broker:
            while True:
                for side in select.select([self.request, broker], [], [])[0]:
                    sent = side.recv(65_536)
                    if not sent or (side is self.request and not self.server.lets_through(sent)):
                        return
                    (broker if side is self.request else self.request).sendall(sent)


@contextmanager
def relay_to(port: int, host: str = "127.0.0.1") -> Iterator[Relay]:
    """A relay on `host` to the broker that listens on `port`."""
    with Relay(port, host) as relay:
        threading.Thread(target=relay.serve_forever, args=(0.05,), daemon=True).start()
        yield relay
        relay.shutdown()
