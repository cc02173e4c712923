"""`/readyz` names the release that is used instead of a damaged one, and why."""

import asyncio

import pytest
from litestar.testing import TestClient

from serving.http.operations import readiness_reply
from serving.http.readiness import substitutes
from serving.http.service import Service
from testing.lookups import write_release

ITEMS = ["a", "b", "c"]
NEAR = {"a": [("b", 1.0)]}


@pytest.fixture
def releases(service: Service) -> list[str]:
    """Two releases of the shop, of which the newer one is promoted."""
    return [write_release(service.releases.root, ITEMS, NEAR) for _ in range(2)]


def damage(service: Service, release: str) -> None:
    (service.releases.root / "shop" / release / "items.json").write_text("[]")


def test_nothing_is_said_of_whole_releases(service: Service, releases: list[str]) -> None:
    asyncio.run(service.releases.check())
    assert service.domains["shop"].serving_id == releases[1]
    assert substitutes(service) == {}
    assert readiness_reply({}, substitutes(service))[2] == b'{"status": "ready", "missing": {}}'


def test_the_release_before_serves_instead_and_is_named(
    client: TestClient, service: Service, releases: list[str]
) -> None:
    damage(service, releases[1])
    asyncio.run(service.releases.check())
    replaced = client.get("/readyz").json()["substitutes"]
    assert list(replaced) == ["shop"]
    assert replaced["shop"].startswith(f"release {releases[0]} serves instead of the current release (hash-mismatch): ")
    assert releases[1] in replaced["shop"]


def test_popularity_serves_where_no_release_is_whole(service: Service, releases: list[str]) -> None:
    for release in releases:
        damage(service, release)
    asyncio.run(service.releases.check())
    assert substitutes(service)["shop"].startswith("popularity serves instead of the current release (hash-mismatch)")


def test_a_damaged_pointer_has_a_substitute_too(service: Service, releases: list[str]) -> None:
    (service.releases.root / "shop" / "current.json").write_bytes(b"\xff{")
    asyncio.run(service.releases.check())
    assert f"release {releases[1]} serves instead of the current release (bad-pointer)" in substitutes(service)["shop"]
