"""Full disks below the broker's log and below the online store: nothing acknowledged is lost, and all of it heals."""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from serving.process.supervisor import disk_is_full
from stream import topics
from stream.admin import create_topics
from stream.broker import Broker
from testing.ports import free_port
from testing.system import System
from testing.waiting import answers, wait_until

MOUNT = ("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs")
WITHIN_S = 60


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run([*MOUNT, str(folder)], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system (CAP_SYS_ADMIN)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


def test_a_broker_whose_disk_is_full_starts_again_with_all_that_it_acknowledged(small_disk: Path) -> None:
    broker = Broker(small_disk / "kafka", free_port())
    broker.start()
    try:
        create_topics(broker.bootstrap, None, [topics.Topic("t", 1)])
        assert not disk_is_full(broker.folder)
        producer = KafkaProducer(
            bootstrap_servers=broker.bootstrap, acks="all", request_timeout_ms=4_000, delivery_timeout_ms=6_000
        )
        acknowledged = {f"{number}" for number in range(50) if producer.send("t", b"%d" % number).get(10)}
        filler = fill(small_disk)
        for number in range(50, 500):
            try:
                producer.send("t", b"%d" % number + b" " * 8_192).get(5)
            except KafkaError:
                break
            acknowledged.add(f"{number}")
        wait_until(lambda: broker.pid is None, WITHIN_S, "the broker ends")
        assert disk_is_full(broker.folder)
        with suppress(KafkaError):  # the last message was not acknowledged
            producer.close(1)
        filler.unlink()
        broker.start()
        consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap)
        place = TopicPartition("t", 0)
        consumer.assign([place])
        consumer.seek_to_beginning(place)
        end, kept = consumer.end_offsets([place])[place], set()
        while consumer.position(place) < end:
            kept |= {message.value.decode().strip() for message in consumer.poll(1_000).get(place, [])}
        consumer.close()
        assert acknowledged <= kept
    finally:
        broker.stop()


def test_a_consumer_that_cannot_write_the_store_waits_and_goes_on(system: System) -> None:
    users = [uuid4().hex for _ in range(200)]

    def problem() -> str:
        return str(httpx.get(f"{system.url}/readyz", timeout=10).json()["missing"].get("consumer", ""))

    def views(user: str) -> int:
        answer = httpx.get(f"{system.url}/v1/users/{user}/features", timeout=10)
        return int(answer.json()["summary"]["totals"].get("view", 0)) if answer.status_code == 200 else 0

    pid = system.processes["consumer"].pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (2_000, resource.RLIM_INFINITY))
    try:
        now = int(time.time() * 1000)
        common = {"type": "interaction", "kind": "view", "item_id": "i1", "at": now}
        events = [common | {"user_id": user, "event_id": uuid4().hex} for user in users]
        assert httpx.post(f"{system.url}/v1/events", json=events, timeout=10).status_code == 202
        wait_until(lambda: "online store" in problem(), WITHIN_S, "the consumer reports the store")
        assert [views(user) for user in users] == [0] * len(users)
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until(lambda: all(views(user) == 1 for user in users), WITHIN_S, "every event is applied")
    wait_until(lambda: answers(f"{system.url}/readyz"), WITHIN_S, "all is well again")
    assert system.processes["consumer"].pid == pid
    assert system.processes["consumer"].poll() is None


@pytest.mark.timeout(180)
@pytest.mark.parametrize("modules", ["features.store", "serving.metrics, features.store"])
def test_metrics_need_no_disk(small_disk: Path, modules: str) -> None:
    filler = fill(small_disk)
    program = f"import {modules}, serving.metrics; serving.metrics.records_accepted.labels('item').inc()"
    variables = {"TMPDIR": str(small_disk), "PROMETHEUS_MULTIPROC_DIR": str(small_disk), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(small_disk.iterdir()) == [filler]
