"""The `feast` command opens what a running system wrote: feature_store.yaml and the registry."""

import subprocess
import sys
from pathlib import Path

import pytest

from features.store import open_store


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state") / "feast"
    open_store(folder, "sqlite", ["shop"]).close()
    return folder


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (
            "feature-views",
            {
                "shop_activity",
                "shop_activity_features",
                "shop_profile",
                "shop_item",
                "popularity",
                "positions",
                "log_marks",
            },
        ),
        ("entities", {"user", "item", "partition"}),
        ("feature-services", {"shop"}),
    ],
)
def test_the_feast_command_lists_what_the_system_defined(repository: Path, listed: str, names: set[str]) -> None:
    command = Path(sys.executable).with_name("feast")
    run = subprocess.run(
        [command, "-c", repository, listed, "list"], capture_output=True, text=True, check=True, timeout=120
    )
    header, *rows = run.stdout.strip().splitlines()
    assert header.startswith("NAME")
    assert {row.split()[0] for row in rows} == names


def test_a_redis_store_is_named_in_the_file(repository: Path) -> None:
    from features.online_config import online_config
    from features.redis_rows import project_of
    from features.store import _repository

    written = _repository(project_of(3), online_config("redis://redis.example:6380/2"))
    assert b"connection_string: redis.example:6380,db=2," in written
    assert b"project: coldstream_3\n" in written
    assert b"path: online.db" in (repository / "feature_store.yaml").read_bytes()
