"""A network of its own for commands of tests, like a container's: another loopback, and one address outside."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from testing.ports import free_port


class NetworkNamespace(NamedTuple):
    """Its name, and the address under which it reaches this machine."""

    name: str
    outside: str

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that runs `command` in it."""
        return ["ip", "netns", "exec", self.name, *command]


@contextmanager
def network_namespace() -> Iterator[NetworkNamespace | None]:
    """A namespace until the block ends; None where this user may not make one, or `ip` is missing."""
    number = free_port()  # unique on this machine for now
    name, subnet = f"cs{number}", f"10.{201 + number % 50}.{number // 50 % 250}"
    inside = ["ip", "-n", name]
    steps = [
        ["ip", "netns", "add", name],
        ["ip", "link", "add", name, "type", "veth", "peer", "name", "outside", "netns", name],
        ["ip", "addr", "add", f"{subnet}.1/30", "dev", name],
        ["ip", "link", "set", name, "up"],
        [*inside, "addr", "add", f"{subnet}.2/30", "dev", "outside"],
        [*inside, "link", "set", "outside", "up"],
        [*inside, "link", "set", "lo", "up"],
    ]
    try:
        possible = shutil.which("ip") is not None and all(map(_succeeds, steps))
        yield NetworkNamespace(name, f"{subnet}.1") if possible else None
    finally:
        if shutil.which("ip") is not None:
            _succeeds(["ip", "netns", "delete", name])


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
