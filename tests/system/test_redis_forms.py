"""The online store on Redis in its other forms, real ones: with TLS, behind a Sentinel, as a cluster."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.activity import Activity
from features.catalogue import ItemRow, ProfileRow
from features.errors import StoreError
from features.popularity import PartitionPopularity
from features.redis_rows import RedisRows
from features.store import OnlineStore, open_store
from serving.commands.system_checks import check_store
from serving.settings import validate
from testing.redis_server import redis_cluster, redis_sentinel, redis_server, redis_with_tls
from testing.waiting import wait_until

PASSWORD = "k8-Wal_nuss"
USERS = [("shop", f"u{number}") for number in range(40)]
pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server is installed")


@pytest.fixture(scope="module", params=["tls", "sentinel", "cluster"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The setting `store` of a Redis in one of its forms."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "tls":
        with redis_with_tls(folder, PASSWORD) as (server, certificate):
            yield f"rediss://:{PASSWORD}@{server}?ssl_ca_certs={certificate}"
    elif request.param == "sentinel":
        with redis_sentinel(folder, PASSWORD) as (sentinel, _):
            yield f"redis+sentinel://:{PASSWORD}@{sentinel}/main"
    else:
        with redis_cluster(folder) as servers:
            yield f"redis+cluster://{servers}"


def write_all(store: OnlineStore) -> None:
    """A row or more in every view."""
    store.write_activities({key: Activity() for key in USERS})
    store.write_items([ItemRow(item_id=f"i{number}", at=5, title="Tea") for number in range(40)])
    store.write_profiles([ProfileRow(user_id="u1", at=5, segment="old")])
    store.write_popularity({"events/0": PartitionPopularity(7)})
    store.write_positions({"items/0": 3})


def holds_all(store: OnlineStore) -> bool:
    return (
        store.read_activities(USERS) == dict.fromkeys(USERS, Activity())
        and len(store.read_items([("shop", f"i{number}") for number in range(50)])) == 40
        and getattr(store.read_profile("shop", "u1"), "segment", None) == "old"
        and store.read_popularity(["events/0"]) == {"events/0": PartitionPopularity(7)}
        and store.read_positions(["items/0"]) == {"items/0": 3}
    )


def test_every_view_is_written_read_and_switched_to_a_rebuild(address: str, tmp_path: Path) -> None:
    store = open_store(tmp_path / "feast", address, ["shop"])
    rows = RedisRows.at(address)
    before = rows.present()
    write_all(store)
    assert holds_all(store)
    rebuilt = open_store(tmp_path / "feast", address, ["shop"], before + 1)
    assert not holds_all(rebuilt)
    write_all(rebuilt)
    rows.switch(before + 1)
    assert rows.delete_others() == len(USERS) + 40 + 2  # u1 has activity and profile in one key of Redis
    with pytest.raises(StoreError, match="was rebuilt while this process runs"):
        store.ping()
    assert not store.read_activities(USERS)
    assert holds_all(open_store(tmp_path / "feast", address, ["shop"]))
    (finding,) = check_store(validate({"store": address, "state": str(tmp_path)}))
    assert (finding.state, PASSWORD in finding.detail) == ("ok", False)
    rows.close()


def test_a_store_goes_on_with_the_master_after_a_failover(tmp_path: Path) -> None:
    with redis_sentinel(tmp_path, PASSWORD) as (sentinel, master):
        store = open_store(tmp_path / "feast", f"redis+sentinel://:{PASSWORD}@{sentinel}/main", ["shop"])
        write_all(store)
        client = store._online._get_client(store._config.online_store)
        assert client.wait(1, 20_000) == 1  # the replica has them, too
        master.kill()
        wait_until(lambda: goes_on(store), 120, "the store goes on")


def goes_on(store: OnlineStore) -> bool:
    try:
        whole = holds_all(store)
        store.write_positions({"items/0": 3})
    except StoreError:
        return False
    assert whole
    return True


def refusal(store: str, folder: Path) -> str:
    with pytest.raises(StoreError) as refused:
        open_store(folder, store, ["shop"])
    return str(refused.value)


def test_what_does_not_fit_the_form_is_said(tmp_path: Path) -> None:
    with redis_with_tls(tmp_path, PASSWORD) as (server, _):
        assert "give the certificate of its authority" in refusal(f"rediss://:{PASSWORD}@{server}", tmp_path)
        assert "does not answer" in refusal(f"redis://:{PASSWORD}@{server}", tmp_path)
    with redis_server(tmp_path) as (plain, _):
        assert "it is no cluster" in refusal(plain.replace("redis:", "redis+cluster:"), tmp_path)
    with redis_sentinel(tmp_path, PASSWORD) as (sentinel, _):
        assert "correct the name of the master" in refusal(f"redis+sentinel://:{PASSWORD}@{sentinel}/other", tmp_path)


def test_one_server_of_a_cluster_is_no_store(tmp_path: Path) -> None:
    with redis_cluster(tmp_path) as servers:
        for server in servers.split(","):
            with pytest.raises(StoreError, match=r"it is a cluster: write redis\+cluster://"):
                write_all(open_store(tmp_path / server, f"redis://{server}", ["shop"]))
