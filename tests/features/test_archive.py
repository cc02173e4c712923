"""The archive's files: the same bytes whatever happened in between, and training sets that do not see the future."""

import resource
from pathlib import Path

import msgspec
import pytest

from features.archive import Archive, ArchiveRow, part_path, parts, read_events
from features.dataset import interactions
from features.errors import ArchiveError
from stream.events import Impression, Interaction, Record, Search

NOON = 1_760_000_000_000


def rows(count: int, start: int = 0) -> list[ArchiveRow]:
    return [ArchiveRow(0, n, NOON + n, record(n), backfill=n % 2 == 0) for n in range(start, start + count)]


def record(n: int) -> Record:
    base = {"event_id": f"e{n}", "user_id": f"u{n % 3}", "at": NOON + n}
    if n % 5 == 3:
        return Search(**base, query="tea")  # type: ignore[arg-type]
    if n % 5 == 4:
        return Impression(**base, item_ids=["a", "b"], release="r", request_id="q")  # type: ignore[arg-type]
    return Interaction(**base, item_id=f"i{n}", kind="view", value=n / 7, category="x", context={"page": n})  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in parts(folder, "events")}


def test_what_is_read_is_what_was_logged(tmp_path: Path) -> None:
    archive = Archive(tmp_path, part=10)
    archive.append("events", rows(25))
    assert archive.flush() == {"events": 25}
    assert [path.name[-20:] for path in parts(tmp_path, "events")] == [
        "000000000000.parquet",
        "000000000010.parquet",
        "000000000020.parquet",
    ]
    entries = list(read_events(tmp_path, "events", 0))
    assert [entry.event for entry in entries] == [record(n) for n in range(25)]
    assert [entry.offset for entry in entries] == list(range(25))
    assert [entry.backfill for entry in entries] == [n % 2 == 0 for n in range(25)]


def test_any_way_there_gives_the_same_bytes(tmp_path: Path) -> None:
    once = Archive(tmp_path / "once", part=10)
    once.append("events", rows(25))
    once.flush()
    again = Archive(tmp_path / "again", part=10)
    for start in range(0, 25, 4):
        again.append("events", rows(min(4, 25 - start), start))
        again.flush()
        again = Archive(tmp_path / "again", part=10)
        again.append("events", rows(start, 0))  # a restart reads from an earlier place
    again.flush()
    assert contents(tmp_path / "again") == contents(tmp_path / "once")


def test_a_disk_that_is_full_keeps_the_earlier_file_and_the_rows(tmp_path: Path) -> None:
    archive = Archive(tmp_path, part=10)
    archive.append("events", rows(3))
    archive.flush()
    before = contents(tmp_path)
    archive.append("events", rows(3, 3))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # a write beyond 100 bytes fails, as on a full disk
    try:
        with pytest.raises(ArchiveError, match="cannot be written"):
            archive.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == before
    assert archive.waiting() == 3


def test_a_damaged_part_says_what_to_do(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    archive.append("events", rows(3))
    archive.flush()
    parts(tmp_path, "events")[0].write_bytes(b"PAR1 broken")
    with pytest.raises(ArchiveError, match=r"damaged .* delete it"):
        list(read_events(tmp_path, "events", 0))


@pytest.mark.parametrize("first", [0, 10, 20])
def test_a_damaged_part_is_set_aside_and_written_again(tmp_path: Path, first: int) -> None:
    archive = Archive(tmp_path, part=10)
    archive.append("events", rows(25))
    archive.flush()
    whole = contents(tmp_path)
    path = part_path(tmp_path, "events", 0, first)
    path.write_bytes(path.read_bytes()[:-9])

    again = Archive(tmp_path, part=10)
    assert again.position("events", 0) == first
    assert [(part.first, part.end) for part in again.damaged] == [(first, first + 10)]
    again.append("events", rows(4, first))
    again.flush()
    assert path.exists() == (first == 20)  # not before it is complete
    killed = Archive(tmp_path, part=10)
    assert killed.position("events", 0) == (24 if first == 20 else first)
    killed.append("events", rows(25 - first, first))
    killed.advance("events", 0, 25)
    assert killed.position("events", 0) == 25
    killed.flush()
    assert contents(tmp_path) == whole
    assert path.with_name(path.name + ".damaged").exists()


def test_only_missing_offsets_are_read_again(tmp_path: Path) -> None:
    archive = Archive(tmp_path, part=10)
    archive.append("events", rows(45))
    archive.flush()
    whole = contents(tmp_path)
    for first in (10, 30):
        part_path(tmp_path, "events", 0, first).unlink()
    again = Archive(tmp_path, part=10)
    again.append("events", rows(10, 10))
    again.advance("events", 0, 20)
    assert again.position("events", 0) == 30
    again.append("events", rows(10, 30))
    assert again.position("events", 0) == 45
    again.flush()
    assert contents(tmp_path) == whole


def test_damage_while_running_keeps_the_other_partitions(tmp_path: Path) -> None:
    archive = Archive(tmp_path, part=10)
    archive.append("events", rows(3))
    archive.flush()
    again = Archive(tmp_path, part=10)
    other = [ArchiveRow(1, n, NOON, record(n)) for n in range(3)]
    again.append("events", [*rows(3, 3), *other])
    part_path(tmp_path, "events", 0, 0).write_bytes(b"PAR1 broken")
    assert again.flush() == {"events": 3}
    assert len(again.damaged) == 1
    assert (again.position("events", 0), again.position("events", 1)) == (0, 3)
    again.append("events", rows(6))
    again.flush()
    assert [entry.offset for entry in read_events(tmp_path, "events", 0)] == list(range(6))


def test_a_training_set_ends_at_its_cut_and_counts_an_event_once(tmp_path: Path) -> None:
    first = Interaction(event_id="e", user_id="u", item_id="a", kind="view", at=NOON)
    events = [
        first,
        first,
        msgspec.structs.replace(first, event_id="tie", item_id="b"),
        msgspec.structs.replace(first, event_id="past", item_id="c", at=NOON - 1),
        msgspec.structs.replace(first, event_id="other", domain="news"),
        msgspec.structs.replace(first, event_id="future", item_id="future", at=NOON + 1),
    ]
    archive = Archive(tmp_path)
    archive.append("events", [ArchiveRow(0, n, NOON, event) for n, event in enumerate(events)])
    archive.flush()
    assert interactions(tmp_path, "shop", until_at=NOON + 1)["item_id"].tolist() == ["c", "a", "b"]
    assert interactions(tmp_path, "shop")["item_id"].tolist() == ["c", "a", "b", "future"]


def test_no_archive_yet(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no events are archived yet"):
        interactions(tmp_path, "shop")
