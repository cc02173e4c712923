"""Items and profiles from the archive alone, and merged records of which nothing but the compacted topic is left."""

from pathlib import Path

from features.archive import Archive, ArchiveRow
from features.catalogue import CatalogueEntry, item_row, item_row_of, merge
from features.catalogue_fold import LoggedUpdate, write_updates
from features.catalogue_rebuild import rebuild_catalogue
from features.store import open_store
from stream.events import Item, User
from testing.stores import differing_rows, stored_rows

NOON = 1_760_000_000_000


def test_a_rebuild_is_byte_equal_in_every_view(tmp_path: Path) -> None:
    items = [
        Item("tea", NOON + n % 3, title=f"t{n}" if n % 2 else None, attributes={f"a{n % 4}": n, "gone": None})
        for n in range(20)
    ]
    users = [User("ann", NOON + n, "news", segment=f"s{n}", valid_from=NOON - n) for n in range(7)]
    users.append(User("bob", NOON, "closed"))  # a domain that the system no longer has
    live = open_store(tmp_path / "live", "sqlite", ["shop", "news"])
    archive = Archive(tmp_path / "archive", part=6)
    for topic, updates in (("items", items), ("users", users)):
        entries = [LoggedUpdate(update, f"{topic}/0", n) for n, update in enumerate(updates)]
        for start in range(0, len(entries), 3):
            batch = [entry for entry in entries[start : start + 3] if entry.update.domain != "closed"]
            write_updates(live, batch, {f"{topic}/0": min(start + 2, len(entries) - 1)})
        archive.append(topic, [ArchiveRow(0, n, NOON, update) for n, update in enumerate(updates)])
    archive.flush()
    again = open_store(tmp_path / "again", "sqlite", ["shop", "news"])
    report = rebuild_catalogue(tmp_path / "archive", again, None)
    assert (report.updates, report.items, report.profiles, report.sent) == (27, 1, 1, 0)
    assert differing_rows(tmp_path / "live", tmp_path / "again") == []
    assert len(stored_rows(tmp_path / "again")) == 4  # an item, a profile, and two positions


def test_a_record_whose_updates_are_gone_gives_way_to_newer_words_only() -> None:
    row = item_row_of(CatalogueEntry("tea", NOON, title="Tea", attributes={"brand": "House"}))
    assert merge(row, item_row(Item("tea", NOON - 1, title="old", category="drinks"), 0)).record() == CatalogueEntry(
        "tea", NOON, title="Tea", category="drinks", attributes={"brand": "House"}
    )
    assert merge(row, item_row(Item("tea", NOON, title="new"), 0)).title == "new"
