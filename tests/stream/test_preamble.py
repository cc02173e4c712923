"""Lines above the header: pointed out with the option that leaves them out, and counted."""

from pathlib import Path

import pytest

from stream.errors import SourceError
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions, parse_skips

AT = "2023-01-01T10:00:00Z"
PREAMBLE = "Sales report\nFrom,2023-01-01\n\n"
TABLE = f"user_id,item_id,at\nu1,i1,{AT}\nu2,i2,{AT}\n"


def written(folder: Path, text: str, name: str = "events.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("text", [PREAMBLE + TABLE, (PREAMBLE + TABLE).replace(",", ";")])
def test_lines_above_the_header_name_the_option_that_skips_them(tmp_path: Path, text: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(SourceError, match=r"line 4 looks like the header \(--skip-lines 3\)"):
        open_table(file)
    source = open_table(file, TableOptions(skip_lines={"": 3}))
    assert sorted(source.events["user_id"]) == ["u1", "u2"]
    (count,) = source.report.of("events").files
    assert (count.lines, count.skipped, count.header, count.rows) == (6, 3, 1, 2)
    assert "skipped (--skip-lines)" in source.report.table()


def test_a_preamble_of_the_same_width_is_no_header(tmp_path: Path) -> None:
    file = written(tmp_path, f"Report,of,sales\nJanuary\nuser_id,item_id,at\nu1,i1,{AT}\n")
    with pytest.raises(
        SourceError, match=r"which column holds user_id, item_id, at\? Its columns are Report, of, sales"
    ):
        open_table(file)
    assert open_table(file, TableOptions(skip_lines={"events": 2})).report.kept == 1


def test_rows_without_a_header_are_no_header(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"its first line looks like a row \('2023-01-01T10:00:00Z'\): write a line"):
        open_table(written(tmp_path, f"u1,i1,{AT}\nu2,i2,{AT}\n"))


def test_names_that_come_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="names price more than once; give columns their own names"):
        open_table(written(tmp_path, f"user_id,item_id,at,price,price\nu1,i1,{AT},1,2\n"))


def test_each_file_has_its_own_number_of_lines(tmp_path: Path) -> None:
    events = written(tmp_path, TABLE)
    items = written(tmp_path, "Catalogue\nitem_id,title\ni1,One\n", "items.csv")
    source = open_table(events, TableOptions(items=items, skip_lines={"items": 1}))
    assert source.items["title"].to_list() == ["One", None]
    with pytest.raises(SourceError, match="no file of users; give it with --users"):
        open_table(events, TableOptions(skip_lines={"users": 1}))
    with pytest.raises(SourceError, match="--skip-lines 9: nothing stands below line 3"):
        open_table(events, TableOptions(skip_lines={"": 9}))


def test_the_option() -> None:
    assert parse_skips("3") == {"": 3}
    assert parse_skips(" events=2, items=1") == {"events": 2, "items": 1}
    assert parse_skips(None) == {}
    for wrong in ("x", "-1", "rules=2", "events=", "1.5"):
        with pytest.raises(SourceError, match="is no number of lines; give one for the first file"):
            parse_skips(wrong)
