"""Four domains side by side in one real system: each with its own habits, half-lives and releases."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import msgspec
import pytest

from features.activity import FoldSettings
from features.catalogue_rebuild import rebuild_catalogue
from features.event_log import last_positions
from features.rebuild import log_by_partition, rebuild
from features.store import open_store
from serving import domain_presets
from serving.settings import Settings, read
from serving.train import trainer
from serving.train.archive_counts import count_interactions
from stream.log_watch import LogWatch
from testing.stores import differing_rows, stored_rows
from testing.system import STORE_FOLDER, System
from testing.waiting import wait_until

KINDS = {"shop": "purchase", "music": "play", "video": "rate", "news": "click"}
ITEMS = 12
USERS = 60
STEPS = 20
HOUR = 60 * 60 * 1000
MINUTE = 60 * 1000


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("domains") / "state") as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="module")
def settings(system: System) -> Settings:
    return msgspec.structs.replace(read(environment=system.environment), recommender="counts")


@pytest.fixture(scope="module")
def client(system: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, timeout=60) as client:
        yield client


def taken(domain: str, user: str, item: str, ago_ms: int) -> dict[str, object]:
    at = int(time.time() * 1000) - ago_ms
    event = {"type": "interaction", "event_id": uuid4().hex, "user_id": user, "item_id": item}
    return {**event, "kind": KINDS[domain], "at": at, "domain": domain}


def send(client: httpx.Client, events: list[dict[str, object]]) -> str:
    answer = client.post("/v1/events", json=events)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["token"])


@pytest.fixture(scope="module")
def trained(system: System, client: httpx.Client, settings: Settings) -> dict[str, str]:
    """1,200 events of each domain ten hours ago, archived, and a release of each: item n is followed by n + 1."""
    for domain in KINDS:
        log = [
            taken(domain, f"u{user}", f"{domain}-{(user + step) % ITEMS}", 10 * HOUR - step * MINUTE)
            for user in range(USERS)
            for step in range(STEPS)
        ]
        send(client, log[:1_000])
        send(client, log[1_000:])
    wait_until(
        lambda: count_interactions(settings) == dict.fromkeys(KINDS, USERS * STEPS), 60, "everything is archived"
    )
    releases = {domain: trainer.train_once(settings, domain).serving or "" for domain in KINDS}

    def serves() -> bool:
        listed = [client.get("/v1/users/nobody/recommendations", params={"domain": kind}).json() for kind in KINDS]
        return {answer["domain"]: answer["release"] for answer in listed} == releases

    wait_until(serves, 60, "each domain's release serves")
    return releases


def test_what_was_taken_comes_back_as_the_domain_says(client: httpx.Client, trained: dict[str, str]) -> None:
    items_by_domain = {}
    for domain in KINDS:
        token = send(
            client, [taken(domain, "asker", f"{domain}-3", 3 * HOUR), taken(domain, "asker", f"{domain}-4", MINUTE)]
        )
        query = {"domain": domain, "n": 200, "after": token}
        answer = client.get("/v1/users/asker/recommendations", params=query).json()
        assert (answer["reason"], answer["release"]) == ("personal", trained[domain])
        shown = {item["item_id"] for item in answer["items"]}
        assert f"{domain}-5" in shown
        assert all(item.startswith(domain) for item in shown)
        items_by_domain[domain] = (f"{domain}-3" in shown, f"{domain}-4" in shown)
        everything = client.get("/v1/users/asker/recommendations", params={**query, "exclude_seen": False}).json()
        assert len(everything["items"]) >= ITEMS
    assert items_by_domain == {
        "shop": (True, True),
        "music": (True, False),  # the one of a minute ago is masked for two hours
        "video": (False, False),
        "news": (False, False),
    }


def test_each_domain_forgets_at_its_own_pace(client: httpx.Client, trained: dict[str, str]) -> None:
    for domain in ("shop", "news"):
        old = [taken(domain, f"then-{number}", "yesterday", 5 * HOUR) for number in range(50)]
        send(client, old + [taken(domain, f"now-{number}", "breaking", 0) for number in range(5)])

    def ahead(domain: str) -> str | None:
        popular = client.get("/v1/popular", params={"domain": domain, "n": 200}).json()["items"]
        both = [item["item_id"] for item in popular if item["item_id"] in {"yesterday", "breaking"}]
        return both[0] if len(both) == 2 else None

    wait_until(lambda: (ahead("shop"), ahead("news")) == ("yesterday", "breaking"), 60, "both are counted")


def test_news_of_this_minute_is_recommended_before_a_release_knows_it(
    client: httpx.Client, trained: dict[str, str]
) -> None:
    item = f"flash-{uuid4().hex[:6]}"
    reader = {"domain": "news", "n": 3}
    token = send(client, [taken("news", "reader", "news-2", MINUTE)])
    before = client.get("/v1/users/reader/recommendations", params={**reader, "after": token}).json()
    assert item not in {item["item_id"] for item in before["items"]}
    send(client, [taken("news", f"crowd-{number}", item, 0) for number in range(40)])

    def shown() -> bool:
        answer = client.get("/v1/users/reader/recommendations", params=reader).json()
        return answer["release"] == trained["news"] and item in {item["item_id"] for item in answer["items"]}

    wait_until(shown, 60, "what the crowd reads now is shown")
    client.put("/v1/items", json=[{"type": "item", "item_id": item, "at": 1_767_225_600_000, "domain": "news",
                                   "available": False}]).raise_for_status()  # fmt: skip
    wait_until(lambda: not shown(), 60, "what is taken from the catalogue is not shown")


def catalogue_ends(system: System) -> dict[str, int]:
    with LogWatch(system.broker.bootstrap, None, ["items", "users"]) as watch:
        return {name: end - 1 for name, end in watch.read().ends.items() if end}


def test_a_rebuild_gives_the_same_rows_in_every_domain(
    system: System, client: httpx.Client, settings: Settings, trained: dict[str, str], tmp_path: Path
) -> None:
    at = int(time.time() * 1000)
    for domain in KINDS:
        items = [
            {"type": "item", "item_id": f"{domain}-{n}", "at": at - n, "domain": domain, "title": f"t{n}"}
            for n in (0, 1)
        ]
        client.put("/v1/items", json=[*items, {**items[0], "attributes": {"size": 3}}]).raise_for_status()
        user = {"type": "user", "user_id": "u1", "at": at, "domain": domain, "attributes": {"plan": domain}}
        client.put("/v1/users", json=[user, {**user, "at": at - 1, "segment": "old"}]).raise_for_status()
    wait_until(system.caught_up, 60, "everything is applied")
    ends = last_positions(system.broker.bootstrap, None)
    live = system.open_store()
    wait_until(
        lambda: {name: row.position for name, row in live.read_popularity(list(ends)).items()} == ends,
        60,
        "popularity is written",
    )
    wait_until(lambda: catalogue_ends(system) == live.read_positions(["items/0", "users/0"]), 60, "items are merged")
    aside = open_store(tmp_path / "aside", "sqlite", tuple(KINDS))
    log = log_by_partition(system.state / "archive", system.broker.bootstrap, None, tuple(KINDS))
    rebuild(log, aside, FoldSettings(), ends=ends, popularity_settings=domain_presets.popularity_settings(settings))
    report = rebuild_catalogue(system.state / "archive", aside, system.broker.bootstrap)
    assert (report.items, report.profiles, report.sent) == (9, 4, 0)  # the compacted topics have every record already
    assert any("news" in row.domains for row in live.read_popularity(list(ends)).values())
    assert differing_rows(system.state / STORE_FOLDER, tmp_path / "aside") == []
    tables = {table for table, _, _ in stored_rows(tmp_path / "aside")}
    views = {"popularity", "positions", *(f"{domain}_activity" for domain in KINDS), "news_item", "shop_profile"}
    assert {f"coldstream_{view}" for view in views} <= tables
    live.close()
    aside.close()


def test_a_changed_preset_counts_anew_and_leaves_users_alone(
    system: System, client: httpx.Client, tmp_path: Path
) -> None:
    """Fifty purchases five hours ago are more than five now, until an hour halves them."""
    old = [taken("shop", f"long-{number}", "past", 5 * HOUR) for number in range(50)]
    send(client, old + [taken("shop", f"late-{number}", "present", 0) for number in range(5)])

    def first() -> str | None:
        popular = client.get("/v1/popular", params={"domain": "shop", "n": 200}).json()["items"]
        both = [item["item_id"] for item in popular if item["item_id"] in {"past", "present"}]
        return both[0] if len(both) == 2 else None

    wait_until(lambda: first() == "past", 60, "both are counted")
    before = client.get("/v1/users/long-1/features", params={"domain": "shop"}).json()
    file = tmp_path / "shop.toml"
    file.write_text('[popularity]\nhalf_life = "1h"\n')
    system.stop("consumer")
    system.environment["COLDSTREAM_DOMAINS"] = json.dumps({"shop": {"preset": str(file)}})
    system.start("consumer")
    wait_until(lambda: first() == "present", 120, "popularity is counted again")
    assert client.get("/v1/users/long-1/features", params={"domain": "shop"}).json() == before
    log = (system.state / "consumer.log").read_text()
    assert "popularity settings of shop changed; counting again from the log" in log
