"""Whatever a file holds: no traceback, and every line is accounted for."""

from io import BytesIO
from pathlib import Path

import polars as pl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.errors import SourceError
from stream.events import Interaction
from stream.sources.source import Source
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions

QUICK = settings(
    max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
FRAGMENTS = st.sampled_from(
    [
        *("user_id,item_id,at\n", "user_id;item_id;at;price\n", "u1,i1,1700000000\n", "u2;i2;2024-01-31;12,50\n"),
        *(
            '"',
            '""',
            '"u 1"',
            '\\"',
            ",",
            ";",
            "\n",
            "\r\n",
            "\r",
            "\t",
            "sep=;\n",
            "::",
            "\x1f",
            "\x00",
            " ",
            "\ufeff",
        ),
        *("NA", "null", "nan", "inf", "-", "\u2014", "$5", "1.234,56", "17850.0", "4.00638E+12", "1e400", "9" * 400),
        *("20240131T101500Z", "12/13/10 9:02", "2024-01-31 10:00:00 Europe/Berlin", "2024-02-30", "99999-01-01"),
        *("2024-01-31 25:61:00 CEST", "0000-00-00", "-1", "^.*$", "*", "\u00fc", "view", "wishlist", "i" * 300),
    ]
)
WRITTEN = st.lists(FRAGMENTS, max_size=40).map("".join)
GOOD = "user_id,item_id,at,note,price\n" + "".join(
    f"u{number},i{number % 3},2024-01-{number:02d}T10:00:00Z,{note},{number}.5\n"
    for number, note in enumerate(["plain", '"a, b"', '"two\nlines"', '"7"" wide"', ""] * 3, 1)
)
CELL = st.one_of(FRAGMENTS, st.text(max_size=8))
ROWS = st.lists(st.lists(CELL, min_size=3, max_size=6), min_size=1, max_size=8)
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=5), st.binary(max_size=5)
)


def adds_up(file: Path, options: TableOptions) -> Source | None:
    """Read the file; None where it is refused by a sentence. What is read has to add up and to fit the schema."""
    try:
        source = open_table(file, options)
    except SourceError:
        return None
    for table in source.report.tables:
        assert table.read == table.kept + sum(step.removed for step in table.steps)
        for count in table.files:
            assert count.lines == count.header + count.blank + count.continued + count.rows
    assert "events kept" in source.report.table()
    assert len(source) == source.report.kept == sum(len(part) for part in source.read())
    assert all(isinstance(event, Interaction) for part in source.read() for event in part)
    assert sum(len(part) for part in source.catalogue()) == source.items.height
    return source


@QUICK
@given(raw=st.one_of(st.binary(max_size=300), WRITTEN.map(str.encode)))
def test_any_bytes(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "events.csv"
    file.write_bytes(raw)
    adds_up(file, TableOptions())


@QUICK
@given(changes=st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 4), FRAGMENTS), max_size=6))
def test_any_change_of_a_good_file(tmp_path: Path, changes: list[tuple[int, int, str]]) -> None:
    text = GOOD
    for place, cut, fragment in changes:
        text = text[:place] + fragment + text[place + cut :]
    file = tmp_path / "events.csv"
    file.write_text(text, newline="")
    source = adds_up(file, TableOptions())
    if source is not None:
        (count,) = source.report.of("events").files
        lines = text.replace("\r\n", "\n").replace("\r", "\n")
        assert count.lines == lines.count("\n") + (not lines.endswith("\n"))


@QUICK
@given(rows=ROWS, quotes=st.booleans(), encoding=st.sampled_from([None, "cp1252", "utf-16", "latin-1"]))
def test_any_rows_below_a_good_header(
    tmp_path: Path, rows: list[list[str]], *, quotes: bool, encoding: str | None
) -> None:
    text = "\n".join(["user_id,item_id,at,price", "u1,i1,1700000000,1", *(",".join(row) for row in rows)])
    file, items = tmp_path / "events.csv", tmp_path / "items.csv"
    file.write_text(text, encoding=encoding or "utf-8", errors="replace", newline="")
    items.write_text(text.replace("user_id", "title"), encoding=encoding or "utf-8", errors="replace", newline="")
    adds_up(file, TableOptions(quotes=quotes, encoding=encoding, items=items))


@QUICK
@given(columns=st.lists(st.lists(st.one_of(VALUES, st.lists(VALUES, max_size=2)), min_size=3, max_size=3), max_size=4))
def test_any_parquet(tmp_path: Path, columns: list[list[object]]) -> None:
    names = ("user_id", "item_id", "at", "price")
    frame = pl.DataFrame(
        {name: pl.Series(name, values, strict=False) for name, values in zip(names, columns, strict=False)}
    )
    packed = BytesIO()
    try:
        frame.write_parquet(packed)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        return
    file = tmp_path / "events.parquet"
    file.write_bytes(packed.getvalue())
    plain = tmp_path / "events.csv"
    plain.write_text("user_id,item_id,at\nu1,i1,1700000000\n")
    adds_up(file, TableOptions())
    adds_up(plain, TableOptions(items=file))
