"""Parts are read while the archive process replaces them by longer ones."""

import threading
from pathlib import Path

import pytest

from features import cache, dataset
from features.archive import Archive, ArchiveRow, parts
from features.errors import ArchiveError
from stream.events import Interaction


def rows(first: int, count: int) -> list[ArchiveRow]:
    return [
        ArchiveRow(
            0, n, 1_000 + n, Interaction(event_id=f"e{n}", user_id=f"u{n % 7}", item_id=f"i{n}", kind="view", at=n)
        )
        for n in range(first, first + count)
    ]


def test_a_part_that_grows_while_it_is_read_is_read_whole(tmp_path: Path) -> None:
    archive, ended = Archive(tmp_path / "archive", part=1_000), threading.Event()
    archive.append("events", rows(0, 50))
    archive.flush()

    def grow() -> None:
        for n in range(1, 400):
            archive.append("events", rows(50 * n, 50))
            archive.flush()
        ended.set()

    growing = threading.Thread(target=grow)
    growing.start()
    seen = 0
    while not ended.is_set():
        rows_read = len(dataset.interactions(tmp_path / "archive", "shop"))
        cached = len(cache.interactions(tmp_path / "archive", "shop", tmp_path / "cache")[0])
        assert rows_read % 50 == cached % 50 == 0
        assert seen <= rows_read <= cached
        seen = rows_read
    growing.join()
    assert len(parts(tmp_path / "archive", "events")) == 20
    assert len(dataset.interactions(tmp_path / "archive", "shop")) == 400 * 50


def test_a_part_that_stays_damaged_is_said(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive")
    archive.append("events", rows(0, 50))
    archive.flush()
    (part,) = parts(tmp_path / "archive", "events")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(ArchiveError, match="is damaged"):
        cache.interactions(tmp_path / "archive", "shop", tmp_path / "cache")
