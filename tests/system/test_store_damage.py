"""An online store that is deleted or overwritten, running or not: it is noticed, and the cure that is named works."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from features.store import DATABASE
from serving.commands.status import system_status
from serving.settings import read
from testing.system import STORE_FOLDER, System
from testing.waiting import answers, wait_until

USERS = [f"u{number}" for number in range(300)]
WITHIN_S = 90
CURE = "run `coldstream features rebuild`"


@pytest.fixture
def filled(own_system: System) -> System:
    """A system with a view of every user."""
    post(own_system, USERS)
    wait_until(lambda: views(own_system, USERS[-1]) == 1 and own_system.caught_up(), WITHIN_S, "features are there")
    return own_system


def post(system: System, users: list[str]) -> None:
    now = int(time.time() * 1000)
    common = {"type": "interaction", "kind": "view", "item_id": "i1", "at": now}
    events = [common | {"user_id": user, "event_id": uuid4().hex} for user in users]
    assert httpx.post(f"{system.url}/v1/events", json=events, timeout=10).status_code == 202


def views(system: System, user: str) -> int:
    answer = httpx.get(f"{system.url}/v1/users/features", params={"user_id": user}, timeout=10)
    return int(answer.json()["summary"]["totals"].get("view", 0)) if answer.status_code == 200 else 0


def store_problem(system: System) -> str:
    try:
        missing = httpx.get(f"{system.url}/readyz", timeout=10).json()["missing"]
    except httpx.TransportError:
        return ""
    return str(missing.get("store", ""))


def consumer_problem(system: System) -> str:
    return str(httpx.get(f"{system.url}/readyz", timeout=10).json()["missing"].get("consumer", ""))


def database(system: System) -> Path:
    return system.state / STORE_FOLDER / DATABASE


def delete(path: Path) -> None:
    for file in path.parent.glob(f"{DATABASE}*"):
        file.unlink()


def overwrite_pages(path: Path) -> None:
    """Every page behind the first twelve, as a failing disk may do."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    with path.open("r+b") as file:
        size = path.stat().st_size
        assert size > 30 * 4096
        file.seek(12 * 4096)
        file.write(b"\xa5" * (size - 12 * 4096))


def restart_with_rebuild(system: System) -> None:
    """What the cure says: stop, rebuild, start."""
    for part in ("consumer", "api"):
        system.stop(part)
    command = [sys.executable, "-P", "-m", "serving.cli", "--state", str(system.state), "features", "rebuild"]
    done = subprocess.run(command, check=False, env=system.environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for part in ("api", "consumer"):
        system.start(part)
    system.wait_ready()


@pytest.mark.parametrize("damage", [delete, overwrite_pages])
def test_a_store_damaged_while_running_is_noticed_and_rebuilt(
    filled: System, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(database(filled))
    post(filled, USERS)  # acknowledged: it has to be in the features in the end

    for user in USERS:
        views(filled, user)
    wait_until(lambda: CURE in store_problem(filled), WITHIN_S, "the API is not ready")
    wait_until(lambda: CURE in consumer_problem(filled), WITHIN_S, "the consumer reports it")
    for name, value in filled.environment.items():
        monkeypatch.setenv(name, value)
    assert CURE in system_status(read())["not ready"]["store"]
    failing = "coldstream_store_failing 1.0"
    wait_until(lambda: failing in httpx.get(filled.metrics_url("consumer")).text, WITHIN_S, "the consumer's metric")
    wait_until(lambda: failing in httpx.get(filled.metrics_url("api")).text, WITHIN_S, "the API's metric")

    restart_with_rebuild(filled)

    assert [views(filled, user) for user in USERS] == [2] * len(USERS)
    assert store_problem(filled) == ""


def test_a_store_deleted_while_stopped_is_refused_at_the_start_and_rebuilt(filled: System) -> None:
    for part in ("consumer", "api"):
        filled.stop(part)
    delete(database(filled))
    for part in ("api", "consumer"):
        filled.start(part)
    wait_until(lambda: CURE in store_problem(filled), WITHIN_S, "the API names the cure")
    assert "online.db is missing" in store_problem(filled)
    assert filled.processes["consumer"].wait(60) == 1
    assert not answers(f"{filled.url}/readyz")
    assert CURE in (filled.state / "consumer.log").read_text()
    assert "Traceback" not in (filled.state / "consumer.log").read_text()

    restart_with_rebuild(filled)

    assert [views(filled, user) for user in USERS] == [1] * len(USERS)
