"""Files that nobody plans for: packed twice, of another kind, of any width; each is read or refused by name."""

import gzip
from io import BytesIO
from pathlib import Path

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather, orc

from stream.errors import SourceError
from stream.events import Item
from stream.sources.source import Source
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions

AT = "2023-01-01T10:00:00Z"
TABLE = f"user_id,item_id,at\nu1,i1,{AT}\nu2,i2,{AT}\n".encode()
MOMENT = 1_700_000_000


def opened(folder: Path, content: bytes, options: TableOptions | None = None) -> Source:
    (folder / "events.csv").write_bytes(content)
    return open_table(folder / "events.csv", options)


def noted(source: Source, part: str) -> bool:
    return any(part in note for note in source.report.notes)


def parquet(**columns: object) -> bytes:
    file = BytesIO()
    pq.write_table(pa.table({"user_id": ["a", "b"], "item_id": ["x", "y"], "at": [MOMENT] * 2, **columns}), file)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(TABLE[:24], mtime=0) + gzip.compress(TABLE[24:], mtime=0),
        gzip.compress(gzip.compress(TABLE, mtime=0), mtime=0),
        gzip.compress(TABLE, mtime=0) + bytes(512),
        gzip.compress(parquet(), mtime=0),
        TABLE.replace(b"\n", b"\r\n", 1),
        TABLE.replace(b"\n", b"\r", 1),
        b"\xef\xbb\xbfsep=,\r\n" + TABLE,
        TABLE.replace(b",", b"\t").decode().encode("utf-16"),
    ],
)
def test_files_that_are_packed_or_marked_in_odd_ways_are_read(tmp_path: Path, content: bytes) -> None:
    assert len(opened(tmp_path, content)) == 2


def test_files_that_were_put_together_reject_the_second_header(tmp_path: Path) -> None:
    part = b"\xef\xbb\xbf" + TABLE
    report = opened(tmp_path, part + part.replace(b"u1", b"u3").replace(b"u2", b"u4")).report
    assert (report.kept, report.of("events").faults) == (4, {"at not a time": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"PK\x03\x04more", mtime=0), "is a zip archive or a workbook; unpack it"),
        (b'[{"user_id": "u1"}]', r"is JSON, not a table; .*POST /v1/events"),
        (b"<!DOCTYPE html>\n<html>", "is a web page or XML, not a table; was it a download"),
        (b"%PDF-1.4", "is a PDF document; export the table as CSV"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a pointer of Git LFS, not the file; fetch the file: git lfs",
        ),
        (b"SQLite format 3\x00" + bytes(100), "is a database of SQLite; export the table as CSV"),
        (b"Obj\x01\x02\x16avro.schema", "is an Avro file; write it as Parquet"),
        (b"file.csv".ljust(257, b"\x00") + b"ustar", r"is a tar archive; unpack it \(tar -xf FILE\)"),
        (",".join(f"c{n}" for n in range(20_000)).encode() + b"\n", r"has 20,000 columns; 10,000 are read"),
    ],
)
def test_other_kinds_of_files_are_named_with_the_cure(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        opened(tmp_path, content)


def test_other_columnar_files_are_named_with_the_cure(tmp_path: Path) -> None:
    table = pa.table({"user_id": ["a"]})
    feather.write_feather(table, str(tmp_path / "events.feather"))
    orc.write_table(table, str(tmp_path / "events.orc"))
    for name, kind in (("events.feather", "an Arrow file"), ("events.orc", "an ORC file")):
        with pytest.raises(SourceError, match=f"is {kind}; write it as Parquet"):
            open_table(tmp_path / name)


def test_a_row_longer_than_a_block_is_judged_like_any_other(tmp_path: Path) -> None:
    long = b"u3," + b"x" * 17_000_000 + f",{AT}\n".encode()
    report = opened(tmp_path, TABLE + long).report
    assert (report.kept, report.of("events").faults) == (2, {"item_id too long": 1})


def test_a_file_that_grows_while_it_is_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def read_while_it_grows(path: Path) -> bytes:
        content = real(path)
        with path.open("ab") as file:
            file.write(f"u9,i9,{AT}\n".encode())
        return content

    monkeypatch.setattr(Path, "read_bytes", read_while_it_grows)
    source = opened(tmp_path, TABLE)
    assert len(source) == 2
    assert noted(source, "events.csv: has changed while it was read, and its last line may be cut off; import it again")


def test_rows_with_nul_bytes_are_rejected_by_line(tmp_path: Path) -> None:
    report = opened(tmp_path, TABLE + f"u\x003,i3,{AT}\n".encode()).report
    assert (report.kept, report.of("events").faults) == (2, {"NUL bytes": 1})
    assert [(row.line, row.reason) for row in report.examples] == [(4, "user_id: a NUL byte: 'u\ufffd3'")]


def test_a_value_that_holds_the_delimiter_says_what_it_lacks(tmp_path: Path) -> None:
    report = opened(tmp_path, TABLE + f"u3,i,3,{AT}\n".encode()).report
    reason = "4 fields where the header has 3 (a value that holds ',' has to stand in quotes)"
    assert [row.reason for row in report.examples] == [reason]


def test_columns_that_differ_in_capitals_alone_are_pointed_out(tmp_path: Path) -> None:
    text = f"User_ID,user_id,item_id,at\na,b,i1,{AT}\n".encode()
    source = opened(tmp_path, text)
    assert source.events["user_id"].to_list() == ["b"]
    assert noted(source, "columns that could be meant as well: user_id=User_ID (to take one: --map)")


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    assert len(opened(tmp_path, TABLE.replace(b"at\n", b"at,^$,^.*$\n").replace(b"Z\n", b"Z,x,y\n"))) == 2
    assert len(opened(tmp_path, parquet(**{"^$": ["x", "y"], "line_number": ["x", "y"]}))) == 2


def test_texts_that_a_spreadsheet_keeps_as_formulas(tmp_path: Path) -> None:
    source = opened(tmp_path, f'user_id,item_id,at\n="00123",i1,{AT}\n"=""00124""",i2,{AT}\n'.encode())
    assert source.events["user_id"].to_list() == ["00123", "00124"]
    assert noted(source, 'user_id: 2 written as ="TEXT", taken as TEXT')


@pytest.mark.parametrize(
    "times",
    [
        pa.array([MOMENT] * 2, pa.timestamp("s", "+05:30")),
        pa.array([MOMENT * 10**9] * 2, pa.timestamp("ns", "Mars/Base")),
        pa.array([MOMENT * 10**6] * 2, pa.timestamp("us", "Europe/Berlin")),
        pa.array([MOMENT * 10**9 + 1] * 2, pa.timestamp("ns")),
        pa.array([f"{MOMENT}"] * 2).dictionary_encode(),
    ],
)
def test_zones_and_units_of_parquet_times(tmp_path: Path, times: pa.Array, capfd: pytest.CaptureFixture[str]) -> None:
    source = opened(tmp_path, parquet(at=times))
    assert source.events["at"].to_list() == [MOMENT * 1_000] * 2
    assert "panicked" not in capfd.readouterr().err


def test_parquet_names_that_come_twice_are_refused(tmp_path: Path) -> None:
    file = BytesIO()
    arrays = [pa.array(["a"]), pa.array(["b"]), pa.array(["x"]), pa.array([MOMENT])]
    pq.write_table(pa.Table.from_arrays(arrays, ["user_id", "user_id", "item_id", "at"]), file)
    with pytest.raises(SourceError, match="names user_id more than once; give columns their own names"):
        opened(tmp_path, file.getvalue())


def test_attributes_that_no_message_can_hold(tmp_path: Path) -> None:
    big = pa.array(["x" * 70_000, "y"])
    wide = pa.array([2**64 - 1, 1], pa.uint64())
    lists = pa.array([[2**63], [1]], pa.list_(pa.uint64()))
    items = {"item_id": ["a", "b"], "big": big, "wide": wide, "lists": lists}
    pq.write_table(pa.table(items), tmp_path / "items.parquet")
    source = open_table(None, TableOptions(items=tmp_path / "items.parquet"))
    assert source.report.of("items").removed("longer than 65,280 bytes as a message") == 1
    ((item,),) = [[msgspec.json.decode(value, type=Item) for _, value in part] for part in source.encoded_items(at=1)]
    assert (item.item_id, item.attributes) == ("b", {"big": "y", "wide": 1.0, "lists": [1.0]})
    struct = pl.DataFrame({"item_id": ["a"], "geo": [{"lat": 1}], "geo.lat": [2]})
    struct.write_parquet(tmp_path / "items.parquet")
    source = open_table(None, TableOptions(items=tmp_path / "items.parquet"))
    assert source.items["attributes"].to_list() == [{"geo.lat": 1, "geo.lat_": 2}]
    assert noted(source, "a second column 'geo.lat' became the attribute 'geo.lat_'")
