"""The name of a consumer process in its groups: stable over restarts, unique among live processes."""

from pathlib import Path

import pytest

from serving.consume.forwarding import UNNOTICED_S, Forwarder
from serving.consume.membership import NAME, Instance
from serving.errors import InstanceError
from serving.settings import Settings, read


def settings(state: Path, **flags: object) -> Settings:
    return read(flags={"state": str(state), **flags}, environment={})


def test_live_processes_of_a_state_folder_have_names_of_their_own(tmp_path: Path) -> None:
    first, second = Instance(settings(tmp_path)), Instance(settings(tmp_path))
    other = Instance(settings(tmp_path / "other"))
    assert len({first.name, second.name, other.name}) == 3
    assert all(NAME.fullmatch(name) for name in (first.name, second.name, other.name))
    first.release()
    assert Instance(settings(tmp_path)).name == first.name  # as after kill -9: the lock ends with its process


def test_a_name_that_is_in_use_is_refused(tmp_path: Path) -> None:
    named = settings(tmp_path, consumer_id="shop.consumer-1")
    first = Instance(named)
    assert first.name == "shop.consumer-1"
    with pytest.raises(InstanceError, match=r"another consumer with consumer_id='shop\.consumer-1' is running"):
        Instance(named)
    first.release()
    assert Instance(named).name == first.name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a" * 201])
def test_a_name_that_kafka_does_not_take_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InstanceError, match="is not a name"):
        Instance(settings(tmp_path, consumer_id=name))


def test_a_member_joins_again_where_nobody_notices_added_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("serving.consume.forwarding.time.monotonic", lambda: now[0])
    forwarder = Forwarder("127.0.0.1:1", {})
    assert not forwarder.should_rejoin(6), "nothing is assigned yet"
    forwarder._on_count(4)
    assert not forwarder.should_rejoin(4)
    before = forwarder.assignor().metadata(["events"])
    assert not forwarder.should_rejoin(6)
    now[0] += UNNOTICED_S + 1
    assert forwarder.should_rejoin(6)
    assert forwarder.assignor().metadata(["events"]) != before
    assert not forwarder.should_rejoin(6), "the others need time to join"
    forwarder._on_count(6)
    assert not forwarder.should_rejoin(6)
