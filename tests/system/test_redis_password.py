"""The online store on a Redis that wants a password: it opens with the right one, and nothing shows it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.commands.system_checks import check_store
from serving.settings import validate
from testing.redis_server import redis_server

PASSWORD = "k8-Wal_nuss"
pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server is installed")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with redis_server(tmp_path, password=PASSWORD) as (store, _):
        yield store.removeprefix("redis://")


def test_the_password_opens_the_store_and_is_never_shown(address: str, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    (finding,) = check_store(validate({"store": f"redis://:{PASSWORD}@{address}", "state": state}))
    assert (finding.state, finding.detail) == ("ok", f"redis://:********@{address}")


@pytest.mark.parametrize("login", ["", ":wrong-Pass@"])
def test_without_the_right_password_the_store_does_not_open(address: str, tmp_path: Path, login: str) -> None:
    settings = validate({"store": f"redis://{login}{address}", "state": str(tmp_path / "state")})
    (finding,) = check_store(settings)
    assert finding.state == "fail"
    assert "correct its address and password in store" in finding.cure
    assert "wrong-Pass" not in finding.detail + finding.cure
