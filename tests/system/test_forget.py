"""Deletions of users while two consumers share the partitions: the old rows never come back, later events count."""

import time
from collections.abc import Sequence
from uuid import uuid4

import httpx
from kafka import KafkaProducer

from serving.messages import ForgetUser, encode
from testing.second_consumer import owned_partitions, second_consumer
from testing.system import READY_WITHIN_S, System
from testing.waiting import wait_until

USERS = [f"user-{number}" for number in range(40)]


def test_what_is_deleted_does_not_come_back_from_another_consumer(own_system: System) -> None:
    system = own_system
    with second_consumer(system) as (url, process), httpx.Client(base_url=system.url, timeout=30) as client:
        wait_until(lambda: owned_partitions(url) == 2, READY_WITHIN_S, "each consumer owns two partitions")
        view(client, "old", 2)
        describe(client, {"old": 1})
        wait_until(lambda: set(items(system).values()) == {("old", "old")}, 60, "events are applied")
        wait_until(lambda: set(attributes(system)) == {"old"}, 60, "profiles are applied")

        forget(system)
        wait_until(lambda: set(items(system).values()) == {()}, 60, "features are deleted")
        wait_until(lambda: attributes(system) == [], 60, "profiles are deleted")
        view(client, "new", 1)
        describe(client, {"new": 1})
        wait_until(lambda: all(items(system).values()), 60, "events are applied")
        assert set(items(system).values()) == {("new",)}
        wait_until(lambda: "new" in attributes(system), 60, "profiles are applied")
        assert set(attributes(system)) == {"new"}

        forget(system)
        process.kill()
        wait_until(lambda: set(items(system).values()) == {()}, READY_WITHIN_S, "the other one deletes the features")
        view(client, "last", 1)
        wait_until(lambda: all(items(system).values()), READY_WITHIN_S, "events are applied")
        assert set(items(system).values()) == {("last",)}


def view(client: httpx.Client, item: str, times: int) -> None:
    now = int(time.time() * 1000)
    common = {"type": "interaction", "item_id": item, "kind": "view", "at": now}
    events = [common | {"user_id": user, "event_id": uuid4().hex} for user in USERS for _ in range(times)]
    client.post("/v1/events", json=events).raise_for_status()


def describe(client: httpx.Client, attributes: dict[str, int]) -> None:
    at = int(time.time() * 1000)
    profiles = [{"type": "user", "user_id": user, "at": at, "attributes": attributes} for user in USERS]
    client.put("/v1/users", json=profiles).raise_for_status()


def forget(system: System) -> None:
    producer = KafkaProducer(bootstrap_servers=system.broker.bootstrap, acks="all")
    for user in USERS:
        topic, _, value = encode(ForgetUser(user, int(time.time() * 1000)))
        producer.send(topic, value)
    producer.flush()
    producer.close()


def items(system: System) -> dict[str, Sequence[str]]:
    """The items of each user's history, in the store."""
    store = system.open_store()
    try:
        rows = store.read_activities([("shop", user) for user in USERS])
        return {user: tuple(rows["shop", user].recent.items) if ("shop", user) in rows else () for user in USERS}
    finally:
        store.close()


def attributes(system: System) -> list[str]:
    """The names of all attributes of all profiles in the store."""
    store = system.open_store()
    try:
        profiles = store.read_profiles([("shop", user) for user in USERS])
        return [name for profile in profiles.values() for name in profile.attributes]
    finally:
        store.close()
