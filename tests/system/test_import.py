"""Imports into a running system: what is new and nothing twice, in its place in time, whatever was sent before."""

import csv
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from kafka import KafkaAdminClient, TopicPartition

from features.activity import Activity, FoldSettings
from features.event_log import last_positions
from features.log_comparison import log_behind
from features.rebuild import differing_keys, log_by_partition, rebuild
from features.store import open_store
from serving.commands.file_import import import_source
from serving.settings import Settings, read
from stream import topics
from stream.broker import Broker
from stream.errors import ColdstreamError
from stream.files import try_lock
from stream.replay import CHUNK
from stream.sources.source import Source
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions
from testing.system import DOMAINS, System
from testing.waiting import metric_sum, wait_until

DAY_MS = 24 * 60 * 60 * 1000
Row = tuple[str, str, int]
"""User, item and epoch ms."""


@pytest.fixture
def settings(system: System) -> Settings:
    return read(environment=system.environment)


@pytest.fixture
def client(system: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.url, timeout=10) as opened:
        yield opened


def table(path: Path, rows: list[Row], options: TableOptions | None = None) -> Source:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("user_id", "item_id", "at"), *rows])
    return open_table(path, options)


def activity(system: System, user: str) -> Activity:
    store = system.open_store()
    try:
        return store.read_activities([("shop", user)]).get(("shop", user)) or Activity()
    finally:
        store.close()


def wait_for_views(system: System, user: str, views: int) -> None:
    wait_until(lambda: activity(system, user).summary.totals.get("view", 0) >= views, 60, f"{views} views are applied")
    wait_until(system.caught_up, 60, "everything is applied")
    assert activity(system, user).summary.totals == {"view": views}


def test_a_grown_file_adds_only_what_is_new(system: System, settings: Settings, tmp_path: Path) -> None:
    user, start = uuid4().hex, 1_672_912_800_000
    rows = [(user, f"i{n % 9}", start + 60_000 * n) for n in range(300)]
    first = import_source(settings, table(tmp_path / "day1.csv", rows))
    assert (first.events, first.before, first.older, first.finished) == (300, 0, 0, True)
    grown = [*rows, (user, "i1", start + 90_000_000)]
    random.Random(1).shuffle(grown)
    second = import_source(settings, table(tmp_path / "day2.csv", grown))
    assert (second.events, second.before, second.total) == (1, 300, 301)
    wait_for_views(system, user, 301)
    third = import_source(settings, table(tmp_path / "day3.csv", grown[:200]))
    assert (third.events, third.before, third.finished) == (0, 200, True)


def test_history_that_comes_after_live_events_takes_its_place(
    system: System, settings: Settings, client: httpx.Client, tmp_path: Path
) -> None:
    user, now = uuid4().hex, int(time.time() * 1000)
    live = {"type": "interaction", "event_id": "live", "user_id": user, "item_id": "tea", "kind": "view", "at": now}
    client.post("/v1/events", json=[live]).raise_for_status()
    past = [(user, f"past{n}", now - 60 * DAY_MS + n) for n in range(100)]
    report = import_source(settings, table(tmp_path / "past.csv", past))
    assert (report.events, report.older) == (100, 100)
    client.post("/v1/events", json=[live]).raise_for_status()  # sent again, behind an import of a hundred events
    wait_for_views(system, user, 101)
    row = activity(system, user)
    assert row.recent.items == [f"past{n}" for n in range(51, 100)] + ["tea"]
    assert (row.summary.first_seen, row.summary.last_seen, row.summary.late) == (now - 60 * DAY_MS, now, 0)
    assert_rebuilt_rows_are_equal(system, user, tmp_path / "rebuilt")


def assert_rebuilt_rows_are_equal(system: System, user: str, folder: Path) -> None:
    ends = last_positions(system.broker.bootstrap, None)
    rebuilt, live = open_store(folder, "sqlite", DOMAINS), system.open_store()
    rebuild(
        log_by_partition(system.state / "archive", system.broker.bootstrap, None, DOMAINS),
        rebuilt,
        FoldSettings(),
        ends=ends,
    )
    assert differing_keys(live, rebuilt, [("shop", user)]) == []
    for store in (rebuilt, live):
        store.close()


def test_late_events_of_live_traffic_are_counted(system: System, client: httpx.Client) -> None:
    user, now = uuid4().hex, int(time.time() * 1000)
    name = 'coldstream_late_events_total{domain="shop"}'
    before = metric_sum(system.metrics_url("consumer"), name)
    events = [
        {"type": "interaction", "event_id": f"e{n}", "user_id": user, "item_id": "tea", "kind": "view", "at": at}
        for n, at in enumerate([now, now - 60 * DAY_MS])
    ]
    client.post("/v1/events", json=events).raise_for_status()
    wait_until(lambda: metric_sum(system.metrics_url("consumer"), name) == before + 1, 60, "a late event is counted")


def test_an_import_of_items_alone_corrects_the_catalogue(
    system: System, settings: Settings, client: httpx.Client, tmp_path: Path
) -> None:
    item, user = uuid4().hex, uuid4().hex
    rows = [(user, item, 1_672_912_800_000)]
    for title in ("Wrng titel", "Right title"):
        (tmp_path / "items.csv").write_text(f"item_id,title,category\n{item},{title},TEA\n")
        source = table(tmp_path / "events.csv", rows, TableOptions(items=tmp_path / "items.csv"))
        report = import_source(settings, source)
        assert (report.items, report.total) == (1, 1)
        wait_until(lambda title=title: shown(client, item).get("title") == title, 60, f"the title is {title}")  # type: ignore[misc]
    (tmp_path / "items.csv").write_text(f"item_id,title\n{item},Best title\n")
    alone = open_table(None, TableOptions(items=tmp_path / "items.csv"))
    assert import_source(settings, alone).items == 1
    wait_until(lambda: shown(client, item).get("title") == "Best title", 60, "the title is corrected")
    assert import_source(settings, table(tmp_path / "more.csv", [*rows, (user, item, rows[0][2] + 1)])).items == 0
    wait_for_views(system, user, 2)
    assert shown(client, item)["title"] == "Best title"


def shown(client: httpx.Client, item: str) -> dict[str, object]:
    answer = client.get(f"/v1/items/{item}")
    return dict(answer.json()) if answer.status_code == 200 else {}


def test_two_imports_at_once_are_refused(settings: Settings, tmp_path: Path) -> None:
    source = table(tmp_path / "events.csv", [(uuid4().hex, "tea", 1_672_912_800_000)])
    lock = try_lock(settings.state_path / "import-shop.lock")
    assert lock is not None
    try:
        with pytest.raises(ColdstreamError, match="another import into shop is running"):
            import_source(settings, source)
    finally:
        lock.release()
    assert import_source(settings, source).events == 1


KILLED_ON_ITS_WAY = """
import os, signal, sys
from serving.cli import main
from stream.bulk import BulkProducer

send, chunks = BulkProducer.send, 0

async def send_and_die(producer, topic, messages, headers=()):
    global chunks
    acknowledged = await send(producer, topic, messages, headers)
    chunks += 1
    if chunks == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return acknowledged

BulkProducer.send = send_and_die
sys.exit(main())
"""
"""The command line, which kill -9 hits once the fourth chunk is handed over: it never ends before."""


def test_an_import_that_was_killed_sends_each_event_once(broker: Broker, tmp_path: Path) -> None:
    """kill -9 while events are on their way; then a run to the end."""
    prefix, file, archive = uuid4().hex[:8], tmp_path / "events.csv", tmp_path / "state" / "archive"
    rows = [(f"{prefix}-{n % 40}", f"i{n % 7}", 1_672_912_800_000 + 1_000 * n) for n in range(60_000)]
    source = table(file, rows)
    flags = ["--kafka", broker.bootstrap, "--state", str(tmp_path / "state")]
    killed = subprocess.run([sys.executable, "-c", KILLED_ON_ITS_WAY, *flags, "import", str(file)], check=False)
    assert killed.returncode == -signal.SIGKILL
    settings = read(flags={"kafka": broker.bootstrap, "state": str(tmp_path / "state")}, environment={})
    report = import_source(settings, source)
    assert report.events + report.before == report.total == 60_000
    assert 2 * CHUNK <= report.before <= 4 * CHUNK < 60_000
    log = log_behind(archive, broker.bootstrap, None)
    ids = Counter(
        (entry.event.user_id, entry.event.event_id) for entry in log if entry.event.user_id.startswith(prefix)
    )
    assert (len(ids), ids.total()) == (60_000, 60_000)


def test_a_second_state_folder_sees_what_the_log_has(broker: Broker, tmp_path: Path) -> None:
    """Two machines without an archive: the log is the truth for both."""
    prefix = uuid4().hex[:8]
    rows = [(f"{prefix}-{n % 9}", f"i{n % 7}", 1_672_912_800_000 + 1_000 * n) for n in range(300)]
    reports = []
    for number, count in enumerate((200, 300)):
        flags = {"kafka": broker.bootstrap, "state": str(tmp_path / f"state-{number}")}
        source = table(tmp_path / "events.csv", rows[:count])
        reports.append(import_source(read(flags=flags, environment={}), source))
    assert [(report.before, report.events) for report in reports] == [(0, 200), (200, 100)]
    assert [report.gone for report in reports] == [0, 0]
    expected = f"compared with the log at {broker.bootstrap} and the archive {tmp_path / 'state-1' / 'archive'}"
    assert expected in list(reports[1].lines())


def test_events_that_neither_log_nor_archive_holds_are_said(fresh_broker: Broker, tmp_path: Path) -> None:
    rows = [("ann", f"i{n}", 1_672_912_800_000 + 1_000 * n) for n in range(20)]
    source = table(tmp_path / "events.csv", rows)
    flags = {"kafka": fresh_broker.bootstrap, "state": str(tmp_path / "state")}
    settings = read(flags=flags, environment={})
    assert import_source(settings, source).events == 20
    admin = KafkaAdminClient(bootstrap_servers=fresh_broker.bootstrap)
    ends = last_positions(fresh_broker.bootstrap, None)
    places = {TopicPartition(topics.EVENTS, number): -1 for number in range(len(ends))}
    admin.delete_records(places)
    admin.close()
    report = import_source(settings, source)
    assert (report.events, report.before, report.gone) == (20, 0, 20)
    assert any(line.startswith("warning: 20 offsets of the log are deleted") for line in report.lines())
