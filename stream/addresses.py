"""Addresses of servers: `host:port`, several separated by commas, IPv6 in brackets."""

import re
from typing import Final, NamedTuple

from stream.errors import StreamError

MAX_PORT: Final = 65_535
_SERVER: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.-]+):(?P<port>\d{1,5})", re.ASCII)


class Address(NamedTuple):
    """A host, without the brackets of IPv6, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{bracketed(self.host)}:{self.port}"


def parse_servers(text: str) -> list[Address]:
    """The servers in `a:9092,b:9092` or `[::1]:9092`, each once, in their order.

    Raises:
        StreamError: a server is not HOST:PORT; it is named.
    """
    return list(dict.fromkeys(_parse(part.strip()) for part in text.split(",")))


def bracketed(host: str) -> str:
    """A host as URLs and addresses write it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def _parse(server: str) -> Address:
    if "@" in server:  # it may hold a password: not repeated
        raise StreamError("an address is HOST:PORT, without a user and a password; give those in the settings")
    match = _SERVER.fullmatch(server)
    if match is None or not 1 <= int(match["port"]) <= MAX_PORT:
        raise StreamError(
            f"{server!r} is not a server; give HOST:PORT, several separated by commas (a:9092,b:9092), "
            "an IPv6 address in brackets ([::1]:9092)"
        )
    return Address(match["host"].strip("[]"), int(match["port"]))
