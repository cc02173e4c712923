"""The jars of Apache Kafka: named, versioned and hashed in `jars.lock`, fetched by jgo, and checked before use.

`python -m stream.jars` writes the lock anew after a change of `COORDINATES`.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from stream.errors import BrokerError

COORDINATES: Final = ("org.apache.kafka:kafka_2.13:4.3.1", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4")
"""Resolved one after the other, the first word on an artifact's version wins: together, one's BOM would bend both."""
LOCK: Final = Path(__file__).with_name("jars.lock")
CACHE_VARIABLE: Final = "COLDSTREAM_CACHE"

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

    Raises:
        BrokerError: a jar cannot be fetched, or is not the one that the lock names.
    """
    jars = locked(lock)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, jar in enumerate(jars, 1):
        place = folder / jar.file
        if not place.exists():
            _fetch(jar, place)
        _check(jar, place)
        paths.append(place)
        if progress is not None:
            progress(number, len(jars))
    return paths


def _fetch(jar: Jar, place: Path) -> None:
    from jgo.maven import MavenContext  # costs 0.3 s, and only the first start fetches

    with tempfile.TemporaryDirectory(dir=place.parent) as aside:
        context = MavenContext(repo_cache=Path(aside), timeout=60)
        component = context.project(jar.group, jar.artifact).at_version(jar.version)
        try:
            found = Path(component.artifact().resolve())
            _check(jar, found)
        except BrokerError:
            raise
        except Exception as error:  # jgo raises what requests and its own parsing raise
            raise BrokerError(
                f"{jar.file} cannot be fetched ({type(error).__name__}: {error}); "
                f"check the network, or copy the jar into {place.parent}"
            ) from error
        with found.open("rb") as file:
            os.fsync(file.fileno())
        shutil.move(found, place)


def _check(jar: Jar, place: Path) -> None:
    found = hashlib.sha256(place.read_bytes()).hexdigest()
    if found != jar.sha256:
        raise BrokerError(
            f"{place}: SHA-256 {found} is not the locked {jar.sha256}; delete the file, and it is fetched again"
        )


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
