"""Maps of columns: one for all files, one for items, one for users; and hints at columns that nothing uses."""

from pathlib import Path

import pytest

from stream.errors import SourceError
from stream.sources.source import Source
from stream.sources.table import open_table
from stream.sources.table_options import TableOptions

AT = "2023-01-01T10:00:00Z"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    texts = {
        "events": f"uid,sku,at\nu1,i1,{AT}\n",
        "items": "sku,Artikelbezeichnung,cat_main,best_until,price\ni1,One,A,2030-01-01,12\n",
        "users": "uid,customer_group,age\nu1,gold,40\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.csv").write_text(text)
    return {name: tmp_path / f"{name}.csv" for name in texts}


def opened(files: dict[str, Path], **options: dict[str, str]) -> Source:
    both = {"columns": {"user_id": "uid", "item_id": "sku", "at": "at"}}
    return open_table(files["events"], TableOptions(items=files["items"], users=files["users"], **{**both, **options}))


def test_columns_that_look_like_a_field_are_pointed_out(files: dict[str, Path]) -> None:
    source = opened(files)
    notes = "\n".join(source.report.notes)
    for field, column, option in (
        ("title", "Artikelbezeichnung", "--map-items"),
        ("category", "cat_main", "--map-items"),
        ("expires_at", "best_until", "--map-items"),
        ("segment", "customer_group", "--map-users"),
    ):
        assert f"no column for {field}; '{column}' looks like it and became an attribute" in notes
        assert f"(to map it: {option} {field}={column})" in notes
    assert source.items["attributes"][0]["cat_main"] == "A"


@pytest.mark.parametrize("shared", [False, True])
def test_items_and_users_are_mapped_in_a_map_of_their_own_or_the_shared_one(
    files: dict[str, Path], *, shared: bool
) -> None:
    of_items = {"title": "Artikelbezeichnung", "category": "cat_main", "expires_at": "best_until"}
    of_users = {"segment": "customer_group"}
    columns = {"user_id": "uid", "item_id": "sku", "at": "at"}
    source = (
        opened(files, columns=columns | of_items | of_users)
        if shared
        else opened(files, item_columns=of_items, user_columns=of_users)
    )
    assert source.items.select("item_id", "title", "category", "expires_at").rows() == [
        ("i1", "One", "A", 1_893_456_000_000)
    ]
    assert source.items["attributes"].to_list() == [{"price": 12}]
    assert source.users.select("user_id", "segment").rows() == [("u1", "gold")]
    assert source.events.select("category", "segment").rows() == [("A", "gold")]


def test_maps_without_their_file_or_column_are_refused(files: dict[str, Path]) -> None:
    with pytest.raises(SourceError, match="--map-items describes a file of items; give it with --items"):
        open_table(files["events"], TableOptions(item_columns={"title": "name"}))
    with pytest.raises(SourceError, match="title in the column map is a field of items; give their file with --items"):
        open_table(files["events"], TableOptions(columns={"title": "name"}))
    with pytest.raises(SourceError, match="there is no column 'label'; its columns are sku, Artikelbezeichnung"):
        opened(files, item_columns={"title": "label"})
    with pytest.raises(SourceError, match="there is nothing to read"):
        open_table(None)
