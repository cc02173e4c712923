"""Every physical line of every file is kept or counted by reason: for events, items and users, in text and in JSON."""

import gzip
from pathlib import Path

import msgspec
import polars as pl
import pytest

from stream.cleaning import Cleaner, CleaningOptions
from stream.cleaning_report import FileCount
from stream.errors import SourceError
from stream.sources.named import open_named
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions

AT = "2023-01-01T10:00:00Z"
GOOD = f"u1,i1,{AT},x\nu2,i2,{AT},y\n"
EVENTS = {
    "plain.csv": f"user_id,item_id,at,note\n{GOOD}",
    "windows.csv": f"user_id,item_id,at,note\n{GOOD}".replace("\n", "\r\n"),
    "old_mac.csv": f"user_id,item_id,at,note\n{GOOD}".replace("\n", "\r"),
    "sep_line.csv": f"sep=,\nuser_id,item_id,at,note\n{GOOD}",
    "empty_lines.csv": f"\nuser_id,item_id,at,note\n\n{GOOD}\n,,,\n",
    "stray_quotes.csv": f'user_id,item_id,at,note\nu1,i1,{AT},"7 inch\nu3,i3,{AT},x\nu2,i2,{AT},"8 inch\n',
    "quoted_lines.csv": f'user_id,item_id,at,note\nu1,i1,{AT},"a\n\nb"\nu2,i2,{AT},"c\nd"\n',
    "bad_rows.csv": f"user_id,item_id,at,note\n{GOOD},i3,{AT},z\nu4,,{AT},z\nu5,i5,soon,z\nu6,i6\nu1,i1,{AT},x\n",
    "missing_end.tsv": f"user_id,item_id,at,note\n{GOOD}".replace(",", "\t").rstrip("\n"),
}
ITEMS = "sku,name\ni1,One\n,None\ni2,Two\ni1,Uno\n" + "x" * 300 + ",Long\ni3\n\n"
USERS = "uid;segment\nu1;a\n;b\nu1;c\n"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Ten files of events, and how many lines (rows of Parquet) each has."""
    paths = {name: tmp_path / name for name in EVENTS}
    for name, path in paths.items():
        path.write_text(EVENTS[name], newline="")
    packed = tmp_path / "packed.csv.gz"
    packed.write_bytes(gzip.compress(EVENTS["bad_rows.csv"].encode()))
    frame = pl.DataFrame({"user_id": ["u1", None, "u2"], "item_id": ["i1", "i2", "i2"], "at": [1_672_567_200_000] * 3})
    frame.write_parquet(tmp_path / "table.parquet")
    return {**paths, "packed.csv.gz": packed, "table.parquet": tmp_path / "table.parquet"}


def lines_of(path: Path) -> int:
    """Physical lines, counted by another way than the reader's."""
    if path.suffix == ".parquet":
        return pl.read_parquet(path).height
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return len(raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removesuffix(b"\n").split(b"\n"))


def test_lines_in_are_rows_kept_and_rows_rejected_by_reason(tmp_path: Path, files: dict[str, Path]) -> None:
    items, users = tmp_path / "items.csv", tmp_path / "users.csv"
    items.write_text(ITEMS)
    users.write_text(USERS)
    options = TableOptions(
        items=items, users=users, item_columns={"item_id": "sku", "title": "name"}, user_columns={"user_id": "uid"}
    )
    for name, path in files.items():
        report = open_table(path, options).report
        shown = msgspec.json.decode(msgspec.json.encode(report))
        for table, file in (("events", path), ("items", items), ("users", users)):
            (figures,) = [report for report in shown["tables"] if report["table"] == table]
            (count,) = figures["files"]
            removed = sum(step["removed"] for step in figures["steps"])
            outside = count["header"] + count["blank"] + count["continued"]
            assert lines_of(file) == count["lines"] == outside + figures["kept"] + removed, name
            assert figures["faults"] == {} or sum(figures["faults"].values()) == report.of(table).removed("unparseable")
            assert f"{table} kept" in report.table()
        assert report.of("events").kept == (3 if name == "stray_quotes.csv" else 2), name


def test_items_and_users_are_counted_by_reason(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "users.csv").write_text(USERS)
    options = TableOptions(
        items=tmp_path / "items.csv", users=tmp_path / "users.csv", columns={"item_id": "sku", "user_id": "uid"}
    )
    source = open_table(None, options)
    report = source.report
    assert (len(source), report.of("items").kept, report.of("users").kept) == (0, 2, 1)
    assert {step.name: step.removed for step in report.of("items").steps} == {
        "unparseable": 1,
        "item_id missing": 1,
        "item_id longer than 256 characters": 1,
        "item_id doubled (the last row is kept)": 1,
    }
    assert report.of("items").faults == {"another number of fields than the header": 1}
    assert [(row.file, row.line) for row in report.examples] == [("items.csv", 7)]
    text = report.table()
    assert "item_id doubled (the last row is kept)" in text
    assert "another number of fields than the header" in text


def test_strict_stops_at_a_bad_row_of_items_too(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text(ITEMS)
    options = TableOptions(
        items=tmp_path / "items.csv", columns={"item_id": "sku"}, cleaning=CleaningOptions(strict=True)
    )
    with pytest.raises(SourceError, match=r"items.csv line 7: 1 fields where the header has 2"):
        open_table(None, options)


def test_named_sources_count_every_file(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4.5,1700000000\n1,11,x,1700000000\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n10,One (1999),Drama\n,None,Drama\n")
    (tmp_path / "tags.csv").write_text("userId,movieId,tag,timestamp\n1,10,fun,1700000000\n1,10,,1700000000\n")
    report = open_named("movielens-small", tmp_path).report
    assert {table.table: (table.read, table.kept) for table in report.tables} == {
        "events": (2, 1),
        "items": (2, 1),
        "tags": (2, 1),
    }


def test_figures_that_do_not_add_up_stop_the_import() -> None:
    for count, kept in ((FileCount("a.csv", 4, 2, header=1), 2), (FileCount("a.csv", 3, 2, header=1), 1)):
        cleaner = Cleaner("a.csv", CleaningOptions())
        cleaner.count(count)
        with pytest.raises(SourceError, match="do not add up"):
            cleaner.finish(kept)
