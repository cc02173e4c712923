"""The cache of users' rows against a real store: what it reads, what it keeps, and what a failed write leaves."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from features.activity import Activity, FoldSettings, LoggedEvent
from features.errors import StoreError
from features.store import OnlineStore, UserKey, open_store
from serving.consume.activity_cache import ActivityCache
from stream.events import Interaction

NOON = 1_760_000_000_000
SETTINGS = FoldSettings()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OnlineStore]:
    opened = open_store(tmp_path / "feast", "sqlite", ["shop"])
    yield opened
    opened.close()


@pytest.fixture
def reads(store: OnlineStore, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The users of every read of the store, one list per read."""
    users: list[list[str]] = []
    read = store.read_activities

    def counted(keys: Iterable[UserKey]) -> dict[UserKey, Activity]:
        keys = list(keys)
        users.append([user for _, user in keys])
        return read(keys)

    monkeypatch.setattr(store, "read_activities", counted)
    return users


def view(user: str, item: str, offset: int) -> LoggedEvent:
    event = Interaction(event_id=f"e{offset}", user_id=user, item_id=item, kind="view", at=NOON + offset)
    return LoggedEvent(event, "events/0", offset)


def test_fold_returns_the_rows_that_the_store_then_holds(store: OnlineStore) -> None:
    cache = ActivityCache(store, capacity=10)

    rows = cache.fold([view("ann", "x", 0), view("bob", "y", 1), view("ann", "z", 2)], SETTINGS)

    assert {user: row.recent.items for (_, user), row in rows.items()} == {"ann": ["x", "z"], "bob": ["y"]}
    assert store.read_activities(rows) == rows


def test_a_cached_row_is_not_read_from_the_store_again(store: OnlineStore, reads: list[list[str]]) -> None:
    cache = ActivityCache(store, capacity=10)
    cache.fold([view("ann", "x", 0)], SETTINGS)

    rows = cache.fold([view("ann", "y", 1), view("bob", "z", 2)], SETTINGS)

    assert reads == [["ann"], ["bob"]]
    assert rows["shop", "ann"].recent.items == ["x", "y"]


def test_the_least_recently_used_row_leaves_first(store: OnlineStore, reads: list[list[str]]) -> None:
    cache = ActivityCache(store, capacity=2)
    for offset, user in enumerate(["ann", "bob", "ann", "cid"]):
        cache.fold([view(user, f"i{offset}", offset)], SETTINGS)
    reads.clear()

    cache.fold([view("ann", "x", 4)], SETTINGS)
    rows = cache.fold([view("bob", "y", 5)], SETTINGS)

    assert reads == [["bob"]]
    assert rows["shop", "bob"].recent.items == ["i1", "y"]


def test_drop_removes_the_given_rows_or_all(store: OnlineStore, reads: list[list[str]]) -> None:
    cache = ActivityCache(store, capacity=10)
    cache.fold([view("ann", "x", 0), view("bob", "x", 1)], SETTINGS)
    reads.clear()

    cache.drop([("shop", "ann"), ("shop", "nobody")])
    cache.fold([view("ann", "y", 2), view("bob", "y", 3)], SETTINGS)
    cache.drop()
    cache.fold([view("ann", "z", 4), view("bob", "z", 5)], SETTINGS)

    assert reads == [["ann"], ["ann", "bob"]]


def test_drop_of_no_keys_keeps_every_row(store: OnlineStore, reads: list[list[str]]) -> None:
    cache = ActivityCache(store, capacity=10)
    cache.fold([view("ann", "x", 0)], SETTINGS)

    cache.drop([])
    cache.fold([view("ann", "y", 1)], SETTINGS)

    assert reads == [["ann"]]


def test_after_a_failed_write_the_next_fold_starts_from_the_store(
    store: OnlineStore, reads: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ActivityCache(store, capacity=10)
    cache.fold([view("ann", "x", 0)], SETTINGS)

    def fail(rows: Mapping[UserKey, Activity]) -> dict[UserKey, bytes]:
        raise StoreError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_activities", fail)
        with pytest.raises(StoreError):
            cache.fold([view("ann", "y", 1)], SETTINGS)
    rows = cache.fold([view("ann", "y", 1)], SETTINGS)

    assert reads == [["ann"], ["ann"]]
    assert rows["shop", "ann"].recent.items == ["x", "y"]
    assert rows["shop", "ann"].summary.totals == {"view": 2}
