"""Profiles and moments on a look-up: from Feast's store and the request's time to another list."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.store import OnlineStore, open_store
from models.data.profiles import Attributes
from models.releases import release_store
from models.releases.release import Release
from serving.catalogue.domain import Domain
from serving.recommend.pipeline import Ask, best, query, score
from serving.recommend.worker import Lookups
from stream.events import User
from testing.encoders import fit_on_tastes, save_and_load
from testing.interactions import MONDAY, OLD, SATURDAY, YOUNG
from testing.lookups import SHOP, serve, state_of, write_release

TEA = state_of(("view", "tea"))
ASK = Ask("shop", 1, exclude_seen=True)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return save_and_load(fit_on_tastes("profile", profile=True), tmp_path_factory.mktemp("releases"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OnlineStore]:
    opened = open_store(tmp_path / "feast", "sqlite", ["shop"])
    opened.write_activities({("shop", user): TEA for user in ("ann", "bob", "eve")})
    opened.write_profiles([User("ann", 1, attributes=YOUNG), User("bob", 1, attributes=OLD)])
    yield opened
    opened.close()


def first_of(domain: Domain, store: OnlineStore, *asked: str | Attributes) -> list[str]:
    """The first item for users by name, and for visitors who say what they are."""

    async def go() -> list[str]:
        lookups = Lookups({"shop": domain})
        lookups.store = store
        lookups.start()
        found = [
            await (lookups.of_user(one, ASK) if isinstance(one, str) else lookups.of_state(TEA, ASK, one))
            for one in asked
        ]
        await lookups.stop()
        return [one.answer.items[0].item_id for one in found]

    return asyncio.run(go())


def test_the_newest_profile_is_in_the_next_answer(release: Release, store: OnlineStore) -> None:
    domain = Domain(SHOP)
    serve(domain, release)
    assert first_of(domain, store, "ann", "bob", YOUNG, OLD) == ["a", "b", "a", "b"]
    assert first_of(domain, store, "eve")[0] in {"a", "b"}  # of whom nothing is known
    store.write_profiles([User("ann", 2, attributes=OLD)])
    store.delete_user("shop", "bob")
    store.write_activities({("shop", "bob"): TEA})
    assert first_of(domain, store, "ann") == ["b"]
    assert store.read_profiles([("shop", "ann"), ("shop", "bob")]) == {("shop", "ann"): User("ann", 2, attributes=OLD)}
    assert first_of(domain, store, "bob") == first_of(domain, store, "eve")


def test_a_release_that_is_tried_out_has_the_profile_too(release: Release, tmp_path: Path) -> None:
    write_release(tmp_path, ["tea", "a", "b"], {"tea": [("b", 1.0)]})
    current = release_store.current_id(tmp_path, "shop")
    domain = Domain(SHOP)
    serve(domain, release_store.load(tmp_path / "shop" / str(current)))
    assert not domain.reads_profiles
    domain.begin()
    domain.adopt(domain.align(release), serve=False)
    assert domain.reads_profiles


def test_the_request_s_moment_is_part_of_the_question(tmp_path: Path) -> None:
    domain = Domain(SHOP)
    serve(domain, save_and_load(fit_on_tastes("moment", context=True), tmp_path))
    assert domain.aligned is not None
    for at, wanted in ((MONDAY + 5_000, "a"), (SATURDAY + 5_000, "b"), (MONDAY + 5_000, "a")):
        one = query(TEA, ASK, domain.habits, at)
        assert best(domain.aligned, [one], score(domain.aligned, [one]))[0][0][0] == wanted
