"""Profiles and moments on a look-up: from Feast's store and the request's time to another list."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.catalogue import ProfileRow, UserProfile
from features.store import OnlineStore, open_store
from models.data.profiles import Profile
from models.releases import release_store
from models.releases.release import Release
from serving.catalogue.domain_state import DomainState
from serving.recommend.request import LookupRequest
from serving.recommend.worker import Lookups
from testing.encoders import fit_on_tastes, save_and_load
from testing.interactions import MONDAY, OLD, SATURDAY, YOUNG
from testing.lookups import SHOP, domain_state, ids, look_up, serve, state_of, write_release

TEA = state_of(("view", "tea"))
ASK = LookupRequest("shop", 1, exclude_seen=True)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return save_and_load(fit_on_tastes("profile", profile=True), tmp_path_factory.mktemp("releases"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OnlineStore]:
    opened = open_store(tmp_path / "feast", "sqlite", ["shop"])
    opened.write_activities({("shop", user): TEA for user in ("ann", "bob", "eve")})
    opened.write_profiles([ProfileRow("ann", 1, attributes=YOUNG), ProfileRow("bob", 1, attributes=OLD)])
    yield opened
    opened.close()


def first_of(state: DomainState, store: OnlineStore, *users: str | Profile) -> list[str]:
    """The first item for users by name, and for visitors who say what they are."""

    async def go() -> list[str]:
        lookups = Lookups({"shop": state})
        lookups.store = store
        lookups.start()
        encoded = [
            await (lookups.of_user(user, ASK) if isinstance(user, str) else lookups.of_visitor(TEA, ASK, user))
            for user in users
        ]
        await lookups.stop()
        return [each.answer.items[0].item_id for each in encoded]

    return asyncio.run(go())


def test_the_newest_profile_is_in_the_next_answer(release: Release, store: OnlineStore) -> None:
    state = domain_state(SHOP)
    serve(state, release)
    assert first_of(state, store, "ann", "bob", YOUNG, OLD) == ["a", "b", "a", "b"]
    assert first_of(state, store, "eve")[0] in {"a", "b"}  # of whom nothing is known
    store.write_profiles([ProfileRow("ann", 2, attributes=OLD)])
    store.delete_profiles([("shop", "bob")])
    store.write_activities({("shop", "bob"): TEA})
    assert first_of(state, store, "ann") == ["b"]
    assert store.read_profiles([("shop", "ann"), ("shop", "bob")]) == {
        ("shop", "ann"): UserProfile("ann", 2, attributes=OLD)
    }
    assert first_of(state, store, "bob") == first_of(state, store, "eve")


def test_a_release_that_is_tried_out_has_the_profile_too(release: Release, tmp_path: Path) -> None:
    write_release(tmp_path, ["tea", "a", "b"], {"tea": [("b", 1.0)]})
    current = release_store.current_id(tmp_path, "shop")
    state = domain_state(SHOP)
    serve(state, release_store.load(tmp_path / "shop" / str(current)))
    assert not state.reads_profiles
    with state.loading(serve=False) as loading:
        loading.prepare(release)
    assert state.reads_profiles


def test_the_request_s_moment_is_part_of_the_question(tmp_path: Path) -> None:
    state = domain_state(SHOP)
    serve(state, save_and_load(fit_on_tastes("moment", context=True), tmp_path))
    for at, expected in ((MONDAY + 5_000, "a"), (SATURDAY + 5_000, "b"), (MONDAY + 5_000, "a")):
        assert ids(look_up(state, TEA, ASK, user_id=None, now_ms=at))[0] == expected
