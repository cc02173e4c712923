"""Redis servers for tests and benchmarks of the online store: alone, with TLS, behind a Sentinel, as a cluster."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from stream.child_process import start_child
from testing.ports import free_port
from testing.secured_broker import self_signed
from testing.waiting import wait_until

READY_WITHIN_S: Final = 60.0
DOWN_AFTER_MS: Final = 500
MASTERS: Final = 3
"""The fewest that a cluster may have."""

Process = subprocess.Popen[bytes]


@contextmanager
def redis_server(folder: Path, password: str = "") -> Iterator[tuple[str, Process]]:
    """A Redis on loopback that keeps nothing on disk: the setting `store`, without its password, and the process."""
    port = free_port()
    options = ["--requirepass", password] if password else []
    with _running(folder, port, "--port", str(port), *options) as server:
        yield f"redis://127.0.0.1:{port}", server


@contextmanager
def redis_with_tls(folder: Path, password: str) -> Iterator[tuple[str, Path]]:
    """The address of a Redis that takes TLS connections only, and its certificate, signed by itself."""
    port, certificate, key = free_port(), folder / "redis.pem", folder / "redis.key"
    for file, content in zip((key, certificate), self_signed(), strict=True):
        file.write_bytes(content)
    files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
    options = ["--tls-auth-clients", "no", "--requirepass", password]
    with _running(folder, port, "--port", "0", "--tls-port", str(port), *map(str, files), *options):
        yield f"127.0.0.1:{port}", certificate


@contextmanager
def redis_sentinel(folder: Path, password: str) -> Iterator[tuple[str, Process]]:
    """A Sentinel with its master `main` and a replica: the Sentinel's address, and the process of the master."""
    master, replica, sentinel = free_port(), free_port(), free_port()
    login = ["--requirepass", password, "--masterauth", password]
    follow = ["--replicaof", f"127.0.0.1 {master}"]
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {sentinel}\nsentinel monitor main 127.0.0.1 {master} 1\nsentinel auth-pass main {password}\n"
        f"sentinel down-after-milliseconds main {DOWN_AFTER_MS}\nsentinel failover-timeout main 5000\n"
    )
    with ExitStack() as stack:
        server = stack.enter_context(_running(folder, master, "--port", str(master), *login))
        stack.enter_context(_running(folder, replica, "--port", str(replica), *login, *follow))
        stack.enter_context(_running(folder, sentinel, str(config), "--sentinel"))
        _wait_for_answer(sentinel, "sentinel", "replicas", "main", answer=str(replica))
        yield f"127.0.0.1:{sentinel}", server


@contextmanager
def redis_cluster(folder: Path) -> Iterator[str]:
    """The addresses of a cluster of three masters, separated by commas."""
    ports = [free_port() for _ in range(MASTERS)]
    with ExitStack() as stack:
        for port in ports:
            files = ["--cluster-config-file", f"nodes-{port}.conf", "--cluster-port", str(free_port())]
            stack.enter_context(_running(folder, port, "--port", str(port), "--cluster-enabled", "yes", *files))
        servers = [f"127.0.0.1:{port}" for port in ports]
        create = ["redis-cli", "--cluster", "create", *servers, "--cluster-yes"]
        subprocess.run(create, check=True, capture_output=True, timeout=READY_WITHIN_S)
        for port in ports:
            _wait_for_answer(port, "cluster", "info", answer="cluster_state:ok")
        yield ",".join(servers)


@contextmanager
def _running(folder: Path, port: int, *options: str) -> Iterator[Process]:
    common = ["--bind", "127.0.0.1", "--dir", str(folder)]
    common += [] if "--sentinel" in options else ["--save", ""]
    server = start_child(["redis-server", *options, *common], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: server.poll() is not None or _listens(port), READY_WITHIN_S, f"Redis listens on port {port}")
        if server.poll() is not None:
            raise RuntimeError(f"redis-server ended with code {server.returncode} before it listened on port {port}")
        yield server
    finally:
        server.terminate()
        server.wait(30)


def _wait_for_answer(port: int, *command: str, answer: str) -> None:
    def answers() -> bool:
        done = subprocess.run(["redis-cli", "-p", str(port), *command], check=False, capture_output=True, timeout=20)
        return answer.encode() in done.stdout

    wait_until(answers, READY_WITHIN_S, f"{' '.join(command)} says {answer}")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
