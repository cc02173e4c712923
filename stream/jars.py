"""The jars of Apache Kafka: named, versioned and hashed in `jars.lock`, fetched by jgo, and checked before use.

`python -m stream.jars` writes the lock anew after a change of `COORDINATES`.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.errors import BrokerError
from stream.files import sync

COORDINATES: Final = ("org.apache.kafka:kafka_2.13:4.3.1", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4")
"""Resolved one after the other, the first word on an artifact's version wins: together, one's BOM would bend both."""
LOCK: Final = Path(__file__).with_name("jars.lock")
CACHE_VARIABLE: Final = "COLDSTREAM_CACHE"
FETCHED_AT_ONCE: Final = 4

Progress = Callable[[int, int], None]
"""Called with the number of jars in place and the number of all."""


class Jar(msgspec.Struct, frozen=True):
    """One line of the lock: `group:artifact:version sha256`."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def cache_folder() -> Path:
    """Where jars are kept: shared by every system of this user."""
    base = os.environ.get(CACHE_VARIABLE) or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "coldstream" / "jars"


def locked(lock: Path = LOCK) -> list[Jar]:
    """The jars that `lock` names."""
    lines = [line.split() for line in lock.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    jars = []
    for name, sha256 in lines:
        group, artifact, version = name.split(":")
        jars.append(Jar(group, artifact, version, sha256))
    return jars


def install(folder: Path, lock: Path = LOCK, progress: Progress | None = None) -> list[Path]:
    """Every locked jar in `folder`, checked against its SHA-256; only missing ones are fetched.

    A jar appears under its name only whole and checked, so an install that was cut short goes on where it stopped.

    Raises:
        BrokerError: a jar cannot be fetched, or is not the one that the lock names.
    """
    jars = locked(lock)
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(FETCHED_AT_ONCE) as pool:
        waiting = [pool.submit(_install, jar, folder / jar.file) for jar in jars]
        try:
            for number, download in enumerate(waiting, 1):
                download.result()
                if progress is not None:
                    progress(number, len(jars))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [folder / jar.file for jar in jars]


def _install(jar: Jar, place: Path) -> None:
    if not place.exists():
        _fetch(jar, place)
    sha256 = _sha256(place)
    if sha256 != jar.sha256:
        raise BrokerError(
            f"{place}: SHA-256 {sha256} is not the locked {jar.sha256}; delete the file, and it is fetched again"
        )


def _fetch(jar: Jar, place: Path) -> None:
    from jgo.maven import MavenContext  # costs 0.3 s, and only the first start fetches

    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetched-") as aside:
        component = MavenContext(repo_cache=Path(aside), timeout=60).project(jar.group, jar.artifact)
        try:
            fetched = Path(component.at_version(jar.version).artifact().resolve())
        except Exception as error:  # jgo raises what requests and its own parsing raise
            raise BrokerError(
                f"{jar.file} cannot be fetched ({type(error).__name__}: {error}); check the network and the proxy "
                f"(HTTPS_PROXY, REQUESTS_CA_BUNDLE), or copy the jar into {place.parent}"
            ) from error
        sha256 = _sha256(fetched)
        if sha256 != jar.sha256:
            raise BrokerError(
                f"{jar.file} as fetched has SHA-256 {sha256}, not the locked {jar.sha256}; nothing was kept: "
                "try again, and do not trust the network in between if it stays so"
            )
        sync(fetched)
        fetched.replace(place)


def _sha256(place: Path) -> str:
    with place.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _lock_lines() -> list[str]:
    import jgo

    artifacts: dict[tuple[str, str], Any] = {}
    for coordinate in COORDINATES:
        for artifact in jgo.resolve(coordinate):
            artifacts.setdefault((artifact.groupId, artifact.artifactId), artifact)
    lines = []
    for (group, name), artifact in sorted(artifacts.items()):
        sha256 = hashlib.sha256(Path(artifact.resolve()).read_bytes()).hexdigest()
        lines.append(f"{group}:{name}:{artifact.version} {sha256}")
    return lines


if __name__ == "__main__":
    LOCK.write_text("# group:artifact:version sha256\n" + "\n".join(_lock_lines()) + "\n", "utf-8")
