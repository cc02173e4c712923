"""A log that was lost, restored from an older backup, or created again: noticed, refused, and both cures."""

import shutil
import time
from pathlib import Path

import httpx
import pytest
from kafka import KafkaAdminClient

from features.activity import FoldSettings
from features.catalogue_rebuild import rebuild_catalogue
from features.event_log import last_positions
from features.rebuild import log_by_partition, rebuild
from features.store import open_store
from serving.commands.new_epoch import begin_epoch
from serving.commands.rebuild_features import rebuild_features
from serving.commands.system_checks import check_log
from serving.domain_presets import popularity_settings
from stream import topics
from stream.admin import create_topics
from testing.logged_views import CURES, LoggedViews, assert_refused, settings_of, start, start_broker, stop
from testing.stores import differing_rows
from testing.system import DOMAINS, STORE_FOLDER, System
from testing.waiting import wait_until

USERS = [f"u{number}" for number in range(12)]


def assert_like_rebuild(system: System, aside: Path) -> None:
    """The store's rows are those of a fold of archive and log."""
    bootstrap, archive = system.broker.bootstrap, system.state / "archive"
    store = open_store(aside, "sqlite", DOMAINS)
    log, ends = log_by_partition(archive, bootstrap, None, DOMAINS), last_positions(bootstrap, None)
    rebuild(log, store, FoldSettings(), ends=ends, popularity_settings=popularity_settings(settings_of(system)))
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


@pytest.mark.timeout(600)
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
    rule = httpx.put(f"{own_system.url}/v1/rules/r1", json={"action": "exclude", "items": ["i1"]})
    assert (rule.status_code, rule.json()["type"]) == (503, "log-replaced")
    assert httpx.delete(f"{own_system.url}/v1/rules/r1").status_code == 404
    (finding,) = check_log(settings_of(own_system))
    assert (finding.what, finding.state) == ("log", "fail")
    assert "the cluster is " in finding.detail
    assert all(cure in finding.cure for cure in CURES)
    own_system.stop("api")

    report = begin_epoch(settings_of(own_system))
    assert (report["epoch"], report["not_in_features"], report["catalogue"]) == (1, {}, 1)
    assert views.applied() == views.acknowledged
    start(own_system)
    (finding,) = check_log(settings_of(own_system))
    assert (finding.state, "epoch 1, 6 partitions: as it was read before" in finding.detail) == ("ok", True)
    assert httpx.get(f"{own_system.url}/v1/items/i1").json()["title"] == "Lamp"
    views.post(*USERS, "new")
    assert views.applied() == views.acknowledged
    views.wait_archived()
    stop(own_system, broker=False)
    assert_like_rebuild(own_system, tmp_path / "aside")


@pytest.mark.timeout(600)
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
