"""What the log has of a file's events: from the archive, from the log behind it, and nothing of others."""

from pathlib import Path

import polars as pl
import pytest

from features.activity import LoggedEvent
from features.archive import Archive, ArchiveRow, missing_ranges, part_path, parts
from features.errors import ArchiveError
from features.log_comparison import compare_with_log
from stream.events import Interaction


def event(user: str, number: int, at: int = 0, domain: str = "shop") -> Interaction:
    return Interaction(event_id=f"e{number}", user_id=user, item_id="tea", kind="view", at=at or number, domain=domain)


def archived(folder: Path, *events: Interaction, part: int = 2) -> Path:
    archive = Archive(folder, part)
    archive.append("events", [ArchiveRow(0, n, n, event) for n, event in enumerate(events)])
    archive.flush()
    return folder


def frame(*events: Interaction) -> pl.DataFrame:
    rows = [(event.user_id, event.event_id, event.at) for event in events]
    return pl.DataFrame(rows, ["user_id", "event_id", "at"], orient="row")


def test_an_event_is_known_by_domain_user_and_id(tmp_path: Path) -> None:
    archive = archived(tmp_path, event("ann", 1), event("bob", 2), event("ann", 3, domain="news"), event("ann", 9))
    behind = [LoggedEvent(event("zoe", 4), "events/0", 4), LoggedEvent(event("zoe", 5, domain="news"), "events/0", 5)]
    events = frame(event("ann", 1), event("ann", 2), event("bob", 2), event("ann", 3), event("zoe", 4), event("zoe", 5))
    compared = compare_with_log(events, "shop", archive, behind)
    assert compared.logged.to_list() == [True, False, True, False, True, False]
    assert compared.older.to_list() == [True, True, False, True, False, False]


def test_nothing_is_known_before_the_first_event(tmp_path: Path) -> None:
    compared = compare_with_log(frame(event("ann", 1), event("ann", 2)), "shop", tmp_path)
    assert compared.logged.to_list() == compared.older.to_list() == [False, False]


def test_an_event_that_the_log_has_twice_is_one_event(tmp_path: Path) -> None:
    archive = archived(tmp_path, event("ann", 1), event("ann", 1))
    behind = [LoggedEvent(event("ann", 1), "events/0", 2)]
    assert compare_with_log(frame(event("ann", 1), event("ann", 2)), "shop", archive, behind).logged.to_list() == [
        True,
        False,
    ]


def test_offsets_that_no_part_holds_are_read_from_the_log(tmp_path: Path) -> None:
    archive = archived(tmp_path, *(event("ann", n) for n in range(1, 8)), part=2)
    assert missing_ranges(archive, "events", 0, part=2) == [(7, None)]
    part_path(archive, "events", 0, 2).unlink()
    assert missing_ranges(archive, "events", 0, part=2) == [(2, 4), (7, None)]
    assert missing_ranges(archive, "events", 1, part=2) == [(0, None)]


def test_a_damaged_part_is_an_error_with_a_cure(tmp_path: Path) -> None:
    archive = archived(tmp_path, event("ann", 1))
    (part,) = parts(archive, "events")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match="delete it and the archive is written again"):
        compare_with_log(frame(event("ann", 1)), "shop", archive)
