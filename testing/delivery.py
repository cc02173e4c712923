"""Whether every acknowledged event is in the features and in the archive exactly once."""

import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow.parquet as pq

from features.activity import FoldSettings
from features.archive import parts
from features.event_log import last_positions
from features.rebuild import differing_keys, log_by_partition, rebuild
from features.store import OnlineStore, open_store
from serving.domain_presets import popularity_settings
from serving.settings import read
from stream import topics
from stream.events import Interaction
from testing.system import DOMAINS, System

ARCHIVED_WITHIN_S: Final = 120.0


def delivery_report(system: System, acknowledged: Sequence[Interaction]) -> dict[str, Any]:
    """Compares the features with the acknowledged events and with a rebuild, and the archive with the log.

    The broker has to run, and the consumer must not write.
    """
    live = system.open_store()
    kinds_by_user = _kinds_by_user(acknowledged)
    lost, duplicates = _lost_and_duplicates(live, kinds_by_user)
    shutil.rmtree(system.state / "rebuilt", ignore_errors=True)  # of an earlier report
    rebuilt = open_store(system.state / "rebuilt", "sqlite", DOMAINS)
    bootstrap = system.broker.bootstrap
    ends = last_positions(bootstrap, None)
    log = log_by_partition(system.state / "archive", bootstrap, None, DOMAINS)
    counted = popularity_settings(read(environment=system.environment))
    report = rebuild(log, rebuilt, FoldSettings(), ends=ends, popularity_settings=counted)
    different_rows = differing_keys(live, rebuilt, [("shop", user) for user in kinds_by_user])
    different_popularity = _different_popularity(live, rebuilt, list(ends))
    archived = Counter(archived_offsets(system.state / "archive"))
    live.close()
    rebuilt.close()
    messages = _messages(ends)
    return {
        "acknowledged": len(acknowledged),
        "in_the_log": messages,
        "lost": lost,
        "counted_twice": duplicates,
        "rows": report.users,
        "rows_unlike_rebuild": len(different_rows),
        "popularity_unlike_rebuild": different_popularity,
        "archive_unlike_log": len(archived) != messages or max(archived.values()) > 1,
    }


def wait_archived(system: System, within_s: float = ARCHIVED_WITHIN_S) -> None:
    """Return once the archive holds as many events as the log, or after `within_s`: the report then says what lacks.

    A prefix of the log is no loss, only late: after a broker's end the archive process is back seconds later.
    """
    deadline = time.monotonic() + within_s
    messages = _messages(last_positions(system.broker.bootstrap, None))
    while archived_events(system.state / "archive") < messages and time.monotonic() < deadline:
        time.sleep(0.5)


def archived_events(folder: Path) -> int:
    """The number of events in the archive's files."""
    return sum(pq.read_metadata(path).num_rows for path in parts(folder, topics.EVENTS))


def archived_offsets(folder: Path) -> list[tuple[int, int]]:
    """(partition, offset) of each archived event."""
    offsets: list[tuple[int, int]] = []
    for path in parts(folder, topics.EVENTS):
        table = pq.read_table(path, columns=["partition", "offset"], partitioning=None)
        offsets += zip(table.column("partition").to_pylist(), table.column("offset").to_pylist(), strict=True)
    return offsets


def _kinds_by_user(events: Sequence[Interaction]) -> dict[str, Counter[str]]:
    kinds: dict[str, Counter[str]] = {}
    for event in {event.event_id: event for event in events}.values():
        kinds.setdefault(event.user_id, Counter())[event.kind] += 1
    return kinds


def _lost_and_duplicates(live: OnlineStore, kinds_by_user: Mapping[str, Counter[str]]) -> tuple[int, int]:
    rows = live.read_activities([("shop", user) for user in kinds_by_user])
    lost = duplicates = 0
    for user, kinds in kinds_by_user.items():
        row = rows.get(("shop", user))
        counted = Counter(row.summary.totals if row is not None else {})
        lost += sum((kinds - counted).values())
        duplicates += sum((counted - kinds).values())
    return lost, duplicates


def _different_popularity(live: OnlineStore, rebuilt: OnlineStore, names: list[str]) -> list[str]:
    ours, theirs = live.read_popularity(names), rebuilt.read_popularity(names)
    return [name for name in names if msgspec.json.encode(ours.get(name)) != msgspec.json.encode(theirs.get(name))]


def _messages(ends: Mapping[str, int]) -> int:
    return sum(end + 1 for end in ends.values())
