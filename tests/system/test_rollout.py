"""Canaries and shadows in real processes: the right users, a verdict by clicks, damage, kill -9; no request fails."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition

from models.releases import arms, release_store, rollout
from models.releases.manifest import ITEM_KNN, read_manifest
from serving.messages import decode_announcement
from serving.settings import Settings, read
from serving.train import trainer
from stream import topics
from stream.client import kafka_python_config
from testing.random_release import write_random_release
from testing.system import System
from testing.waiting import wait_until

SETTINGS = {"canary_impressions": 400, "canary_margin": 0.5, "click_window_ms": 5_000}


@pytest.fixture(scope="module")
def trying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("trying") / "state", **SETTINGS) as running:
        running.wait_ready()
        yield running


@pytest.fixture
def client(trying: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=trying.url, timeout=30) as opened:
        yield opened


def two_releases(system: System, client: httpx.Client) -> tuple[Path, str, str]:
    """The control serves; the other one is whole and does not."""
    root, rng = system.state / "releases", np.random.default_rng(0)
    other, control = write_random_release(root, 60, ITEM_KNN, rng), write_random_release(root, 60, ITEM_KNN, rng)
    wait_until(lambda: shop(client)["serving"] == control, 60, "the control serves")
    return root, control, other


def shop(client: httpx.Client) -> dict[str, Any]:
    releases: dict[str, Any] = client.get("/v1/releases").json()["shop"]
    return releases


def events_of(user: str, answer: dict[str, Any], click: bool) -> list[dict[str, Any]]:
    now = int(time.time() * 1000)
    base = {"user_id": user, "at": now}
    items = [item["item_id"] for item in answer["items"]]
    about = {"item_ids": items, "release": answer["release"], "request_id": answer["request_id"]}
    shown = {"type": "impression", "event_id": uuid4().hex, **base, **about}
    took = {"type": "interaction", "event_id": uuid4().hex, "item_id": items[0], "kind": "click", **base}
    return [shown, took] if click else [shown]


def visit(client: httpx.Client, users: list[str], clicks: Any) -> list[tuple[str, str]]:
    """Each user looks and may click, as `clicks(user, release)` says; who was answered by which release."""
    answered, batch = [], []
    for user in users:
        got = client.get(f"/v1/users/{user}/recommendations", params={"n": 5})
        assert got.status_code == 200, got.text
        answer = got.json()
        answered.append((user, answer["release"]))
        batch += events_of(user, answer, clicks(user, answer["release"]))
    assert client.post("/v1/events", json=batch).status_code == 202
    return answered


def know_items(client: httpx.Client) -> None:
    """A catalogue, so that users of whom nothing is known get a list, too."""
    now = int(time.time() * 1000)
    items = [{"type": "item", "item_id": f"i{number}", "at": now, "category": "c"} for number in range(60)]
    client.put("/v1/items", json=items).raise_for_status()
    wait_until(lambda: client.get("/v1/users/x/recommendations").json()["items"], 60, "the catalogue is there")


def totals(client: httpx.Client, name: str) -> tuple[int, int]:
    outcomes = shop(client)["rollout"]["outcomes"].get(name, {"impressions": 0, "clicks": 0})
    return outcomes["impressions"], outcomes["clicks"]


def test_a_canary_answers_its_users_and_goes_when_they_click_less(trying: System, client: httpx.Client) -> None:
    root, control, other = two_releases(trying, client)
    know_items(client)
    arm = rollout.begin_canary(root, "shop", other, 0.4)
    wait_until(lambda: "canary" in shop(client)["rollout"]["loaded"], 60, "the canary is loaded")
    wait_until(lambda: shop(client)["rollout"]["figures"], 60, "the count has begun")
    users = [f"v{number}" for number in range(300)]
    mine = {user for user in users if arms.includes(arm, user)}
    assert 60 < len(mine) < 180
    for turn in range(8):
        answered = visit(client, users, lambda user, by, turn=turn: by == control and hash_of(user, turn) < 0.5)
        if turn == 0:
            assert {user for user, by in answered if by == other} == mine
            assert {by for _, by in answered} == {control, other}
        if shop(client)["rollout"]["canary"] is None:
            break
    wait_until(lambda: shop(client)["rollout"]["canary"] is None, 60, "the canary goes")
    state = shop(client)
    ended = state["rollout"]["ended"][-1]
    assert (ended["release"], ended["action"], ended["reason"]) == (other, "rolled-back", "canary-clicks")
    (listed,) = [release for release in state["releases"] if release["id"] == other]
    assert (listed["state"], listed["reason"]) == ("refused", "canary-clicks")
    wait_until(lambda: {by for _, by in visit(client, users, lambda *_: False)} == {control}, 60, "the control has all")
    metrics = client.get("/metrics").text
    assert 'coldstream_canaries_ended_total{action="rollback",domain="shop",reason="clicks"} 1.0' in metrics


def hash_of(user: str, turn: int) -> float:
    return arms.assignment(user, f"click{turn}")


def test_a_canary_that_is_as_good_serves_everyone(trying: System, client: httpx.Client) -> None:
    root, _, other = two_releases(trying, client)
    know_items(client)
    rollout.begin_canary(root, "shop", other, 0.5)
    wait_until(lambda: shop(client)["rollout"]["figures"], 60, "the count has begun")
    users = [f"v{number}" for number in range(400)]
    for turn in range(10):
        visit(client, users, lambda user, _, turn=turn: hash_of(user, turn) < 0.6)
        if shop(client)["serving"] == other:
            break
    wait_until(lambda: shop(client)["serving"] == other, 60, "the canary is promoted")
    ended = shop(client)["rollout"]["ended"][-1]
    assert (ended["action"], ended["reason"]) == ("promoted", "not-worse")


def test_a_damaged_canary_never_answers(trying: System, client: httpx.Client) -> None:
    root, control, other = two_releases(trying, client)
    know_items(client)
    path = root / "shop" / other / "popularity.npy"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    arms.write(root, "shop", arms.Rollout(canary=arms.new_arm(other, 1.0, 0)))  # as if it was whole when it began
    path.write_bytes(raw)
    wait_until(lambda: shop(client)["rollout"]["ended"], 60, "the canary is refused")
    assert shop(client)["rollout"]["ended"][-1]["reason"] == "hash-mismatch"
    assert shop(client)["rollout"]["canary"] is None
    assert {by for _, by in visit(client, [f"v{number}" for number in range(50)], lambda *_: False)} == {control}


def test_a_canary_without_a_verdict_goes_back_in_time(trying: System, client: httpx.Client) -> None:
    """It began 73 hours ago, by its file; the setting is the default, 72."""
    root, control, other = two_releases(trying, client)
    know_items(client)
    began_at = int(time.time() * 1000) - 73 * 3_600_000
    arms.write(root, "shop", arms.Rollout(canary=arms.new_arm(other, 0.5, began_at)))
    wait_until(lambda: shop(client)["rollout"]["ended"], 60, "the canary is rolled back")
    state = shop(client)
    assert (state["serving"], state["rollout"]["canary"]) == (control, None)
    ended = state["rollout"]["ended"][-1]
    assert (ended["release"], ended["action"], ended["reason"]) == (other, "rolled-back", "canary-timeout")
    assert "no decision within 72 h" in ended["detail"]

    def listed() -> tuple[str, str | None]:
        (listed_release,) = [release for release in shop(client)["releases"] if release["id"] == other]
        return listed_release["state"], listed_release["reason"]

    wait_until(lambda: listed() == ("refused", "canary-timeout"), 60, "the release is listed as refused")
    line = 'coldstream_canaries_ended_total{action="rollback",domain="shop",reason="timeout"} 1.0'
    wait_until(lambda: line in client.get("/metrics").text, 60, "the metric says so")
    command = [sys.executable, "-m", "serving.cli", "releases", "show", other, "--json"]
    card = subprocess.run(command, env=trying.environment, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(card.stdout)["refused"]["reason"] == "canary-timeout"


def test_a_canary_that_may_be_promoted_waits_for_a_person(trying: System, client: httpx.Client) -> None:
    root, _, other = two_releases(trying, client)
    began_at = int(time.time() * 1000) - 73 * 3_600_000
    arms.write(root, "shop", arms.Rollout(canary=arms.new_arm(other, 0.5, began_at), ready="not worse"))
    wait_until(lambda: (shop(client)["rollout"]["verdict"] or {}).get("action") == "wait", 60, "it is judged")
    assert shop(client)["rollout"]["canary"]["release"] == other
    rollout.end_trial(root, "shop", "canary")
    wait_until(lambda: shop(client)["rollout"]["loaded"] == [], 60, "the trial is over")


def test_a_shadow_is_compared_and_never_answers(trying: System, client: httpx.Client, tmp_path: Path) -> None:
    root, control, other = two_releases(trying, client)
    know_items(client)
    rollout.begin_shadow(root, "shop", other, 1.0)
    wait_until(lambda: "shadow" in shop(client)["rollout"]["loaded"], 60, "the shadow is loaded")
    answered = visit(client, [f"s{number}" for number in range(20)], lambda *_: True)
    assert {by for _, by in answered} == {control}
    wait_until(lambda: figures(client)["judged"] + figures(client)["dropped"] >= 20, 60, "the windows have passed")
    shadow = figures(client)
    assert shadow["overlap@10"] == 1.0  # of users of whom nothing is known both say what is popular
    assert shadow["hits"] == shadow["shown_hits"] == shadow["judged"] > 0
    lines = [json.loads(line) for line in (trying.state / "shadow" / "shop.jsonl").read_text().splitlines()]
    assert len(lines) == shadow["answers"]
    assert json.loads(listed(trying.environment, "--json"))["figures"]["shadow"] == shadow
    assert "overlap@10 1, " in listed(trying.environment)
    shutil.copytree(root, tmp_path / "releases")
    rollout.begin_shadow(tmp_path / "releases", "shop", other, 1.0)  # the same release, another trial
    elsewhere = {**trying.environment, "COLDSTREAM_STATE": str(tmp_path)}
    assert json.loads(listed(elsewhere, "--json"))["figures"] is None
    assert {(line["serving"], line["shadow"]) for line in lines} == {(control, other)}
    assert rollout.end_trial(root, "shop", "shadow") is not None
    wait_until(lambda: shop(client)["rollout"]["loaded"] == [], 60, "the shadow is gone")


def listed(variables: dict[str, str], *words: str) -> str:
    command = [sys.executable, "-m", "serving.cli", "releases", "list", *words]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=60).stdout


def figures(client: httpx.Client) -> dict[str, Any]:
    shadow: dict[str, Any] = shop(client)["rollout"]["figures"]["shadow"]
    return shadow


def test_kill_9_of_the_consumer_counts_no_list_twice_and_loses_none(tmp_path: Path) -> None:
    with System(tmp_path / "state", click_window_ms=600_000) as system:
        system.wait_ready()
        with httpx.Client(base_url=system.url, timeout=30) as client:
            shown, clicked = 0, 0
            waiting: list[dict[str, Any]] = []
            for turn in range(4):
                batch: list[dict[str, Any]] = []
                for number in range(200):
                    user, answer = f"u{number}", fake(f"r{turn}-{number}")
                    impression, click = events_of(user, answer, click=True)
                    batch.append(impression)
                    waiting.append(click)  # sent after the kill: the list has to come back first
                late, waiting = waiting[: 100 + 50 * turn], waiting[100 + 50 * turn :]
                shown, clicked = shown + 200, clicked + len(late)
                client.post("/v1/events", json=batch + batch[:50]).raise_for_status()  # some are sent twice
                client.post("/v1/events", json=late + late).raise_for_status()
                if turn % 2:
                    wait_until(lambda: totals(client, "r")[0] > 0, 120, "something was written")
                system.kill("consumer")
                system.start("consumer")
            client.post("/v1/events", json=waiting).raise_for_status()
            clicked += len(waiting)
            assert (shown, clicked) == (800, 800)
            wait_until(lambda: totals(client, "r") == (800, 800), 240, "every list is counted once, with its click")
            wait_until(system.caught_up, 60, "nothing waits")
            assert totals(client, "r") == (800, 800)


def fake(request_id: str) -> dict[str, Any]:
    return {"release": "r", "request_id": request_id, "items": [{"item_id": f"i-{request_id}"}]}


def test_the_commands_begin_and_end_trials(trying: System, client: httpx.Client) -> None:
    _, control, other = two_releases(trying, client)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "serving.cli", "releases", *words]
        return subprocess.run(command, env=trying.environment, capture_output=True, text=True, check=False, timeout=60)

    assert json.loads(run("canary", other, "--share", ".25", "--json").stdout)["canary"]["share"] == 0.25
    every = json.loads(run("list", "--json").stdout)
    assert every["rollout"]["canary"]["share"] == 0.25
    states = {release["id"]: release["state"] for release in every["releases"]}
    assert (states[control], states[other]) == ("serving", "canary")
    difference = json.loads(run("diff", control, other, "--json").stdout)
    assert difference["items"] | {"most popular gained": [], "most popular lost": []} == difference["items"]
    assert (difference["releases"], difference["items"]["kept"]) == ([control, other], 60)
    assert "above 0" in run("shadow", other, "--share", "2").stderr
    assert run("canary", "off").returncode == 0
    assert "no canary" in run("canary", "off").stderr
    assert run("promote", "20200101T000000-none").returncode == 1
    assert run("promote", other).returncode == 0
    wait_until(lambda: shop(client)["serving"] == other, 60, "the other one serves")
    assert json.loads(run("show", other, "--json").stdout)["state"] == "serving"
    assert json.loads(run("rollback", "--json").stdout)["serving"] == control


def test_a_promotion_during_a_shadow_keeps_the_shadow_on_the_topic(trying: System, client: httpx.Client) -> None:
    """`releases` is compacted: the newest message has to say everything, whoever sent it."""
    settings = read(environment=trying.environment)
    shadowed = write_random_release(settings.state_path / "releases", 60, ITEM_KNN, np.random.default_rng(1))
    root, _, promoted = two_releases(trying, client)
    shadow = rollout.begin_shadow(root, "shop", shadowed, 0.5)
    rollout.promote(root, "shop", promoted)
    trainer.announce(settings, "shop", "promote")  # as after a training run
    announcement = decode_announcement(newest(settings, topics.RELEASES, b"shop"))
    assert (announcement.release, announcement.action) == (promoted, "promote")
    assert announcement.shadow == shadow
    rollout.end_trial(root, "shop", "shadow")


def newest(settings: Settings, topic: str, key: bytes) -> bytes | None:
    """The value that compaction keeps of a key."""
    config = kafka_python_config(settings.bootstrap, settings.kafka_security)
    with closing(KafkaConsumer(**config, group_id=None, auto_offset_reset="earliest")) as consumer:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        ends, values = consumer.end_offsets(partitions), {}
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for messages in consumer.poll(500).values():
                values |= {message.key: message.value for message in messages}
    return values.get(key)


def test_a_card_over_http(trying: System, client: httpx.Client) -> None:
    root, control, other = two_releases(trying, client)
    card = read_manifest(root / "shop" / other)
    about: dict[str, Any] = {
        "cutoff_at": 1_767_312_000_000,
        "held_out_from": 1_767_225_600_000,
        "data": "4f2a",
        "metrics": {"ndcg@10": 0.2},
        "intervals": {"ndcg@10": (0.15, 0.25)},
        "parent": control,
    }
    release_store.update_manifest(root, msgspec.structs.replace(card, **about))
    answer = client.get(f"/v1/releases/{other}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    body = answer.json()
    assert {name: body[name] for name in about} == about | {"intervals": {"ndcg@10": [0.15, 0.25]}}
    assert (body["id"], body["domain"], body["state"], body["reason"]) == (other, "shop", "ready", None)
    assert body["params"]["neighbors"] == 50
    assert client.get(f"/v1/releases/{control}", params={"domain": "shop"}).json()["state"] == "serving"
    for path, kind in (
        ("20200101T000000-none", "unknown-release"),
        (f"{other}?domain=music", "unknown-release"),
        (f"{other}?domain=garden", "unknown-domain"),
        ("rollout.json", "unknown-release"),
    ):
        refused = client.get(f"/v1/releases/{path}")
        assert (refused.status_code, refused.headers["content-type"]) == (404, "application/problem+json"), path
        assert (refused.json()["type"], refused.json()["status"]) == (kind, 404), path
    (root / "shop" / other / "manifest.json").write_text('{"id": ')
    refused = client.get(f"/v1/releases/{other}")
    assert (refused.status_code, refused.json()["type"]) == (404, "bad-manifest")
    schema = client.get("/docs/openapi.json").json()
    described = schema["paths"]["/v1/releases/{release_id}"]["get"]
    assert {parameter["name"] for parameter in described["parameters"]} == {"release_id", "domain"}
    shape = described["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert set(about) | {"params", "state"} <= set(schema["components"]["schemas"][shape]["properties"])
