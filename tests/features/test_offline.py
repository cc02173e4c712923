"""Feast's offline store is derived from the archive, and training's join over it is Feast's join."""

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from features.archive import Archive, ArchiveRow
from features.dataset import training_set
from features.errors import ArchiveError
from features.offline import OfflineStore
from features.store import open_store
from models.data.profiles import ProfileHistory
from stream.events import Item, Record, User

NOON = 1_760_000_000_000


def archived(tmp_path: Path, topic: str, records: list[Record], first: int = 0) -> Path:
    """An archive with parts of ten offsets, to which `records` are added from offset `first` on."""
    archive = Archive(tmp_path / "archive", part=10)
    archive.append(topic, [ArchiveRow(0, first + n, NOON + n, record) for n, record in enumerate(records)])
    archive.flush()
    return tmp_path / "archive"


def user(name: str, at: int, segment: str | None = None, domain: str = "shop") -> User:
    return User(user_id=name, at=at, segment=segment, domain=domain)


def files(tmp_path: Path) -> dict[str, bytes]:
    folder = tmp_path / "offline"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def test_each_view_has_one_file(tmp_path: Path) -> None:
    archive = archived(tmp_path, "users", [user(f"u{n}", NOON + n) for n in range(12)])
    archived(tmp_path, "items", [Item(item_id="tea", at=NOON, domain="news")])
    OfflineStore(archive, ["shop", "news"]).update()
    views = {f"{domain}_{view}.parquet" for domain in ("shop", "news") for view in ("profile", "item", "activity")}
    assert set(files(tmp_path)) == views


def test_an_update_writes_what_has_changed_and_a_repeated_one_nothing(tmp_path: Path) -> None:
    archive = archived(tmp_path, "users", [user(f"u{n:02}", NOON + n) for n in range(12)])
    store = OfflineStore(archive, ["shop"])
    assert store.update() == ["shop_profile", "shop_item", "shop_activity"]
    assert store.update() == OfflineStore(archive, ["shop"]).update() == []
    archived(tmp_path, "users", [user("z", NOON + 20)], first=12)
    assert store.update() == ["shop_profile"]
    assert store.profile_history("shop")["user_id"].tolist() == [*(f"u{n:02}" for n in range(12)), "z"]


def test_files_are_the_same_bytes_whenever_they_are_written(tmp_path: Path) -> None:
    users = [user(f"u{n % 4}", NOON + n // 2) for n in range(15)]
    for n in range(0, 15, 5):
        archive = archived(tmp_path / "often", "users", users[n : n + 5], first=n)
        OfflineStore(archive, ["shop"]).update()
    (tmp_path / "once").mkdir()
    for part in archive.rglob("*.parquet"):
        copy = tmp_path / "once" / part.relative_to(tmp_path / "often")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(part.read_bytes())
    OfflineStore(tmp_path / "once" / "archive", ["shop"]).update()
    assert files(tmp_path / "often") == files(tmp_path / "once")


def test_a_file_that_is_damaged_or_gone_is_written_again(tmp_path: Path) -> None:
    archive = archived(tmp_path, "users", [user(f"u{n}", NOON + n) for n in range(12)])
    OfflineStore(archive, ["shop"]).update()
    whole = files(tmp_path)
    (tmp_path / "offline" / "shop_profile.parquet").write_bytes(b"no Parquet")
    (tmp_path / "offline" / "shop_item.parquet").unlink()
    assert OfflineStore(archive, ["shop"]).update() == ["shop_profile", "shop_item"]
    assert files(tmp_path) == whole


def test_a_domain_that_is_added_later_gets_its_files(tmp_path: Path) -> None:
    archive = archived(tmp_path, "users", [user("ann", NOON), user("eve", NOON, domain="news")])
    OfflineStore(archive, ["shop"]).update()
    store = OfflineStore(archive, ["shop", "news"])
    store.update()
    assert store.profile_history("news")["user_id"].tolist() == ["eve"]


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    archive = archived(tmp_path, "users", [user("ann", NOON)])
    (tmp_path / "offline").write_text("in the way")
    with pytest.raises(ArchiveError, match="cannot be written"):
        OfflineStore(archive, ["shop"]).update()


def test_without_any_profile_the_join_has_missing_values(tmp_path: Path) -> None:
    archive = archived(tmp_path, "items", [Item(item_id="tea", at=NOON)])
    OfflineStore(archive, ["shop"]).update()
    store = open_store(tmp_path / "feast", "sqlite", ["shop"])
    joined = training_set(store.feast, "shop", pd.DataFrame({"user_id": ["ann"], "at": [NOON]}))
    assert joined[["state", "record"]].isna().all(axis=None)


def test_a_profile_that_changed_after_an_event_is_not_seen_by_it(tmp_path: Path) -> None:
    archive = archived(tmp_path, "users", [user("ann", NOON, "old"), user("ann", NOON - 10, "late")])
    OfflineStore(archive, ["shop"]).update()
    store = open_store(tmp_path / "feast", "sqlite", ["shop"])
    times = [NOON - 10, NOON - 9, NOON, NOON + 1]
    joined = training_set(store.feast, "shop", pd.DataFrame({"user_id": ["ann"] * 4, "at": times}))
    segments = [msgspec.json.decode(record)["segment"] if isinstance(record, str) else None for record in joined.record]
    assert segments == [None, "late", "late", "old"]


def test_a_profile_is_as_its_updates_until_then_say_together(tmp_path: Path) -> None:
    """An import of old data: later in the log, newer as a word, and true since long ago."""
    updates = [
        User("ann", NOON, segment="new", attributes={"plan": "free"}),
        User("ann", NOON + 50, attributes={"plan": "gold"}),
        User("ann", NOON + 90, valid_from=NOON - 100, segment="imported", attributes={"plan": "none", "age": 40}),
        User("ann", NOON + 95, valid_from=NOON + 60, attributes={"plan": None}),
    ]
    archive = archived(tmp_path, "users", list(updates))
    offline = OfflineStore(archive, ["shop"])
    offline.update()
    profiles = ProfileHistory.from_frame(offline.profile_history("shop"))
    known = {"segment": "imported", "age": 40}
    expected = {
        NOON - 100: None,
        NOON - 99: known | {"plan": "none"},
        NOON + 1: known | {"plan": "none"},
        NOON + 51: known | {"plan": "none"},
        NOON + 61: known,
    }
    assert {at: profiles.before("ann", at) for at in expected} == expected
    feast = open_store(tmp_path / "feast", "sqlite", ["shop"]).feast
    joined = training_set(feast, "shop", pd.DataFrame({"user_id": ["ann"], "at": [NOON + 61]}))
    assert msgspec.json.decode(joined.record[0])["attributes"] == {"age": 40}


@pytest.mark.parametrize("seed", range(3))
def test_the_join_of_training_is_the_join_of_feast(tmp_path: Path, seed: int) -> None:
    """Profiles come late, out of order and at the same millisecond as others, and as events."""
    rng = np.random.default_rng(seed)
    users = [user(f"u{rng.integers(6)}", NOON + int(rng.integers(12)), f"s{n}") for n in range(60)]
    archive = archived(tmp_path, "users", list(users))
    offline = OfflineStore(archive, ["shop"])
    offline.update()
    events = pd.DataFrame(
        {"user_id": [f"u{n}" for n in rng.integers(8, size=200)], "at": NOON + rng.integers(-1, 14, size=200)}
    )
    feast = open_store(tmp_path / "feast", "sqlite", ["shop"]).feast
    records = training_set(feast, "shop", events)["record"]
    joined = [msgspec.json.decode(record)["segment"] if isinstance(record, str) else None for record in records]
    profiles = ProfileHistory.from_frame(offline.profile_history("shop"))
    known = [profiles.before(name, at) for name, at in zip(events["user_id"], events["at"], strict=True)]
    assert joined == [profile["segment"] if profile else None for profile in known]
    assert len(set(joined)) > 20
    table = profiles.before_events(events["user_id"].to_numpy(), events["at"].to_numpy())
    assert (table.rows == 0).tolist() == [segment is None for segment in joined]
    by_row = dict(zip(table.rows.tolist(), joined, strict=True))
    assert [by_row[row] for row in table.rows.tolist()] == joined
