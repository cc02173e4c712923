"""`coldstream features rebuild` with Redis: whole or not at all, and one of the two cures of a replaced log."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis

from features.redis_rows import POINTER, project_of
from serving.commands import rebuild_features as command
from serving.commands import stopped_system
from serving.settings import validate
from stream.errors import ColdstreamError
from testing.logged_views import LoggedViews, assert_refused, settings_of, start, start_broker, stop
from testing.redis_server import redis_server
from testing.stores import redis_rows
from testing.system import System
from testing.waiting import wait_until

USERS = [f"u{number}" for number in range(12)]
pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server is installed")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    with redis_server(tmp_path) as (address, _), System(tmp_path / "state", address) as running:
        running.wait_ready()
        yield running


def fill(system: System, views: LoggedViews) -> None:
    now = int(time.time() * 1000)
    item = {"type": "item", "item_id": "i1", "title": "Lamp", "category": "light", "at": now}
    httpx.put(f"{system.url}/v1/items", json=item).raise_for_status()
    profile = {"type": "user", "user_id": "u1", "segment": "new", "at": now}
    httpx.put(f"{system.url}/v1/users", json=profile).raise_for_status()
    views.post(*USERS, *USERS)
    views.wait_archived()
    wait_until(system.caught_up, 60, "items and profiles are applied")


def killed(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.timeout(600)
def test_a_rebuild_is_whole_or_changes_nothing_and_cures_a_lost_log(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    views, settings = LoggedViews(system), settings_of(system)
    client = Redis.from_url(system.store)
    fill(system, views)
    monkeypatch.setattr(stopped_system, "LEAVE_WITHIN_S", 1)
    with pytest.raises(ColdstreamError, match=r"a consumer runs .* nothing was changed"):
        command.rebuild_features(settings)
    monkeypatch.undo()
    stop(system, broker=False)
    before = redis_rows(client, project_of(0))
    assert len(before) > len(USERS)

    with monkeypatch.context() as patched:  # at the worst moment: all rows are written, and none is present yet
        patched.setattr(command, "no_members", killed)
        with pytest.raises(KeyboardInterrupt):
            command.rebuild_features(settings)
    assert redis_rows(client, project_of(1)) == before
    assert (client.get(POINTER), redis_rows(client, project_of(0))) == (None, before)
    client.hset(next(iter(client.scan_iter("*u3*coldstream"))), "noise", b"x")

    report = command.rebuild_features(settings)
    assert (report["events"], report["users"], report["catalogue"]["items"]) == (24, 12, 1)
    assert (client.get(POINTER), redis_rows(client, project_of(0))) == (b"1", {})
    assert redis_rows(client, project_of(1)) == before
    start(system)
    views.post(*USERS)
    assert views.applied() == views.acknowledged
    views.wait_archived()
    client.set(POINTER, 7)
    wait_until(lambda: "rebuilt while this process runs" in problem(system), 60, "the API says that rows were replaced")
    client.set(POINTER, 1)

    stop(system)
    shutil.rmtree(system.state / "kafka")
    start_broker(system)
    assert_refused(system, "the cluster is ")
    assert command.rebuild_features(settings)["new epoch"] == 1
    assert views.applied() == views.acknowledged
    client.close()


def problem(system: System) -> str:
    return str(httpx.get(f"{system.url}/readyz", timeout=10).json()["missing"].get("store", ""))


def test_a_rebuild_without_the_archive_is_refused(tmp_path: Path) -> None:
    settings = validate({"store": "redis://127.0.0.1:1", "state": str(tmp_path / "elsewhere")})
    with pytest.raises(ColdstreamError, match="run this command where the archive process keeps its files"):
        command.rebuild_features(settings)
