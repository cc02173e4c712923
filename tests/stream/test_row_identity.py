"""Event ids of rows without ids: the same for the same events, however their file is sorted or written."""

import random
from pathlib import Path

import polars as pl
import pytest

from stream.cleaning import DUPLICATES
from stream.sources.source import Source
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions

HEADER = ("user", "item", "ts", "price")
ROWS = [
    ("ann", "tea", "2024-01-02T10:00:00Z", "1.50"),
    ("ann", "tea", "2024-01-02T10:00:00Z", "2.50"),
    ("ann", "cup", "2024-01-02T10:00:00Z", "9"),
    ("bob", "tea", "2024-01-02T10:00:00Z", "1.50"),
    ("bob", "tea", "2024-01-03T10:00:00Z", ""),
]
COLUMNS = {"user_id": "user", "item_id": "item", "at": "ts", "value": "price"}


def written(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = HEADER, delimiter: str = ",") -> Path:
    path.write_text("".join(delimiter.join(row) + "\n" for row in [header, *rows]))
    return path


def ids(source: Source) -> dict[str, tuple[str, str, float | None]]:
    """By event id: what the row says."""
    events = source.events
    return dict(zip(events["event_id"], events.select("user_id", "item_id", "value").rows(), strict=True))


def test_sorting_and_other_forms_of_a_file_change_no_id(tmp_path: Path) -> None:
    first = ids(open_table(written(tmp_path / "a.csv", ROWS), TableOptions(columns=COLUMNS)))
    assert len(first) == 5
    mixed = ROWS[:]
    random.Random(1).shuffle(mixed)
    assert ids(open_table(written(tmp_path / "mixed.csv", mixed), TableOptions(columns=COLUMNS))) == first
    turned = [row[::-1] for row in ROWS]
    assert (
        ids(open_table(written(tmp_path / "turned.csv", turned, HEADER[::-1], ";"), TableOptions(columns=COLUMNS)))
        == first
    )
    columnar = tmp_path / "events.parquet"
    pl.read_csv(tmp_path / "a.csv", try_parse_dates=True).write_parquet(columnar)
    assert ids(open_table(columnar, TableOptions(columns=COLUMNS))) == first


def test_a_grown_file_keeps_the_ids_of_its_old_rows(tmp_path: Path) -> None:
    first = ids(open_table(written(tmp_path / "a.csv", ROWS), TableOptions(columns=COLUMNS)))
    more = [("zoe", "cup", "2024-01-01T10:00:00Z", "1"), *ROWS, ("ann", "tea", "2024-01-02T10:00:00Z", "3.00")]
    grown = ids(open_table(written(tmp_path / "b.csv", more), TableOptions(columns=COLUMNS)))
    assert len(grown) == 7
    assert {event: grown[event] for event in first} == first


def test_a_corrected_value_or_a_column_more_makes_no_new_event(tmp_path: Path) -> None:
    first = set(ids(open_table(written(tmp_path / "a.csv", ROWS), TableOptions(columns=COLUMNS))))
    corrected = [*ROWS[:2], ("ann", "cup", "2024-01-02T10:00:00Z", "8.99"), *ROWS[3:]]
    assert set(ids(open_table(written(tmp_path / "b.csv", corrected), TableOptions(columns=COLUMNS)))) == first
    wider = [(*row, f"s{number}") for number, row in enumerate(ROWS)]
    file = written(tmp_path / "c.csv", wider, (*HEADER, "basket"))
    assert set(ids(open_table(file, TableOptions(columns={**COLUMNS, "session_id": "basket"})))) == first


def test_rows_that_are_equal_in_every_column_are_one_event(tmp_path: Path) -> None:
    source = open_table(written(tmp_path / "a.csv", [*ROWS, ROWS[0]]), TableOptions(columns=COLUMNS))
    assert (len(source), source.report.removed(DUPLICATES)) == (5, 1)


def test_users_number_their_events_each_for_themselves(tmp_path: Path) -> None:
    header = ("user_id", "event_id", "item_id", "at")
    rows = [
        (f"u{user}", str(number), f"i{number}", str(1_672_912_900 + 100 * user + number))
        for user in range(4)
        for number in range(5)
    ]
    source = open_table(written(tmp_path / "a.csv", rows, header))
    assert (len(source), source.report.removed(DUPLICATES)) == (20, 0)
    assert source.events["event_id"].to_list() == [str(number) for number in range(5)] * 4


def test_an_id_that_a_user_has_for_different_events_is_pointed_out(tmp_path: Path) -> None:
    header = ("user_id", "event_id", "item_id", "at")
    rows = [("ann", "order-1", "tea", "1672912900"), ("ann", "order-1", "cup", "1672912900")]
    source = open_table(written(tmp_path / "a.csv", rows, header))
    assert (len(source), source.report.removed(DUPLICATES)) == (1, 1)
    assert any(note.startswith("1 rows repeat an event id of their user") for note in source.report.notes)


@pytest.mark.parametrize("shift_ms", [0, 1_000])
def test_only_described_items_are_sent_with_the_times_asked_for(tmp_path: Path, shift_ms: int) -> None:
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\ntea,Green tea\nmug,Mug\n")
    source = open_table(written(tmp_path / "a.csv", ROWS), TableOptions(columns=COLUMNS, items=items))
    assert source.items["item_id"].to_list() == ["tea", "mug", "cup"]
    batches = list(source.encoded_items(1, at=5, valid_from=3, shift_ms=shift_ms))
    assert [message for batch in batches for message in batch] == [
        (b"shop/tea", b'{"type":"item","item_id":"tea","title":"Green tea","at":5,"valid_from":3,"domain":"shop"}'),
        (b"shop/mug", b'{"type":"item","item_id":"mug","title":"Mug","at":5,"valid_from":3,"domain":"shop"}'),
    ]
    assert b'"at":%d' % (source.start + shift_ms) in next(source.encoded_items(shift_ms=shift_ms))[0][1]


def test_events_can_be_left_out_of_what_is_sent(tmp_path: Path) -> None:
    source = open_table(written(tmp_path / "a.csv", ROWS), TableOptions(columns=COLUMNS))
    without = pl.Series([True, False, True, True, False])
    assert len(source.messages(0, 5, without=without)) == 2
    assert source.messages(2, 2, without=without) == []
