"""Times, numbers, ids and kinds as people and spreadsheets write them."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from stream.errors import SourceError
from stream.sources.numbers import numbers_where_all_are, read_numbers, whole_ids
from stream.sources.source import Source
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions
from stream.sources.times import to_epoch_ms

AT = "2023-01-01T10:00:00Z"


def opened(tmp_path: Path, text: str, options: TableOptions | None = None) -> Source:
    file = tmp_path / "events.csv"
    file.write_text(text, "utf-8")
    return open_table(file, options)


def noted(source: Source, part: str) -> bool:
    return any(part in note for note in source.report.notes)


def moments(*written: object, form: str | None = None) -> list[str | None]:
    times, _ = to_epoch_ms(pl.Series("at", written), form)
    return [None if at is None else datetime.fromtimestamp(at / 1_000, UTC).isoformat()[:-6] for at in times]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (("12/1/10 8:26", "12/13/10 9:02"), ["2010-12-01T08:26:00", "2010-12-13T09:02:00"]),
        (("12/13/23", "1/4/23"), ["2023-12-13T00:00:00", "2023-01-04T00:00:00"]),
        (("31.01.24 10:15", "01.02.24 9:00"), ["2024-01-31T10:15:00", "2024-02-01T09:00:00"]),
        (("24-01-31", "24-02-28"), ["2024-01-31T00:00:00", "2024-02-28T00:00:00"]),
        (("31-Jan-24", "1-Feb-24"), ["2024-01-31T00:00:00", "2024-02-01T00:00:00"]),
        (("2023-01-05 10:00:00,123",), ["2023-01-05T10:00:00.123000"]),
        (("31.01.2024, 10:15:00",), ["2024-01-31T10:15:00"]),
        (("20240131T101500Z", "20240131T101500+0100"), ["2024-01-31T10:15:00", "2024-01-31T09:15:00"]),
        (("20240131T1015", "20240131 101500"), ["2024-01-31T10:15:00", "2024-01-31T10:15:00"]),
        (("20240131101500",), ["2024-01-31T10:15:00"]),
        ((45_292.5,), ["2024-01-01T12:00:00"]),
        (("2024-01-31 10:15:00 EST", "2024-01-31 10:15:00 CET"), ["2024-01-31T15:15:00", "2024-01-31T09:15:00"]),
        (
            ("2024-01-31 10:15 Europe/Berlin", "2024-07-31 10:15 Europe/Berlin"),
            ["2024-01-31T09:15:00", "2024-07-31T08:15:00"],
        ),
        (("2024-01-31T10:15:00+01:00[Europe/Berlin]",), ["2024-01-31T09:15:00"]),
        (("Wed Jan 31 2024 10:15:00 GMT+0100 (Central European Standard Time)",), ["2024-01-31T09:15:00"]),
        (("Wed Jan 31 10:15:00 CET 2024",), ["2024-01-31T09:15:00"]),
        (("Wed, 31 Jan 2024 10:15:00 GMT",), ["2024-01-31T10:15:00"]),
        (("31/Jan/2024:10:15:00 +0100",), ["2024-01-31T09:15:00"]),
        (("1/31/2024, 10:15:00 PM",), ["2024-01-31T22:15:00"]),
        (("2024-01-31 10:15:00 UTC+2", "2024-01-31T10:15-05"), ["2024-01-31T08:15:00", "2024-01-31T15:15:00"]),
        (
            ("2024-01-31", "2024-02-01 08:30", "31/12/2023 10:00", "soon"),
            ["2024-01-31T00:00:00", "2024-02-01T08:30:00", None, None],
        ),
        (("[31/Jan/2024:10:15:00 +0100]", "1/Feb/2024:09:00:00 +0000"), ["2024-01-31T09:15:00", "2024-02-01T09:00:00"]),
        (("1/31/2024 10:15 p.m.", "1/30/2024 1:00AM"), ["2024-01-31T22:15:00", "2024-01-30T01:00:00"]),
        (
            ("2024-01-31T10", "2024-01-31 10:15 utc", "'2024-02-01"),
            ["2024-01-31T10:00:00", "2024-01-31T10:15:00", "2024-02-01T00:00:00"],
        ),
        (("45292,5", "45292,25"), ["2024-01-01T12:00:00", "2024-01-01T06:00:00"]),
        (("2024-01-31 10:15:00 Mars/Base", "2024-01-31 10:15:00 XYZ", "2024-02-30"), [None, None, None]),
    ],
)
def test_times(written: tuple[object, ...], expected: list[str | None]) -> None:
    assert moments(*written) == expected


def test_forms_that_are_named(tmp_path: Path) -> None:
    assert moments("31.01.24 10h15", form="%d.%m.%y %Hh%M") == ["2024-01-31T10:15:00"]
    assert moments("2024-01-31 10:15:00.25", form="%Y-%m-%d %H:%M:%S.%f") == ["2024-01-31T10:15:00.250000"]
    assert moments("10/1/2", form="%Y/%m/%d") == [None]
    with pytest.raises(SourceError, match=r"line 2: at='10h15' is not a time; .*--time-format"):
        opened(tmp_path, "user_id,item_id,at\nu1,i1,10h15\n")
    with pytest.raises(SourceError, match=r"at=5 lies before 1990; .*--time-format"):
        opened(tmp_path, "user_id,item_id,at\nu1,i1,5\n")


def test_times_in_another_form_are_counted_and_read_by_a_second_form(tmp_path: Path) -> None:
    text = f"user_id,item_id,at\nu1,i1,{AT}\nu2,i2,{AT}\nu3,i3,31/12/2022 10:00\nu4,i4,soon\n"
    source = opened(tmp_path, text)
    assert len(source) == 2
    assert source.report.of("events").faults == {"at not a time": 2}
    cure = "auto|%d/%m/%Y %H:%M"
    assert noted(source, "at: 2 rows rejected, whose times are written in another form, such as events.csv line 4")
    assert noted(source, f"(--time-format '{cure}' reads them too)")
    both = opened(tmp_path, text, TableOptions(time_format=cure))
    assert sorted(both.events["user_id"]) == ["u1", "u2", "u3"]
    assert both.report.of("events").faults == {"at not a time": 1}


def test_forms_are_tried_in_their_order() -> None:
    assert moments("01/02/2024", "13/02/2024", "1700000000", form="%m/%d/%Y|%d/%m/%Y|auto") == [
        "2024-01-02T00:00:00",
        "2024-02-13T00:00:00",
        "2023-11-14T22:13:20",
    ]
    assert moments(10224, 311224, form="%d%m%y") == ["2024-02-01T00:00:00", "2024-12-31T00:00:00"]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (("12,50", "7", "1.234,56"), [12.5, 7, 1234.56]),
        (("$12.50", "1,234.56", "9.99", "\u2014"), [12.5, 1234.56, 9.99, None]),
        (("1,234", "5,678"), [1234, 5678]),
        (("1,234", "12,5", "7"), [1.234, 12.5, 7]),
        (("1.234", "12,50", "7,25"), [1234, 12.5, 7.25]),
        (("\u20ac 3,00", "3,00 \u20ac", "CHF 3,20", "1 234,5", "12,-"), [3, 3, 3.2, 1234.5, 12]),
        (("(4.5)", "4.5-", "1'234.50", "1,234,567", "1e3"), [-4.5, -4.5, 1234.5, 1234567, 1000]),
        (("1,5E+03", "2E-1", "7"), [1500, 0.2, 7]),
        (("abc", "1.2.3", "1,23,456", "nan", "inf", "-"), [None] * 6),
    ],
)
def test_numbers(written: tuple[str, ...], expected: list[float | None]) -> None:
    assert read_numbers(pl.Series("value", written))[0].to_list() == expected


def test_an_event_is_kept_without_a_value_that_is_no_number(tmp_path: Path) -> None:
    text = f"user_id;item_id;at;price\nu1;i1;{AT};12,50\nu2;i2;{AT};\u2014\nu3;i3;{AT};call us\nu4;i4;{AT};\n"
    source = opened(tmp_path, text)
    assert source.events["value"].to_list() == [12.5, None, None, None]
    assert source.report.of("events").left_out == {"value": 2}
    assert noted(source, "events without value, which could not be read: 2; the first: events.csv line 3: '\u2014'")


def test_labels_that_are_too_long_are_left_out_and_ids_rejected(tmp_path: Path) -> None:
    long = "x" * 300
    text = f"user_id,item_id,at,session_id\nu1,i1,{AT},{long}\n{long},i2,{AT},s\n"
    source = opened(tmp_path, text)
    assert source.events.select("user_id", "session_id").rows() == [("u1", None)]
    assert source.report.of("events").left_out == {"session_id": 1}
    assert source.report.of("events").faults == {"user_id too long": 1}


@pytest.mark.parametrize(
    ("written", "expected", "note"),
    [
        (["17850.0", "guest", "13047.0", None], ["17850", "guest", "13047", None], "2 written as 17850.0, taken as"),
        (["1.0", "1.1", "2.0"], ["1.0", "1.1", "2.0"], None),
        (["4.00638E+12", "guest"], ["4006380000000", "guest"], "a spreadsheet cut their digits"),
        (["4,00638E+12", "17850,0"], ["4006380000000", "17850"], "a spreadsheet cut their digits"),
        (["1E5", "007", "17,850"], ["1E5", "007", "17,850"], None),
    ],
)
def test_ids_of_spreadsheets(written: list[str | None], expected: list[str | None], note: str | None) -> None:
    ids, notes = whole_ids(pl.Series("user_id", written))
    assert ids.to_list() == expected
    assert (note is None and notes is None) or (note is not None and notes is not None and note in notes)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["12,50", "7", "-"], [12.5, 7, None]),
        (["001", "2"], ["001", "2"]),
        (["1", "2", None], [1, 2, None]),
        (["10-20", "5"], ["10-20", "5"]),
        (["-", None], ["-", None]),
    ],
)
def test_attributes_are_numbers_where_all_are(written: list[str | None], expected: list[object]) -> None:
    assert numbers_where_all_are(pl.Series("price", written))[0].to_list() == expected


@pytest.mark.parametrize("quote", ["", '"'])
def test_names_that_look_like_nothing_are_names(tmp_path: Path, quote: str) -> None:
    names = ("NA", "None", "null", "nan", "NULL", "N/A")
    rows = "".join(f"{quote}{name}{quote},{quote}{name}{quote},{AT},{quote}{name}{quote}\n" for name in names)
    source = opened(tmp_path, f"user_id,item_id,at,category\n{rows},i,{AT},c\n")
    assert source.events.select("user_id", "item_id", "category").rows() == [(name,) * 3 for name in names]
    assert source.report.removed("missing users") == 1
    assert noted(
        source, "user_id: N/A, NA, NULL, None, nan, null in 6 rows kept as a name; only empty values are missing"
    )
    without = opened(tmp_path, f"user_id,item_id,at\nNA,i1,{AT}\nu,i,{AT}\n", TableOptions(missing=("NA",)))
    assert without.events["user_id"].to_list() == ["u"]


def test_kinds_that_are_unknown_name_the_option_that_maps_them(tmp_path: Path) -> None:
    text = f"user_id,item_id,at,event\nu1,i1,{AT},Wishlist\nu2,i2,{AT},\n"
    with pytest.raises(SourceError, match=r"kind='wishlist' is not known; .*--kind-map wishlist=KIND"):
        opened(tmp_path, text)
    mapped = opened(tmp_path, text, TableOptions(kinds={"wishlist": "like"}))
    assert mapped.events["kind"].to_list() == ["like"]
    assert mapped.report.of("events").faults == {"kind missing": 1}
    forced = opened(tmp_path, text, TableOptions(kind="save"))
    assert forced.events["kind"].to_list() == ["save", "save"]
    columns = {"user_id": "user_id", "item_id": "item_id", "at": "at", "kind": "event"}
    filled = opened(tmp_path, text, TableOptions(columns=columns, kind="view", kinds={"wishlist": "like"}))
    assert filled.events["kind"].to_list() == ["like", "view"]
    with pytest.raises(SourceError, match="--kind-map wishlist=love: there is no kind 'love'; kinds are view"):
        opened(tmp_path, text, TableOptions(kinds={"wishlist": "love"}))
