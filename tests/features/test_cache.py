"""The cache of interactions: what it gives is what a reading of the whole archive gives, whatever happened between."""

import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import cache, dataset
from features.archive import Archive, ArchiveRow, parts
from features.errors import ArchiveError
from stream.events import Interaction, Record, Search

NOON = 1_760_000_000_000
FEW = st.integers(0, 3)
EVENTS = st.lists(
    st.tuples(FEW, FEW, st.integers(0, 5), st.sampled_from(["shop", "news"]), st.booleans(), st.integers(0, 1)),
    max_size=12,
)


def record(user: int, item: int, at: int, domain: str, act: bool) -> Record:
    """Few users and ids, so that the same event comes twice, late, and in another partition."""
    base = {"event_id": f"e{item}{at % 2}", "user_id": f"u{user}", "at": NOON + at, "domain": domain}
    if not act:
        return Search(**base, query="tea")  # type: ignore[arg-type]
    return Interaction(**base, item_id=f"i{item}", kind="view", category="x" if item else None)  # type: ignore[arg-type]


def check_equal(archive: Path, folder: Path) -> cache.CacheStats:
    frame, read = cache.interactions(archive, "shop", folder)
    pd.testing.assert_frame_equal(frame, dataset.interactions(archive, "shop"))
    return read


@settings(max_examples=40, deadline=None)
@given(st.lists(EVENTS, min_size=1, max_size=5))
def test_reading_what_is_new_equals_reading_everything(
    batches: list[list[tuple[int, int, int, str, bool, int]]],
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept, offsets = Archive(folder / "archive", part=5), [0, 0]
        for batch in batches:
            for user, item, at, domain, act, partition in batch:
                kept.append(
                    "events", [ArchiveRow(partition, offsets[partition], NOON, record(user, item, at, domain, act))]
                )
                offsets[partition] += 1
            kept.flush()
            if any(offsets):
                check_equal(folder / "archive", folder / "cache")
                assert check_equal(folder / "archive", folder / "cache").opened == []


def rows(count: int, start: int = 0) -> list[ArchiveRow]:
    return [ArchiveRow(0, n, NOON, record(n, n % 3, n, "shop", act=True)) for n in range(start, start + count)]


def test_only_parts_that_are_new_or_have_grown_are_opened(tmp_path: Path) -> None:
    kept = Archive(tmp_path / "archive", part=10)
    kept.append("events", rows(25))
    kept.flush()
    assert check_equal(tmp_path / "archive", tmp_path) == cache.CacheStats(
        [f"events-0-{n:012d}" for n in (0, 10, 20)], 3, 25
    )
    kept.append("events", rows(8, 25))
    kept.flush()
    assert check_equal(tmp_path / "archive", tmp_path) == cache.CacheStats(
        [f"events-0-{n:012d}" for n in (20, 30)], 4, 8
    )
    assert check_equal(tmp_path / "archive", tmp_path) == cache.CacheStats([], 4, 0)


def test_a_part_that_is_gone_and_a_cache_that_is_damaged_make_it_begin_anew(tmp_path: Path) -> None:
    kept = Archive(tmp_path / "archive", part=10)
    kept.append("events", rows(25))
    kept.flush()
    check_equal(tmp_path / "archive", tmp_path)
    parts(tmp_path / "archive", "events")[0].unlink()
    assert len(check_equal(tmp_path / "archive", tmp_path).opened) == 2
    (tmp_path / "shop.parquet").write_bytes(b"PAR1 broken")
    assert len(check_equal(tmp_path / "archive", tmp_path).opened) == 2


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="no events are archived yet"):
        cache.interactions(tmp_path, "shop", tmp_path)
    kept = Archive(tmp_path)
    kept.append("events", rows(3))
    kept.flush()
    parts(tmp_path, "events")[0].write_bytes(b"PAR1 broken")
    with pytest.raises(ArchiveError, match=r"damaged .* delete it"):
        cache.interactions(tmp_path, "shop", tmp_path)
