"""An online store that was deleted, cut or overwritten is refused with its cure."""

from collections.abc import Callable
from pathlib import Path

import pytest

from features.activity import Activity
from features.errors import StoreDamagedError, StoreError
from features.store import DATABASE, open_store
from serving.commands.system_checks import check_store
from serving.settings import read


def deleted(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def half_overwritten(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xa5" * (len(content) - len(content) // 2))


def header_overwritten(path: Path) -> None:
    path.write_bytes(b"\xa5" * 4096 + path.read_bytes()[4096:])


@pytest.mark.parametrize("damage", [deleted, emptied, cut, half_overwritten, header_overwritten])
def test_a_damaged_database_is_refused_with_its_cure(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    folder = tmp_path / "feast"
    store = open_store(folder, "sqlite", ["shop"])
    store.write_activities({("shop", f"u{number}"): Activity() for number in range(500)})
    store.close()
    open_store(folder, "sqlite", ["shop", "news"]).close()  # a whole one opens again, with a further domain
    damage(folder / DATABASE)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"online store .*online.db .*run `coldstream features rebuild`"):
            open_store(folder, "sqlite", ["shop", "news"])
    (finding,) = check_store(read(flags={"state": str(tmp_path)}))
    assert finding.state == "fail"
    assert "coldstream features rebuild" in finding.detail


def test_damage_while_running_names_the_cure(tmp_path: Path) -> None:
    store = open_store(tmp_path, "sqlite", ["shop"])
    connection = store._online._get_conn(store.feast.config)
    connection.execute("drop table coldstream_shop_activity")
    with pytest.raises(StoreError, match=r"is damaged \(no such table: .* run `coldstream features rebuild`"):
        store.read_activity("shop", "ann")


def test_a_file_deleted_or_replaced_while_open_is_noticed(tmp_path: Path) -> None:
    store = open_store(tmp_path, "sqlite", ["shop"])
    store.ping()
    content = (tmp_path / DATABASE).read_bytes()
    (tmp_path / DATABASE).unlink()
    with pytest.raises(
        StoreDamagedError, match="was deleted while the system runs; stop the system and run `coldstrea"
    ):
        store.ping()
    (tmp_path / DATABASE).write_bytes(content)
    with pytest.raises(StoreDamagedError, match="was replaced while the system runs; restart"):
        store.ping()


@pytest.mark.parametrize("content", [b"\x80{", b'{"v":', b"[1]", b"\xff\xff"])
def test_a_row_whose_content_is_damaged_names_the_cure(tmp_path: Path, content: bytes) -> None:
    store = open_store(tmp_path, "sqlite", ["shop"])
    store.write_activities({("shop", "ann"): Activity()})
    connection = store._online._get_conn(store.feast.config)
    (value,) = connection.execute("select value from coldstream_shop_activity").fetchone()
    damaged = content if content[0] == 0xFF else value[:2] + content + value[2 + len(content) :]
    connection.execute("update coldstream_shop_activity set value = ?", (damaged,))
    connection.commit()
    with pytest.raises(StoreDamagedError, match=r"row .* is damaged .* run `coldstream features rebuild`"):
        store.read_activity("shop", "ann")
    with pytest.raises(StoreDamagedError):
        store.read_activities([("shop", "ann")])
