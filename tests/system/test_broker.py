"""The embedded broker as a real process: started, stopped, killed, started again; its log is still there."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import faust
import psutil
import pytest
from aiokafka import AIOKafkaProducer
from faust.transport.drivers.aiokafka import server_list
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource
from kafka.errors import MessageSizeTooLargeError

from serving.consume.app import broker_urls
from serving.settings import Settings
from stream.admin import ClusterState, cluster_state, create_topics, describe, partitions_of, wait_ready
from stream.broker import Broker
from stream.client import aiokafka_config
from stream.errors import BrokerError
from stream.topics import DAY_MS, Topic
from testing.ports import free_port
from testing.relay import relay_to
from tests.system.conftest import FreshTopic

DESCRIBE_CLUSTER = 60
"""The number of the request in Kafka's protocol."""


def write(broker: Broker, topic: str, values: list[bytes]) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
    for sent in [producer.send(topic, value, partition=0) for value in values]:
        sent.get(30)
    producer.close()


def read(broker: Broker, topic: str) -> list[bytes]:
    """What stands in partition 0, from its first to its last message now."""
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, max_partition_fetch_bytes=8 * 1024 * 1024)
    place = TopicPartition(topic, 0)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    end = consumer.end_offsets([place])[place]
    values: list[bytes] = []
    until = time.monotonic() + 60
    while consumer.position(place) < end and time.monotonic() < until:
        for messages in consumer.poll(500).values():
            values += [message.value for message in messages]
    consumer.close()
    return values


def cluster_id(broker: Broker) -> str:
    lines = (broker.folder / "data" / "meta.properties").read_text("utf-8").splitlines()
    return next(line for line in lines if line.startswith("cluster.id="))


def test_topics_can_be_written_to_when_create_topics_returns(broker: Broker, fresh_topic: FreshTopic) -> None:
    assert partitions_of(broker.bootstrap, None, "events") == 4
    name = fresh_topic(partitions=3)
    state = describe(broker.bootstrap)[name]
    assert (state.partitions, state.led) == (3, 3)
    assert partitions_of(broker.bootstrap, None, "no-such-topic") == 0


def test_topics_that_exist_stay_as_they_are(broker: Broker, fresh_topic: FreshTopic) -> None:
    name = fresh_topic(partitions=2)
    write(broker, name, [b"kept"])
    assert create_topics(broker.bootstrap, None, [Topic(name, 5), Topic(name + "-new", 1)]) == [name + "-new"]
    assert partitions_of(broker.bootstrap, None, name) == 2
    assert read(broker, name) == [b"kept"]


def test_a_topic_that_kafka_refuses_is_named(broker: Broker) -> None:
    with pytest.raises(BrokerError, match=r"topic bad name cannot be created.*InvalidTopic"):
        create_topics(broker.bootstrap, None, [Topic("bad name", 1)])
    with pytest.raises(BrokerError, match=r"topic thrice cannot be created.*InvalidReplicationFactor"):
        create_topics(broker.bootstrap, None, [Topic("thrice", 1)], replication=3)


def test_topics_are_kept_as_described(broker: Broker, fresh_topic: FreshTopic) -> None:
    aged, newest = fresh_topic(retention_ms=DAY_MS), fresh_topic(compacted=True)
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    kept = admin.describe_configs([ConfigResource("TOPIC", aged), ConfigResource("TOPIC", newest)])
    admin.close()
    text = str(kept)
    assert text.count("86400000") >= 1
    assert text.count("compact") >= 1


def test_no_topic_comes_into_being_by_a_typing_error(broker: Broker) -> None:
    consumer = KafkaConsumer("evnets", bootstrap_servers=broker.bootstrap)
    consumer.poll(300)
    consumer.close()
    assert "evnets" not in describe(broker.bootstrap)


def test_the_log_takes_what_a_stock_broker_takes(broker: Broker, fresh_topic: FreshTopic) -> None:
    garbage = os.urandom(1_000_000)
    name = fresh_topic()
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, max_request_size=4 * 1024 * 1024)
    producer.send(name, garbage, partition=0).get(30)
    with pytest.raises(MessageSizeTooLargeError):
        producer.send(name, os.urandom(1024 * 1024 + 17), partition=0).get(30)
    producer.close()
    assert read(broker, name) == [garbage]


def test_only_loopback_listens(broker: Broker) -> None:
    assert broker.pid is not None
    ports = [
        connection
        for connection in psutil.Process(broker.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert ports
    assert {port.laddr.ip for port in ports} <= {"127.0.0.1", "::ffff:127.0.0.1"}


def test_the_log_outlives_stop_kill_and_start(fresh_broker: Broker) -> None:
    before = cluster_id(fresh_broker)
    first, second = [b"a%d" % n for n in range(100)], [b"b%d" % n for n in range(100)]
    write(fresh_broker, "forget", first)
    fresh_broker.stop()
    assert fresh_broker.pid is None
    fresh_broker.start()
    assert read(fresh_broker, "forget") == first
    write(fresh_broker, "forget", second)
    fresh_broker.kill()
    fresh_broker.start()
    assert read(fresh_broker, "forget") == first + second
    write(fresh_broker, "forget", [b"last"])
    assert cluster_id(fresh_broker) == before
    assert partitions_of(fresh_broker.bootstrap, None, "events") == 4


def test_a_port_in_use_names_the_port_its_holder_and_the_cure(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError) as refused:
            Broker(tmp_path / "kafka", port).start()
    message = str(refused.value)
    assert f"port {port} on 127.0.0.1 cannot be used" in message
    assert f"(pid {os.getpid()}) listens there" in message
    assert "COLDSTREAM_KAFKA_PORT" in message


def test_a_second_broker_in_the_same_folder_is_refused(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.broker.LOCK_WITHIN_S", 0.5)
    with pytest.raises(BrokerError, match=rf"{broker.folder} is in use by another broker \(pid {broker.pid}\)"):
        Broker(broker.folder, free_port()).start()
    wait_ready(broker.bootstrap, timeout_s=5)


def test_a_lock_file_left_behind_holds_no_one_up(tmp_path: Path) -> None:
    folder = tmp_path / "kafka"
    folder.mkdir()
    (folder / "broker.lock").write_text("12345")
    with Broker(folder, free_port()) as started:
        wait_ready(started.bootstrap, timeout_s=5)


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broken = Broker(tmp_path / "kafka", free_port(), settings={"num.io.threads": "none"})
    with pytest.raises(BrokerError, match=r"num\.io\.threads"):
        broken.start()
    assert broken.pid is None


def test_several_servers_of_which_one_does_not_answer(broker: Broker) -> None:
    servers = f"127.0.0.1:{free_port()},{broker.bootstrap},[::1]:{free_port()}"
    assert cluster_state(servers) == ClusterState(brokers=1, under_replicated=0)
    assert describe(servers)["events"].replicas == 1

    async def send() -> int:
        async with AIOKafkaProducer(**aiokafka_config(servers), acks="all") as producer:
            return int((await producer.send_and_wait("rules", b"{}", b"k")).offset)

    assert asyncio.run(send()) >= 0


def test_faust_gets_every_server() -> None:
    settings = Settings(kafka="a:1,[::1]:2,b:3")
    app = faust.App("servers", broker=broker_urls(settings), store="memory://", web_enabled=False)
    assert server_list(app.conf.broker_consumer, 9092) == ["a:1", "[::1]:2", "b:3"]


def test_topics_get_the_replicas_of_the_settings(broker: Broker, fresh_topic: FreshTopic) -> None:
    name = f"{fresh_topic()}-safe"
    assert create_topics(broker.bootstrap, None, [Topic(name, 1)], min_insync_replicas=2) == [name]
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    configs = str(admin.describe_configs([ConfigResource("TOPIC", name)]))
    admin.close()
    assert re.search(r"'min\.insync\.replicas'.{0,20}'value': '2'", configs), configs
    with pytest.raises(BrokerError, match="replication factor"):
        create_topics(broker.bootstrap, None, [Topic(f"{name}-3", 1)], replication=3)


SASL = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "shop",
    "sasl_password": "pass=word #1",
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that lets in only the user `shop` with his password."""
    port, inner, controller = free_port(), free_port(), free_port()
    login = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_shop="{SASL["sasl_password"]}";'
    settings = {
        "listeners": f"SASL_PLAINTEXT://127.0.0.1:{port},PLAINTEXT://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"SASL_PLAINTEXT://127.0.0.1:{port},PLAINTEXT://127.0.0.1:{inner}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": login,
    }
    running = Broker(tmp_path_factory.mktemp("guarded") / "kafka", port, settings=settings)
    running.start(security=SASL)
    yield running
    running.stop()


def test_a_cluster_that_asks_for_a_password_gets_it(guarded: Broker) -> None:
    assert create_topics(guarded.bootstrap, SASL, [Topic("letters", 1)]) == ["letters"]
    assert describe(guarded.bootstrap, SASL)["letters"].led == 1


def test_a_wrong_password_is_a_clear_error(guarded: Broker) -> None:
    wrong = {**SASL, "sasl_password": "guess"}
    with pytest.raises(BrokerError, match="rejected the login"):
        wait_ready(guarded.bootstrap, wrong, timeout_s=3)
    with pytest.raises(BrokerError, match="closed the connection: it may want a login"):
        wait_ready(guarded.bootstrap, None, timeout_s=3)


def test_a_broker_that_hangs_up_while_it_is_asked_is_waited_for(tmp_path: Path) -> None:
    with relay_to(free_port()) as relay:
        advertised = {"advertised.listeners": f"PLAINTEXT://{relay.address}"}
        with Broker(tmp_path / "kafka", relay.broker_port, settings=advertised) as started:
            relay.refused = DESCRIBE_CLUSTER
            wait_ready(relay.address, timeout_s=20)
            assert relay.hung_up == 1
            started.kill()
            with pytest.raises(BrokerError, match=f"{relay.address} closed the connection"):
                wait_ready(relay.address, timeout_s=2)


def command(folder: Path, port: int, *flags: str) -> list[str]:
    return [sys.executable, "-m", "stream.broker", str(folder), str(port), *flags]


def test_the_command_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    port = free_port()
    process = subprocess.Popen(command(tmp_path / "kafka", port))
    try:
        wait_ready(f"127.0.0.1:{port}", timeout_s=60)
        assert psutil.Process(process.pid).name() == "java"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
    finally:
        process.kill()
    assert list((tmp_path / "kafka" / "data").glob(".kafka_cleanshutdown"))


def test_the_command_says_in_one_line_what_is_wrong(broker: Broker, tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path / "kafka", broker.port), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: port {broker.port} on 127.0.0.1 cannot be used")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_the_broker_ends_with_its_parent(tmp_path: Path) -> None:
    port = free_port()
    inner = command(tmp_path / "kafka", port, "--end-with-parent")
    script = f"import subprocess, time; print(subprocess.Popen({inner!r}).pid, flush=True); time.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    kafka = psutil.Process(int(parent.stdout.readline()))
    wait_ready(f"127.0.0.1:{port}", timeout_s=60)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    psutil.wait_procs([kafka], timeout=30)
    assert not kafka.is_running()
