"""Look-ups while something is tried out, on a real store: who answers, and what a release that fails costs."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from features.activity import Activity, History
from features.catalogue import CatalogueEntry
from features.store import OnlineStore, open_store
from models.arrays import Float32
from models.releases import release_store
from models.releases.arms import Arm, Role, includes
from models.releases.manifest import ITEM_KNN
from models.releases.release import Release
from serving.catalogue.domain import Domain
from serving.catalogue.domain_state import DomainState, LoadedRelease
from serving.catalogue.items import ReleaseItems
from serving.catalogue.release_view import ReleaseView
from serving.recommend.answer import Answer
from serving.recommend.request import LookupRequest
from serving.recommend.shadow import Shadow, overlap
from serving.recommend.worker import Lookups
from serving.rollout.arms import ActiveRollout, ArmCounters, LoadedArm
from testing.lookups import ids
from testing.random_release import write_random_release

USERS = [f"u{number}" for number in range(60)]
ARM = Arm("", 0.5, 0, "salt")


class FailingRelease(Release):
    """A release that loads and then fails at every look-up."""

    def scores(self, batch: Sequence[History], contexts: Sequence[object] = ()) -> Float32:
        raise RuntimeError("this release fails")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> OnlineStore:
    opened = open_store(tmp_path_factory.mktemp("feast"), "sqlite", ("shop",))
    now = int(time.time() * 1000)
    row = Activity(recent=History(["i1"], [0], [now], [None]))
    opened.write_activities({("shop", user): row for user in USERS})
    return opened


@pytest.fixture
def state(tmp_path: Path) -> DomainState:
    """A domain with a release that serves, and another in memory that is tried out."""
    state = DomainState(Domain())
    rng = np.random.default_rng(0)
    for serve in (True, False):
        loaded = release_store.load(tmp_path / "shop" / write_random_release(tmp_path, 40, ITEM_KNN, rng))
        with state.loading(serve=serve) as loading:
            loading.prepare(loaded)
    return state


def loaded_arm(role: Role, loaded: LoadedRelease) -> LoadedArm:
    return LoadedArm(Arm(loaded.id, ARM.share, 0, ARM.salt), loaded, ArmCounters("shop", role))


def failing(state: DomainState) -> LoadedRelease:
    view = state.arms[0].view
    good = view.release
    arrays = {"popularity": good.popularity, "neighbors": good.neighbors[0], "similarities": good.neighbors[1]}
    release = FailingRelease(good.manifest, good.recommender, arrays)
    items = ReleaseItems(release, {}, state.domain.category_codes)
    return LoadedRelease(ReleaseView(state.domain, release=release, items=items))


def answers_of_all(
    state: DomainState,
    store: OnlineStore,
    rollout: ActiveRollout,
    shadow: Shadow | None = None,
    until: Callable[[], bool] = lambda: True,
) -> dict[str, Answer]:
    """The answers of all users; ends when `until` is true, or after 30 s."""

    async def go() -> dict[str, Answer]:
        lookups = Lookups({"shop": state}, {"shop": rollout})
        lookups.store, lookups.shadow = store, shadow
        lookups.start()
        if shadow is not None:
            shadow.start()
        encoded = await asyncio.gather(*(lookups.of_user(user, LookupRequest("shop", 5)) for user in USERS))
        end = time.monotonic() + 30
        while not until() and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await lookups.stop()
        if shadow is not None:
            await shadow.stop()
        return dict(zip(USERS, [each.answer for each in encoded], strict=True))

    return asyncio.run(go())


def test_a_canary_answers_its_share_and_follows_the_catalogue(state: DomainState, store: OnlineStore) -> None:
    canary = loaded_arm("canary", state.arms[0])
    rollout = ActiveRollout("shop", canary, None)
    mine = {user for user in USERS if includes(ARM, user)}
    assert 15 < len(mine) < 45
    answers = answers_of_all(state, store, rollout)
    assert {user for user, answer in answers.items() if answer.release == canary.arm.release} == mine
    assert (canary.counters.answers, canary.counters.errors) == (len(mine), 0)
    assert rollout.control.answers == len(USERS) - len(mine)
    first = next(iter(mine))
    gone = answers[first].items[0].item_id
    state.put_items([CatalogueEntry(item_id=gone, at=1, available=False)])
    assert gone not in ids(answers_of_all(state, store, rollout)[first])


def test_a_canary_that_fails_costs_no_answer(state: DomainState, store: OnlineStore) -> None:
    canary = loaded_arm("canary", failing(state))
    rollout = ActiveRollout("shop", canary, None)
    answers = answers_of_all(state, store, rollout)
    assert {answer.release for answer in answers.values()} == {state.serving_id}
    assert all(answer.reason == "personal" for answer in answers.values())
    mine = sum(includes(ARM, user) for user in USERS)
    assert (canary.counters.answers, canary.counters.errors) == (mine, mine)
    assert rollout.control.errors == 0


def test_a_shadow_that_fails_is_counted_and_nobody_sees_it(
    state: DomainState, store: OnlineStore, tmp_path: Path
) -> None:
    shadow, arm = Shadow(tmp_path / "shadow", 1_000), loaded_arm("shadow", failing(state))
    rollout = ActiveRollout("shop", None, arm)
    answers = answers_of_all(state, store, rollout, shadow, lambda: arm.counters.answers > 0)
    assert {answer.release for answer in answers.values()} == {state.serving_id}
    assert arm.counters.errors > 0
    assert not (tmp_path / "shadow" / "shop.jsonl").exists()


def test_overlap() -> None:
    assert overlap(["a", "b"], ["b", "c"]) == 0.5
    assert overlap(["a"], ["a", "b", "c", "d"]) == 0.25
    assert overlap(list("abcdefghijkl"), list("abcdefghijxy")) == 1.0
    assert overlap([], []) == 1.0
