"""Parquet of every type: checked column by column, bad rows rejected by number, attributes of items as they are."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream.errors import SourceError
from stream.events import Item
from stream.sources.source import Source
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions

AT = [1_700_000_000_000, 1_700_000_001_000, 1_700_000_002_000]


def parquet(tmp_path: Path, columns: dict[str, Any], name: str = "table.parquet") -> Path:
    pq.write_table(pa.table(columns), tmp_path / name)
    return tmp_path / name


def attributes(tmp_path: Path, **columns: Any) -> tuple[list[dict[str, Any]], Source]:
    items = parquet(tmp_path, {"item_id": ["a", "b", "c"], **columns})
    source = open_table(None, TableOptions(items=items))
    frame = source.items["attributes"]
    return [{name: value for name, value in row.items() if value is not None} for row in frame], source


def test_ids_that_are_floats_become_whole_and_nan_is_missing(tmp_path: Path) -> None:
    file = parquet(tmp_path, {"user_id": [17850.0, float("nan"), None], "item_id": [1.0, 2.0, 3.0], "at": AT})
    source = open_table(file)
    assert source.events.select("user_id", "item_id").rows() == [("17850", "1")]
    assert source.report.removed("missing users") == 2
    assert any("floats, taken as whole numbers such as 17850" in note for note in source.report.notes)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([["x", "y"], [], None]), [["x", "y"], [], None]),
        (pa.array([[1, 2], None, [3]]), [[1, 2], None, [3]]),
        (pa.array([[1.5, float("nan")], [None], None]), [[1.5, None], [None], None]),
        (pa.array([[b"x", b"\xff"], [], None]), [["x", None], [], None]),
        (pa.array([[Decimal("1.50")], [], None]), [[1.5], [], None]),
        (pa.array([[timedelta(seconds=90)], [], None]), [[90.0], [], None]),
        (pa.array([Decimal("1.50"), None, Decimal(10) ** 40], pa.decimal256(60, 2)), [1.5, None, 1e40]),
        (pa.array([[date(2024, 1, 31)], [], None]), [["2024-01-31"], [], None]),
        (pa.array([[["x"], ["y"]], [], None]), [['["x"]', '["y"]'], [], None]),
        (pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())), ['{"k":1}', "{}", None]),
        (pa.array([Decimal("12.50"), None, Decimal("3.10")]), [12.5, None, 3.1]),
        (pa.array([timedelta(seconds=90), None, timedelta(0)]), [90.0, None, 0.0]),
        (pa.array([b"text", b"\xff\xfe", None]), ["text", None, None]),
        (pa.array([datetime(2024, 1, 31, 10, 15, tzinfo=UTC), None, None]), ["2024-01-31T10:15:00.000Z", None, None]),
        (pa.array([date(2024, 1, 31), None, None]), ["2024-01-31", None, None]),
        (pa.array([time(10, 15), None, None]), ["10:15:00", None, None]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
        (pa.array([True, None, False]), [True, None, False]),
        (pa.array([float("inf"), 1.5, None]), [None, 1.5, None]),
        (pa.nulls(3), [None, None, None]),
    ],
)
def test_attributes_of_every_type(tmp_path: Path, column: pa.Array, expected: list[Any]) -> None:
    rows, source = attributes(tmp_path, it=column)
    assert [row.get("it") for row in rows] == expected
    sent = [msgspec.json.decode(value, type=Item) for part in source.encoded_items(at=AT[0]) for _, value in part]
    assert [item.attributes.get("it") for item in sent] == expected


def test_structs_become_attributes_of_their_fields(tmp_path: Path) -> None:
    rows, _ = attributes(
        tmp_path, geo=[{"lat": 1.5, "at": {"zone": "x", "deep": {"z": 1}}}, None, {"lat": None, "at": None}]
    )
    assert rows == [{"geo.lat": 1.5, "geo.at.zone": "x", "geo.at.deep": '{"z":1}'}, {}, {}]


def test_a_bad_row_beside_lists_is_rejected_by_number(tmp_path: Path) -> None:
    columns = {
        "user_id": pa.array([b"u1", b"\xff\xfe", b"u3"]),
        "item_id": ["i1", "i2", None],
        "at": AT,
        "tags": [["x"], None, ["y", None]],
        "geo": [{"lat": 1.0}, None, None],
    }
    source = open_table(parquet(tmp_path, columns))
    assert source.events["user_id"].to_list() == ["u1"]
    assert [(row.line, row.reason) for row in source.report.examples] == [
        (2, "user_id: bytes that are not text"),
        (3, "item_id is missing"),
    ]
    assert source.report.of("events").faults == {"bytes that are not text": 1, "item_id missing": 1}


def test_text_columns_that_are_no_utf8_lose_only_their_bad_rows(tmp_path: Path) -> None:
    texts = pa.array([b"u1", b"\xff\xfe", b"u3"]).cast(pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 3, texts.buffers())
    source = open_table(
        parquet(tmp_path, {"user_id": broken, "item_id": ["a", "b", "c"], "at": AT, "tags": [["x"], [], None]})
    )
    assert source.events["user_id"].to_list() == ["u1", "u3"]
    assert source.report.of("events").faults == {"bytes that are not text": 1}


def test_a_text_with_a_nul_is_none(tmp_path: Path) -> None:
    columns = {"user_id": ["u1", "u\x002", "u3"], "item_id": ["a", "b", "c"], "at": AT, "category": ["x", "y", "z\0"]}
    source = open_table(parquet(tmp_path, columns))
    assert source.events.select("user_id", "category").rows() == [("u1", "x"), ("u3", None)]
    assert source.report.of("events").faults == {"bytes that are not text": 1}


def test_values_of_events(tmp_path: Path) -> None:
    for column, expected in (
        (pa.array([Decimal("12.50"), None, Decimal("3.10")]), [12.5, None, 3.1]),
        (pa.array([timedelta(seconds=90), None, timedelta(0)]), [90.0, None, 0.0]),
        (pa.array([["x"], None, []]), [None, None, None]),
    ):
        file = parquet(tmp_path, {"user_id": ["a", "b", "c"], "item_id": ["x", "y", "z"], "at": AT, "value": column})
        assert open_table(file).events["value"].to_list() == expected


def test_optional_lists_and_times_that_are_durations_are_counted(tmp_path: Path) -> None:
    events = {"user_id": ["a", "b", "c"], "item_id": ["x", "y", "z"]}
    source = open_table(parquet(tmp_path, {**events, "at": AT, "category": [["x"], None, []]}))
    assert source.report.of("events").left_out == {"category": 2}
    with pytest.raises(SourceError, match=r"line 1: at='86400.0' is not a time"):
        open_table(parquet(tmp_path, {**events, "at": [timedelta(days=1)] * 3}))


def test_ids_that_are_lists_are_refused_with_the_cure(tmp_path: Path) -> None:
    file = parquet(tmp_path, {"user_id": [["a"], ["b"], []], "item_id": ["x", "y", "z"], "at": AT})
    with pytest.raises(SourceError, match=r"column 'user_id' holds lists, not texts or numbers; map another \(--map\)"):
        open_table(file)


def test_parquet_that_is_cut_off(tmp_path: Path) -> None:
    file = parquet(tmp_path, {"user_id": ["a"], "item_id": ["x"], "at": AT[:1]})
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(SourceError, match=r"cannot be read as Parquet .*cut off"):
        open_table(file)
    pl.DataFrame({"line_number": ["n"], "user_id": ["a"], "item_id": ["x"], "at": AT[:1]}).write_parquet(file)
    assert open_table(file).report.kept == 1
