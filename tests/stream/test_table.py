"""A file of one's own: what may be in it, what is taken out and counted, what is said where it does not fit."""

import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from msgspec import UNSET

from stream.cleaning import BOTS, DUPLICATES, MISSING_USERS, BotRule, CleaningOptions
from stream.cleaning_report import UNPARSEABLE
from stream.errors import SourceError
from stream.sources.columns import parse_map
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions

MESSY = """uid,sku,ts,price
ann,tea,2024-01-02T10:00:00Z,1.5
ann,tea,2024-01-02T10:00:00Z,1.5
,tea,2024-01-02T10:00:00Z,1
bob,,2024-01-02T10:00:00Z,1
bob,cup,yesterday,1
bob,cup,2024-01-01T10:00:00Z,many
bob,cup,2024-01-01T10:00:00Z,
"""
MAP = {"user_id": "uid", "item_id": "sku", "at": "ts", "value": "price"}


def messy(tmp_path: Path) -> Path:
    file = tmp_path / "events.csv"
    file.write_text(MESSY)
    return file


def test_each_step_is_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    rejects = tmp_path / "rejects.jsonl"
    source = open_table(
        messy(tmp_path), TableOptions(columns=MAP, kind="purchase", cleaning=CleaningOptions(rejects=rejects))
    )
    report = source.report
    assert (report.read, report.kept) == (7, 3)
    assert report.removed(MISSING_USERS) == 1
    assert report.removed(DUPLICATES) == 1
    assert report.removed(UNPARSEABLE) == 2
    assert source.events["user_id"].to_list() == ["bob", "bob", "ann"]
    assert source.events["value"].to_list() == [None, None, 1.5]
    assert source.events["at"].to_list() == [1_704_103_200_000, 1_704_103_200_000, 1_704_189_600_000]
    lines = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [line["line"] for line in lines] == [5, 6]
    assert "yesterday" in lines[1]["reason"]


def test_strict_stops_at_the_first(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="line 5"):
        open_table(messy(tmp_path), TableOptions(columns=MAP, cleaning=CleaningOptions(strict=True)))


def items_file(tmp_path: Path, column: str, *times: object) -> Path:
    file = tmp_path / "items.csv"
    rows = [f"i{number},{'' if at is None else at},{number}" for number, at in enumerate(times)]
    file.write_text("\n".join([f"sku,{column},shelf", *rows]) + "\n")
    return file


@pytest.mark.parametrize("column", ["expires_at", "valid_until"])
def test_items_expire_by_a_column_of_their_file(tmp_path: Path, column: str) -> None:
    items = items_file(tmp_path, column, "2030-01-01T00:00:00Z", None, "2030-01-01T01:00:00+01:00")
    columns = MAP if column == "expires_at" else {**MAP, "expires_at": column}
    source = open_table(messy(tmp_path), TableOptions(columns=columns, items=items))
    expires_at = {item.item_id: item.expires_at for part in source.catalogue() for item in part}
    assert expires_at == {"i0": 1_893_456_000_000, "i1": UNSET, "i2": 1_893_456_000_000, "tea": UNSET, "cup": UNSET}
    assert next(item.attributes for part in source.catalogue() for item in part) == {"shelf": 0}
    encoded = [json.loads(value) for part in source.encoded_items(shift_ms=1_000) for _, value in part]
    assert encoded[0]["expires_at"] == 1_893_456_001_000
    assert "expires_at" not in encoded[1]


def test_epoch_milliseconds_are_times_of_expiry(tmp_path: Path) -> None:
    source = open_table(
        messy(tmp_path), TableOptions(columns=MAP, items=items_file(tmp_path, "expires_at", 1_893_456_000_000, None))
    )
    assert source.items["expires_at"].to_list()[:2] == [1_893_456_000_000, None]
    never = open_table(messy(tmp_path), TableOptions(columns=MAP, items=items_file(tmp_path, "expires_at", None, None)))
    assert never.items["expires_at"].null_count() == never.items.height


@pytest.mark.parametrize(
    ("times", "line", "fault", "reason"),
    [
        (
            ("2030-01-01T00:00:00Z", "soon"),
            3,
            "expires_at not a time",
            "expires_at='soon' is not a time; give RFC 3339",
        ),
        (
            (1_893_456_000_000, None, 5),
            4,
            "expires_at before 1990",
            "expires_at='5' lies before 1990 (numbers read as epoch milliseconds); give RFC 3339",
        ),
    ],
)
def test_a_bad_time_of_expiry_rejects_its_row(
    tmp_path: Path, times: tuple[object, ...], line: int, fault: str, reason: str
) -> None:
    items = items_file(tmp_path, "expires_at", *times)
    source = open_table(messy(tmp_path), TableOptions(columns=MAP, items=items))
    assert source.report.of("items").faults == {fault: 1}
    assert (source.report.of("items").read, source.report.of("items").kept) == (len(times), len(times) - 1)
    (rejected,) = [row for row in source.report.examples if row.file == "items.csv"]
    assert rejected.line == line
    assert rejected.reason.startswith(reason)
    strict = CleaningOptions(strict=True)
    with pytest.raises(SourceError, match=f"items.csv line {line}: expires_at"):
        open_table(None, TableOptions(columns={"item_id": "sku"}, items=items, cleaning=strict))


def test_a_table_of_which_no_row_is_left_stops_the_import(tmp_path: Path) -> None:
    items = items_file(tmp_path, "expires_at", "soon", "later")
    with pytest.raises(
        SourceError, match=r"items.csv: none of 2 rows is left \(unparseable 2\); first rejected: items.csv"
    ):
        open_table(messy(tmp_path), TableOptions(columns=MAP, items=items))
    header_only = items_file(tmp_path, "shelf_life")
    source = open_table(messy(tmp_path), TableOptions(columns=MAP, items=header_only))
    assert "items.csv: there is no row below the header" in source.report.notes


def test_a_mapped_time_of_expiry_wants_a_file_and_a_column(tmp_path: Path) -> None:
    column_map = {**MAP, "expires_at": "until"}
    with pytest.raises(SourceError, match="expires_at in the column map is a field of items; give their file"):
        open_table(messy(tmp_path), TableOptions(columns=column_map))
    with pytest.raises(SourceError, match=r"items.csv: there is no column 'until'; its columns are sku, ends, shelf"):
        open_table(messy(tmp_path), TableOptions(columns=column_map, items=items_file(tmp_path, "ends", None)))


def test_csv_gz_and_parquet_give_the_same_events(tmp_path: Path) -> None:
    rows = {"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": [1_700_000_000, 1_700_000_001]}
    frame = pl.DataFrame(rows)
    frame.write_csv(tmp_path / "plain.csv")
    (tmp_path / "small.csv.gz").write_bytes(gzip.compress((tmp_path / "plain.csv").read_bytes()))
    frame.write_parquet(tmp_path / "table.parquet")
    sources = [open_table(tmp_path / name) for name in ("plain.csv", "small.csv.gz", "table.parquet")]
    assert sources[0].events["at"].to_list() == [1_700_000_000_000, 1_700_000_001_000]
    for other in sources[1:]:
        assert other.events.select("user_id", "item_id", "at").equals(
            sources[0].events.select("user_id", "item_id", "at")
        )


def test_bots_are_left_out_only_when_asked(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    lines = [f"bot,i{n},{1_700_000_000 + n}" for n in range(20)] + ["ann,i1,1700000000"]
    file.write_text("user_id,item_id,at\n" + "\n".join(lines) + "\n")
    assert len(open_table(file)) == 21
    kept = open_table(file, TableOptions(cleaning=CleaningOptions(bots=BotRule(10, 3_600_000))))
    assert kept.events["user_id"].to_list() == ["ann"]
    assert kept.report.removed(BOTS) == 20


def test_items_and_users_come_along(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("user_id,item_id,at\nann,tea,1700000000\n")
    (tmp_path / "i.csv").write_text("item_id,title,category,brand\ntea,Green tea,TEA,House\n")
    (tmp_path / "u.csv").write_text("user_id,segment,age\nann,35-44,40\n")
    source = open_table(tmp_path / "e.csv", TableOptions(users=tmp_path / "u.csv", items=tmp_path / "i.csv"))
    (item,), (user,) = next(iter(source.catalogue())), next(iter(source.profiles()))
    assert (item.item_id, item.title, item.category, item.attributes["brand"]) == ("tea", "Green tea", "TEA", "House")
    assert (user.user_id, user.segment) == ("ann", "35-44")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": "uid", "item_id": "sku", "at": "when"}, "there is no column 'when'; its columns are uid, sku"),
        ({"user": "uid"}, "user in the column map is no field"),
    ],
)
def test_a_map_that_does_not_fit_says_how(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_table(messy(tmp_path), TableOptions(columns=columns))


def test_columns_that_nobody_can_guess_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text("who,what,when_it_was\nann,tea,1700000000\n")
    with pytest.raises(SourceError, match=r"which column holds user_id, item_id, at\? Its columns are who, what"):
        open_table(tmp_path / "e.csv")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.csv"):
        open_table(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(SourceError, match=r"empty\.csv"):
        open_table(tmp_path / "empty.csv")
    (tmp_path / "fake.parquet").write_bytes(b"not parquet")
    with pytest.raises(SourceError, match=r"fake\.parquet"):
        open_table(tmp_path / "fake.parquet")


def test_a_column_map_is_pairs_of_field_and_column() -> None:
    assert parse_map(" user_id = uid ,item_id=sku,at=ts,") == {"user_id": "uid", "item_id": "sku", "at": "ts"}
    assert parse_map("at=a=b") == {"at": "a=b"}
    for text, reason in (("user_id", "'user_id' is not NAME=VALUE"), ("=uid", "'=uid' is not NAME=VALUE")):
        with pytest.raises(SourceError, match=reason):
            parse_map(text)
    with pytest.raises(SourceError, match="at is named twice"):
        parse_map("at=ts,at=time")
