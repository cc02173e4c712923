"""What every online store has to do, over SQLite and over a real Redis."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from feast.protos.feast.types.Value_pb2 import Value

from features.activity import Activity, FoldSettings, LoggedEvent, apply
from features.catalogue import ItemRow, ProfileRow, item_row, profile_row
from features.errors import FeatureError, StoreError
from features.popularity import DomainPopularity, PartitionPopularity
from features.rebuild import differing_keys, rebuild
from features.store import OnlineStore, open_store
from stream.events import Interaction, Item, User
from testing.redis_server import redis_server

NOON = 1_760_000_000_000
DOMAINS = ["shop", "news"]


@pytest.fixture(params=["sqlite", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield "sqlite"
        return
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server is installed")
    with redis_server(tmp_path) as (server, _):
        yield server


@pytest.fixture
def store(address: str, tmp_path: Path) -> Iterator[OnlineStore]:
    opened = open_store(tmp_path / "feast", address, DOMAINS)
    yield opened
    opened.close()


def state(*items: str) -> Activity:
    events = [
        Interaction(event_id=f"{n}{item}", user_id="ann", item_id=item, kind="view", at=NOON + n, category="é")
        for n, item in enumerate(items)
    ]
    return apply(None, [LoggedEvent(event, "events/0", n) for n, event in enumerate(events)], FoldSettings())


def test_what_is_written_is_read(store: OnlineStore) -> None:
    rows = {("shop", "ann"): state("a", "b"), ("news", "ann"): state("c"), ("shop", "bob/ö"): state("d")}
    store.write_activities(rows)
    states = store.read_activities([*rows, ("shop", "nobody")])
    assert states == rows
    assert store.read_activity("news", "ann") == rows["news", "ann"]
    assert store.read_activity("shop", "nobody") is None


def test_the_newest_write_counts(store: OnlineStore) -> None:
    for number in range(5):
        store.write_activities({("shop", "ann"): state(str(number))})
        ann = store.read_activity("shop", "ann")
        assert ann is not None
        assert ann.recent.items == [str(number)]


def test_more_rows_than_one_read_takes(store: OnlineStore) -> None:
    rows = {("shop", f"u{number}"): state(str(number)) for number in range(150)}
    store.write_activities(rows)
    assert store.read_activities(rows) == rows


def test_profiles_items_and_popularity(store: OnlineStore) -> None:
    user = ProfileRow(user_id="ann", at=NOON, segment="old", attributes={"age": 40})
    item = ItemRow(item_id="tea", at=NOON, title="Tea", category="drinks", available=False)
    row = PartitionPopularity(7, [1, -2], domains={"shop": DomainPopularity("rules", 3, {"": {"tea": 1.5}})})
    store.write_profiles([user])
    store.write_items([item, msgspec.structs.replace(item, domain="news", title="News of tea")])
    store.write_popularity({"events/0": row})
    assert store.read_profile("shop", "ann") == user.record()
    assert store.read_profile("news", "ann") is None
    assert store.read_item("shop", "tea") == item.record()
    assert store.read_popularity(["events/0", "events/1"]) == {"events/0": row}


def test_rows_keep_the_clocks_of_their_fields(store: OnlineStore) -> None:
    item = item_row(Item("tea", NOON, title="Tea", attributes={"brand": "House", "old": None}), 7)
    user = profile_row(User("ann", NOON, attributes=None), 8)
    store.write_items([item])
    store.write_profiles([user])
    assert store.read_item_rows([("shop", "tea"), ("shop", "cup")]) == {("shop", "tea"): item}
    assert store.read_profile_rows([("shop", "ann"), ("news", "ann")]) == {("shop", "ann"): user}
    assert item.attribute_clocks == {"brand": (NOON, 7), "old": (NOON, 7)}
    store.write_positions({"items/0": 0, "users/0": 8})
    assert store.read_positions(["items/0", "items/1", "users/0"]) == {"items/0": 0, "users/0": 8}


def test_a_damaged_row_is_named_with_its_cure(store: OnlineStore) -> None:
    record = {"record": Value(string_val='{"type": "item", "item_id": ')}
    store._write("shop_item", "item_id", [("tea", record)])
    with pytest.raises(StoreError, match=r"'tea' in shop_item is damaged .* features rebuild"):
        store.read_item("shop", "tea")


def test_typed_features_of_a_written_state(store: OnlineStore) -> None:
    store.write_activities({("shop", "ann"): state("a", "b")})
    features = [f"shop_activity_features:{name}" for name in ("recent_items", "kind_counts", "categories", "last_seen")]
    rows = store.feast.get_online_features(features, [{"user_id": "ann"}, {"user_id": "nobody"}]).to_dict()
    assert rows == {
        "user_id": ["ann", "nobody"],
        "recent_items": [["a", "b"], None],
        "kind_counts": [[2], None],
        "categories": [["é"], None],
        "last_seen": [NOON + 1, None],
    }


def test_a_deleted_profile_is_gone_and_others_stay(store: OnlineStore) -> None:
    store.write_profiles([ProfileRow(user_id="ann", at=NOON, segment="old"), ProfileRow(user_id="bob", at=NOON)])
    store.delete_profiles([("shop", "ann"), ("shop", "nobody")])
    assert store.read_profile("shop", "ann") is None
    assert store.read_profile("shop", "bob") is not None


def test_a_second_process_sees_the_writes_of_the_first(store: OnlineStore, address: str, tmp_path: Path) -> None:
    other = open_store(tmp_path / "feast", address, DOMAINS)
    store.write_activities({("shop", "ann"): state("a")})
    assert other.read_activity("shop", "ann") == state("a")
    other.close()


def test_a_domain_may_be_added_later(store: OnlineStore, address: str, tmp_path: Path) -> None:
    store.write_activities({("shop", "ann"): state("a")})
    store.close()
    wider = open_store(tmp_path / "feast", address, ["shop", "music"])
    wider.write_activities({("music", "ann"): state("song")})
    assert wider.read_activity("shop", "ann") == state("a")
    assert set(wider.domains) == {"shop", "news", "music"}
    wider.close()


def test_a_domain_that_is_not_there_is_named(store: OnlineStore) -> None:
    with pytest.raises(FeatureError, match="no feature view garden_activity; the domains of this system are"):
        store.read_activity("garden", "ann")


def test_a_rebuild_gives_the_same_bytes_as_the_live_fold(store: OnlineStore, address: str, tmp_path: Path) -> None:
    log = [
        LoggedEvent(
            Interaction(
                event_id=f"e{n % 90}", user_id=f"u{n % 7}", item_id=f"i{n % 11}", kind="view", at=NOON + n * 997
            ),
            "events/0",
            n * 2,
        )
        for n in range(100)
    ]
    live: dict[tuple[str, str], Activity] = {}
    for entry in log:
        key = (entry.event.domain, entry.event.user_id)
        live[key] = apply(live.get(key), [entry], FoldSettings())
    store.write_activities(live)
    again = open_store(tmp_path / "again", "sqlite", DOMAINS)
    report = rebuild({"events/0": log}, again, FoldSettings(), ends={"events/0": 250})
    assert (report.events, report.users, report.positions) == (100, 7, {"events/0": 250})
    assert differing_keys(store, again, live) == []
    again.write_activities({("shop", "u3"): state("x")})
    assert differing_keys(store, again, live) == [("shop", "u3")]
    again.close()


def test_a_store_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not answer"):
        open_store(tmp_path, "redis://127.0.0.1:1", DOMAINS)
    with pytest.raises(FeatureError, match="give sqlite or redis"):
        open_store(tmp_path, "mysql://", DOMAINS)
