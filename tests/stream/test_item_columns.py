"""Columns of an items file that hide items: whether they are available, and until when."""

from pathlib import Path

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import UNSET

from stream.errors import SourceError
from stream.events import Item
from stream.sources.flags import read_flags
from stream.sources.source import Source
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions


def opened(file: Path, **options: object) -> Source:
    return open_table(None, TableOptions(items=file, **options))  # type: ignore[arg-type]


def sent(source: Source) -> dict[str, Item]:
    messages = [value for part in source.encoded_items(at=1_700_000_000_000) for _, value in part]
    return {item.item_id: item for item in (msgspec.json.decode(value, type=Item) for value in messages)}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["true", "FALSE", "True", None], [True, False, True, None]),
        (["yes", "No", "y", "N"], [True, False, True, False]),
        (["1", "0", "1.0", "0.0"], [True, False, True, False]),
        (["in stock", "out of stock", "In_Stock", "sold out"], [True, False, True, False]),
        (["https://schema.org/InStock", "OutOfStock", "preorder", "discontinued"], [True, False, True, False]),
        (["ja", "NEIN", "WAHR", "FALSCH"], [True, False, True, False]),
        (["10", "-1", "maybe", "2"], [None, None, None, None]),
        ([1, 0, 7, None], [True, False, None, None]),
        ([1.0, 0.0, 0.5, None], [True, False, None, None]),
        ([[1], [0], [], None], [None, None, None, None]),
    ],
)
def test_what_means_true_and_false(written: list[object], expected: list[bool | None]) -> None:
    assert read_flags(pl.Series("available", written))[0].to_list() == expected


def test_a_column_sets_whether_items_are_available(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("item_id,title,available\na,A,in stock\nb,B,no\nc,C,\nd,D,12 left\n")
    source = opened(file)
    items = sent(source)
    assert {item_id: item.available for item_id, item in items.items()} == {"a": True, "b": False, "c": UNSET}
    assert all(item.attributes is UNSET for item in items.values())
    assert source.report.of("items").faults == {"available not true or false": 1}
    assert source.report.of("items").read == source.report.of("items").kept + 1
    (rejected,) = source.report.examples
    assert (rejected.file, rejected.line) == ("items.csv", 5)
    assert rejected.reason.startswith("available='12 left' is neither true nor false; give true or false")
    assert any("available: in stock read as true; no read as false" in note for note in source.report.notes)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([True, False, None]),
        pa.array([1, 0, None], pa.int8()),
        pa.array(["yes", "no", None]).dictionary_encode(),
        pa.array([b"true", b"false", None]),
        pa.array([1.0, 0.0, float("nan")]),
    ],
)
def test_parquet_columns_of_every_type_that_can_say_so(tmp_path: Path, column: pa.Array) -> None:
    pq.write_table(pa.table({"item_id": ["a", "b", "c"], "available": column}), tmp_path / "items.parquet")
    items = sent(opened(tmp_path / "items.parquet"))
    assert [items[name].available for name in "abc"] == [True, False, UNSET]


def test_bytes_that_are_no_text_reject_the_row_they_would_hide(tmp_path: Path) -> None:
    column = pa.array([b"true", b"\xff", None])
    pq.write_table(pa.table({"item_id": ["a", "b", "c"], "available": column}), tmp_path / "items.parquet")
    source = opened(tmp_path / "items.parquet")
    assert sorted(sent(source)) == ["a", "c"]
    assert [(row.line, row.reason) for row in source.report.examples] == [(2, "available: bytes that are not text")]


def test_other_names_are_mapped_or_pointed_out(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text("item_id,Lagerbestand\na,1\nb,0\n")
    assert any("--map-items available=Lagerbestand" in note for note in opened(file).report.notes)
    mapped = sent(opened(file, item_columns={"available": "Lagerbestand"}))
    assert [mapped[name].available for name in "ab"] == [True, False]
    shared = sent(opened(file, columns={"available": "Lagerbestand"}))
    assert [shared[name].available for name in "ab"] == [True, False]
    with pytest.raises(SourceError, match="available in the column map is a field of items; give their file"):
        open_table(file, TableOptions(columns={"available": "Lagerbestand"}))
