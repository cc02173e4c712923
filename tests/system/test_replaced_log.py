"""A log that was lost, restored from an older backup, or created again: noticed, refused, and both cures."""

import shutil
import time
from collections import Counter
from pathlib import Path

import httpx
from kafka import KafkaAdminClient

from features.activity import FoldSettings
from features.catalogue_rebuild import rebuild_catalogue
from features.event_log import last_positions
from features.rebuild import log_by_partition, rebuild
from features.store import open_store
from serving.commands.new_epoch import begin_epoch
from serving.commands.rebuild_features import rebuild_features
from serving.settings import EXIT_MISCONFIGURED, Settings, read
from stream import topics
from stream.admin import create_topics
from testing.api import post_actions
from testing.delivery import archived_events
from testing.stores import differing_rows
from testing.system import DOMAINS, STORE_FOLDER, System
from testing.waiting import wait_until

USERS = [f"u{number}" for number in range(12)]
PARTS = ("api", "consumer", "archiver")
CURES = ("coldstream features rebuild", "coldstream new-epoch")


class LoggedViews:
    """Posts views to a system, and knows how many of each user were acknowledged."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.acknowledged: Counter[str] = Counter()

    def post(self, *users: str) -> None:
        with httpx.Client(base_url=self.system.url, timeout=20) as client:
            for user in users:
                token = post_actions(client, user, ("view", "i1"))
                client.get(f"/v1/users/{user}/recommendations", params={"after": token}).raise_for_status()
                self.acknowledged[user] += 1

    def applied(self) -> Counter[str]:
        store = self.system.open_store()
        rows = store.read_activities(("shop", user) for user in self.acknowledged)
        store.close()
        return Counter({user: row.summary.totals["view"] for (_, user), row in rows.items()})

    def wait_archived(self) -> None:
        total = self.acknowledged.total()
        wait_until(lambda: archived_events(self.system.state / "archive") == total, 60, f"{total} events are archived")


def settings_of(system: System) -> Settings:
    return read(environment=system.environment)


def start(system: System) -> None:
    for part in PARTS:
        system.start(part)
    system.wait_ready()


def stop(system: System, *, broker: bool = True) -> None:
    for part in PARTS:
        system.stop(part)
    if broker:
        system.broker.stop()


def start_broker(system: System) -> None:
    system.start("broker")
    create_topics(system.broker.bootstrap, None, topics.topics(4))


def assert_refused(system: System, why: str) -> None:
    """Consumer and archive end with the reason and both cures."""
    seen = {part: (system.state / f"{part}.log").stat().st_size for part in ("consumer", "archiver")}
    for part in seen:
        system.start(part)
    for part, size in seen.items():
        assert system.processes.pop(part).wait(90) == EXIT_MISCONFIGURED
        message = (system.state / f"{part}.log").read_text()[size:]
        assert all(words in message for words in (why, *CURES)), message


def assert_like_rebuild(system: System, aside: Path) -> None:
    """The store's rows are those of a fold of archive and log."""
    bootstrap, archive = system.broker.bootstrap, system.state / "archive"
    store = open_store(aside, "sqlite", DOMAINS)
    rebuild(
        log_by_partition(archive, bootstrap, None, DOMAINS), store, FoldSettings(), ends=last_positions(bootstrap, None)
    )
    rebuild_catalogue(archive, store, bootstrap)
    store.close()
    assert differing_rows(system.state / STORE_FOLDER, aside) == []


def missing(system: System, part: str) -> str:
    """Why the API is not ready because of `part`; '' where it is, or does not answer yet."""
    try:
        answer = httpx.get(f"{system.url}/readyz", timeout=10)
    except httpx.TransportError:
        return ""
    return str(answer.json().get("missing", {}).get(part, ""))


def test_a_lost_log_is_refused_and_a_new_epoch_goes_on(own_system: System, tmp_path: Path) -> None:
    views = LoggedViews(own_system)
    item = {"type": "item", "item_id": "i1", "title": "Lamp", "at": int(time.time() * 1000)}
    httpx.put(f"{own_system.url}/v1/items", json=item).raise_for_status()
    views.post(*USERS, *USERS)
    views.wait_archived()
    stop(own_system)
    shutil.rmtree(own_system.state / "kafka")
    start_broker(own_system)

    own_system.start("api")
    assert_refused(own_system, "the cluster is ")
    wait_until(lambda: all(cure in missing(own_system, "log") for cure in CURES), 60, "the API is not ready")
    event = {"type": "interaction", "event_id": "x", "user_id": "u1", "item_id": "i1", "kind": "view"}
    refused = httpx.post(f"{own_system.url}/v1/events", json={**event, "at": item["at"]})
    assert (refused.status_code, refused.json()["type"]) == (503, "log-replaced")
    own_system.stop("api")

    report = begin_epoch(settings_of(own_system))
    assert (report["epoch"], report["not_in_features"], report["catalogue"]) == (1, {}, 1)
    assert views.applied() == views.acknowledged
    start(own_system)
    assert httpx.get(f"{own_system.url}/v1/items/i1").json()["title"] == "Lamp"
    views.post(*USERS, "new")
    assert views.applied() == views.acknowledged
    views.wait_archived()
    stop(own_system, broker=False)
    assert_like_rebuild(own_system, tmp_path / "aside")


def test_a_restored_backup_is_refused_and_a_topic_created_again_is_noticed(own_system: System, tmp_path: Path) -> None:
    views = LoggedViews(own_system)
    views.post(*USERS)
    own_system.broker.stop()
    shutil.copytree(own_system.state / "kafka", tmp_path / "backup")
    own_system.start("broker")  # the same log: nothing is refused
    own_system.wait_ready()
    views.post(*USERS, *USERS)
    views.wait_archived()
    stop(own_system)
    shutil.rmtree(own_system.state / "kafka")
    shutil.copytree(tmp_path / "backup", own_system.state / "kafka")
    start_broker(own_system)

    assert_refused(own_system, "ends at offset ")
    assert rebuild_features(settings_of(own_system))["new epoch"] == 1
    assert views.applied() == views.acknowledged
    start(own_system)
    views.post(*USERS, "new")
    assert views.applied() == views.acknowledged
    views.wait_archived()

    admin = KafkaAdminClient(bootstrap_servers=own_system.broker.bootstrap)
    admin.delete_topics([topics.EVENTS])
    wait_until(lambda: topics.EVENTS not in admin.list_topics(), 60, "the topic is deleted")
    admin.close()
    create_topics(own_system.broker.bootstrap, None, topics.topics(4))
    wait_until(lambda: "created again" in missing(own_system, "log"), 60, "the API is not ready")
    wait_until(lambda: "created again" in missing(own_system, "consumer"), 60, "the consumer says why")
    stop(own_system, broker=False)
    assert_refused(own_system, "the topic events was deleted and created again")
