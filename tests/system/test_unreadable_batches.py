"""Batches that cannot be read, and aborted transactions, on every topic but `events`: nothing else is held up."""

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from kafka import KafkaProducer

from serving.commands.status import system_status
from serving.settings import read
from stream import dead_letters, skips, topics
from stream.poison import skip_unreadable
from testing.system import System
from testing.waiting import metric_sum, wait_until

WITHIN_S = 90
FOLLOWED = (topics.CATALOGUE, topics.PROFILES, topics.RELEASES, topics.RULES, topics.OUTCOMES)
"""The API keeps what stands there: it waits for an operator."""
STOPPING = (*FOLLOWED, topics.FORGET, topics.ITEMS, topics.USERS)
PASSED_OVER = (topics.FEATURE_UPDATES, topics.SHOWN, topics.DEAD_LETTERS, topics.SKIPS)
CODEC_BITS = 0b111
"""The codec's place in a batch's attributes; 5 to 7 are unknown to Kafka's clients."""
ATTRIBUTES_LOW_BYTE = 22


@pytest.fixture(scope="module")
def shared(system: System) -> System:
    return system


def client(system: System) -> httpx.Client:
    return httpx.Client(base_url=system.url, timeout=10)


def missing(system: System) -> dict[str, str]:
    return dict(httpx.get(f"{system.url}/readyz", timeout=10).json()["missing"])


def stops(system: System) -> list[str]:
    """The partitions that are said to have stopped."""
    return sorted(set(re.findall(r"(\S+) stopped at offset", " ".join(missing(system).values()))))


def log_of(system: System, topic: str) -> Path:
    return next((system.state / "kafka").rglob(f"{topic}-0")) / f"{0:020}.log"


def put_unreadable(system: System, topic: str, damage: str, mark: str) -> int:
    """Send a message and damage its batch on the broker's disk before anybody reads it; its offset."""
    readers = [system.processes[part] for part in ("api", "consumer", "archiver")]
    producer = KafkaProducer(bootstrap_servers=system.broker.bootstrap, acks="all")
    for process in readers:
        process.send_signal(19)  # SIGSTOP
    try:
        offset = producer.send(topic, mark.encode() * 4, b"k", partition=0).get(10).offset
        file = log_of(system, topic)
        with os.fdopen(os.open(file, os.O_RDWR), "r+b") as log:
            content = log.read()
            at = content.rindex(mark.encode() * 4)
            batch = content.rindex(b"\x02", 0, at)  # magic: the byte 16 of a batch
            while int.from_bytes(content[batch - 16 : batch - 8], "big") != offset:
                batch = content.rindex(b"\x02", 0, batch)
            place = batch - 16 + ATTRIBUTES_LOW_BYTE if damage == "codec" else at
            log.seek(place)
            log.write(bytes([content[place] | CODEC_BITS]) if damage == "codec" else b"#")
    finally:
        for process in readers:
            process.send_signal(18)  # SIGCONT
        producer.close()
    return int(offset)


def test_a_batch_that_cannot_be_read_stops_its_partition_only(shared: System, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {
        topic: put_unreadable(shared, topic, "codec" if number % 2 else "checksum", f"bad-{uuid4().hex}")
        for number, topic in enumerate(STOPPING)
    }
    wait_until(lambda: len(stops(shared)) == len(places), WITHIN_S, f"every partition stops, of {places}")
    for topic, offset in places.items():
        assert f"{topic}/0 stopped at offset {offset}" in str(missing(shared))
    for topic in STOPPING:
        assert f"coldstream dead-letters skip {topic}/0" in str(missing(shared))
    for name, value in shared.environment.items():
        monkeypatch.setenv(name, value)
    assert set(system_status(read())["stopped"]) == set(stops(shared))

    user = uuid4().hex  # the other topics go on: events are applied, look-ups answered
    look_and_view(shared, user)

    for topic, offset in places.items():
        assert skip_unreadable(shared.broker.bootstrap, None, f"{topic}/0").first == offset
    wait_until(lambda: missing(shared) == {}, WITHIN_S, "all is well again")
    changes_are_seen(shared)


def test_where_a_rest_is_worth_more_than_a_stop_the_batch_is_passed_over(shared: System) -> None:
    for number, topic in enumerate(PASSED_OVER):
        put_unreadable(shared, topic, "codec" if number % 2 else "checksum", f"bad-{uuid4().hex}")
    look_and_view(shared, uuid4().hex)
    wait_until(lambda: missing(shared) == {}, WITHIN_S, "ready")
    bootstrap = shared.broker.bootstrap
    before = len(dead_letters.read(bootstrap))
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    producer.send(topics.EVENTS, b"{odd").get(10)
    producer.close()
    wait_until(lambda: len(dead_letters.read(bootstrap)) == before + 1, WITHIN_S, "letters behind it are listed")
    assert all(skip.next > skip.first for skip in skips.read(bootstrap))
    shared.kill("consumer")  # a restart reads `shown` and `outcomes`
    shared.start("consumer")
    shared.wait_ready()
    look_and_view(shared, uuid4().hex)


def test_aborted_transactions_say_nothing(shared: System) -> None:
    user, item, now = uuid4().hex, uuid4().hex, int(time.time() * 1000)
    look_and_view(shared, user)
    rule = b'{"action":"exclude","items":["%s"]}' % item.encode()
    messages: list[tuple[str, bytes, bytes]] = [
        (topics.FORGET, b"", b'{"user_id":"%s","at":%d}' % (user.encode(), now)),
        (topics.RULES, item.encode(), rule),
        (topics.RELEASES, b"shop", b'{"domain":"shop","release":"r","action":"promote","at":%d}' % now),
        (topics.ITEMS, item.encode(), b'{"type":"item","item_id":"%s","at":%d}' % (item.encode(), now)),
        (topics.CATALOGUE, b"shop/x", b"odd"),
        (topics.PROFILES, b"shop/x", b"odd"),
        (topics.OUTCOMES, b"events/0", b"odd"),
        (topics.FEATURE_UPDATES, b"", b"odd"),
    ]

    async def abort() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=shared.broker.bootstrap, transactional_id=f"tx-{user}")
        await producer.start()
        await producer.begin_transaction()
        for topic, key, value in messages:
            await producer.send(topic, value, key or None)
        await producer.abort_transaction()
        await producer.stop()

    skipped = metric_sum(f"{shared.url}/metrics", "coldstream_records_skipped_total")
    asyncio.run(abort())
    changes_are_seen(shared)
    with client(shared) as api:
        assert api.get(f"/v1/users/{user}/features").json()["summary"]["totals"]["view"] == 1
        assert item not in {rule["id"] for rule in api.get("/v1/rules").json()["rules"]}
        assert api.get(f"/v1/items/{item}").status_code == 404
    assert metric_sum(f"{shared.url}/metrics", "coldstream_records_skipped_total") == skipped
    assert missing(shared) == {}


def look_and_view(system: System, user: str) -> None:
    """A view is in the features, and the user gets an answer."""
    event: dict[str, Any] = {"type": "interaction", "event_id": uuid4().hex, "user_id": user, "item_id": "i1"}
    with client(system) as api:
        sent = api.post("/v1/events", json=event | {"kind": "view", "at": int(time.time() * 1000)})
        assert sent.status_code == 202

        def applied() -> bool:
            return api.get(f"/v1/users/{user}/features").status_code == 200

        wait_until(applied, WITHIN_S, "the view is applied")
        assert api.get(f"/v1/users/{user}/recommendations").status_code == 200


def changes_are_seen(system: System) -> None:
    """An item, a profile, a rule and a deletion that are sent now take effect."""
    item, user, now = uuid4().hex, uuid4().hex, int(time.time() * 1000)
    look_and_view(system, user)
    with client(system) as api:
        assert api.put("/v1/items", json={"type": "item", "item_id": item, "at": now, "title": "t"}).is_success
        assert api.put("/v1/users", json={"type": "user", "user_id": user, "at": now, "segment": "s"}).is_success
        assert api.put(f"/v1/rules/{item}", json={"action": "exclude", "items": [item]}).is_success
        wait_until(lambda: api.get(f"/v1/items/{item}").status_code == 200, WITHIN_S, "the item is there")
        wait_until(lambda: item in api.get("/v1/rules").text, WITHIN_S, "the rule is there")
        api.delete(f"/v1/rules/{item}")
        producer = KafkaProducer(bootstrap_servers=system.broker.bootstrap)
        producer.send(topics.FORGET, b'{"user_id":"%s","at":%d}' % (user.encode(), now)).get(10)
        producer.close()

        def forgotten() -> bool:
            answer = api.get(f"/v1/users/{user}/features")
            return answer.status_code == 404 or not answer.json()["summary"]["totals"]

        wait_until(forgotten, WITHIN_S, "the user is forgotten")
