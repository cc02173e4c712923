"""Items and profiles in a running system: merged field by field, whatever comes late, twice, or from an import."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import httpx
import pytest

from features.archive import parts, read_part
from features.catalogue_rebuild import rebuild_catalogue
from features.store import open_store
from testing.stores import stored_rows
from testing.system import DOMAINS, STORE_FOLDER, System
from testing.waiting import wait_until

ROUNDS = 30
ITEMS = 40


@pytest.fixture
def client(system: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, timeout=30) as opened:
        yield opened


def now() -> int:
    return int(time.time() * 1000)


def item(item_id: str, at: int, **fields: Any) -> dict[str, Any]:
    return {"type": "item", "item_id": item_id, "at": at, **fields}


def visible(client: httpx.Client, answer: httpx.Response) -> None:
    """Wait until look-ups see what was accepted."""
    assert answer.status_code == 202, answer.text
    client.get("/v1/users/x/recommendations", params={"after": answer.json()["token"]}).raise_for_status()


def shown(client: httpx.Client, item_id: str, *names: str) -> list[Any]:
    entry = client.get(f"/v1/items/{item_id}").json()
    return [entry.get(name) for name in names]


def test_an_import_of_events_says_nothing_about_items(system: System, client: httpx.Client, tmp_path: Path) -> None:
    mark, at = uuid4().hex[:8], now()
    first, second = f"d1-{mark}", f"d2-{mark}"
    attributes = {"brand": "House"}
    visible(client, client.put("/v1/items", json=item(first, at, title="Tea", category="TEA", attributes=attributes)))
    visible(client, client.put("/v1/items", json=item(second, at, title="Cup")))
    visible(client, client.put("/v1/items", json=item(second, at + 1, available=False)))
    rows = [
        f"u1,{first},2026-01-20T10:00:00Z",
        f"u2,{second},2026-01-20T10:05:00Z",
        f"u3,new-{mark},2026-01-21T10:05:00Z",
    ]
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,at", *rows]) + "\n")
    command = [sys.executable, "-m", "serving.cli", "import", str(tmp_path / "events.csv")]
    subprocess.run(command, env=system.environment, check=True, capture_output=True, timeout=120)
    visible(client, client.put("/v1/items", json=item(f"end-{mark}", at)))  # behind whatever the import sent
    assert shown(client, first, "title", "category", "attributes") == ["Tea", "TEA", attributes]
    assert shown(client, second, "title", "available") == ["Cup", False]
    assert client.get(f"/v1/items/new-{mark}").status_code == 404
    body = {"candidates": [first, second]}
    answer = client.post("/v1/users/nobody/recommendations", json=body).json()
    assert [entry["item_id"] for entry in answer["items"]] == [first]


def test_absent_is_unchanged_null_clears_and_the_newer_word_wins(client: httpx.Client) -> None:
    mark, at = f"a/b?{uuid4().hex[:8]}", now() - 10_000
    address = f"/v1/items/{mark.replace('/', '%2F').replace('?', '%3F')}"
    visible(client, client.put("/v1/items", json=item(mark, at, title="Tea", attributes={"brand": "House", "size": 3})))
    visible(client, client.patch(address, json={"available": False, "attributes": {"size": None}}))
    visible(client, client.put("/v1/items", json=item(mark, at - 5, title="older", category="TEA")))
    entry = client.get(address).json()
    assert (entry["title"], entry["category"], entry["available"]) == ("Tea", "TEA", False)
    assert entry["attributes"] == {"brand": "House"}
    visible(client, client.patch(address, json={"title": None, "available": None}))
    assert {"title", "available"}.isdisjoint(client.get(address).json())


def test_a_profile_is_patched_in_its_segment(client: httpx.Client) -> None:
    user, at = uuid4().hex, now() - 10_000
    profile = {"type": "user", "user_id": user, "at": at, "segment": "old", "attributes": {"age": 40}}
    visible(client, client.put("/v1/users", json=profile))
    visible(client, client.patch(f"/v1/users/{user}", json={"attributes": {"plan": "gold"}}))
    stored = client.get(f"/v1/users/{user}/features").json()["profile"]
    assert (stored["segment"], stored["attributes"]) == ("old", {"age": 40, "plan": "gold"})


def test_records_that_cannot_be_read_let_their_successors_pass(client: httpx.Client) -> None:
    bad = client.put("/v1/items", json=[item("x", now(), domain="garden"), item(f"ok-{uuid4().hex}", now())])
    assert (bad.json()["accepted"], bad.json()["refused"]) == (1, 1)
    visible(client, bad)


def test_a_killed_consumer_loses_and_doubles_no_update(own_system: System, tmp_path: Path) -> None:
    """Updates out of order while the consumer is killed; then the store, the topic and a rebuild say the same."""
    at = now() - 100_000

    def write() -> None:
        with httpx.Client(base_url=own_system.url, timeout=30) as writer:
            for number in range(ROUNDS):
                place = number * 7 % ROUNDS  # some older words arrive later
                fields = (
                    {"title": f"t{place}"} if place % 2 else {"attributes": {f"a{place % 6}": place, "last": place}}
                )
                body = [item(f"i{n}", at + place, **fields) for n in range(ITEMS)]
                answer = writer.put("/v1/items", json=body)
                assert answer.status_code == 202, answer.text
                time.sleep(0.1)

    writing = Thread(target=write)
    writing.start()
    time.sleep(1)
    own_system.kill("consumer")
    own_system.start("consumer")
    writing.join()
    with httpx.Client(base_url=own_system.url, timeout=30) as client:
        last = client.put("/v1/items", json=item("end", at)).json()["token"]

        def is_visible() -> bool:
            return client.get("/v1/users/x/recommendations", params={"after": last}).status_code == 200

        wait_until(is_visible, 300, "the last update is visible")
        expected = {"a0": 24, "a2": 26, "a4": 28, "last": 28}
        for n in range(ITEMS):
            assert shown(client, f"i{n}", "title", "attributes") == ["t29", expected]
    archive = own_system.state / "archive"

    def archived() -> int:
        return sum(len(read_part(path)) for path in parts(archive, "items"))

    wait_until(lambda: archived() == ROUNDS * ITEMS + 1, 60, "every update is archived")
    own_system.stop("consumer")
    again = open_store(tmp_path / "again", "sqlite", DOMAINS)
    report = rebuild_catalogue(archive, again, own_system.broker.bootstrap)
    assert (report.updates, report.items, report.sent) == (ROUNDS * ITEMS + 1, ITEMS + 1, 0)
    assert stored_rows(own_system.state / STORE_FOLDER) == stored_rows(tmp_path / "again")
