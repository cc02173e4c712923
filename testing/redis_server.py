"""A Redis server for tests and benchmarks of the online store."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stream.child_process import start_child
from testing.ports import free_port
from testing.waiting import wait_until

READY_WITHIN_S: Final = 30.0


@contextmanager
def redis_server(folder: Path, password: str = "") -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A Redis on loopback that keeps nothing on disk: the setting `store`, without its password, and the process."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    command += ["--requirepass", password] if password else []
    server = start_child(command, stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: server.poll() is not None or _listens(port), READY_WITHIN_S, f"Redis listens on port {port}")
        if server.poll() is not None:
            raise RuntimeError(f"redis-server ended with code {server.returncode} before it listened on port {port}")
        yield f"redis://127.0.0.1:{port}", server
    finally:
        server.terminate()
        server.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
