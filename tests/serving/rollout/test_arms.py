"""Look-ups while something is tried out, on a real store: who answers, and what a release that fails costs."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from features.activity import Activity, History
from features.store import OnlineStore, open_store
from models.arrays import Float32
from models.releases import release_store
from models.releases.arms import Arm, includes
from models.releases.manifest import ITEM_KNN
from models.releases.release import Release
from serving.catalogue.domain import Aligned, Domain
from serving.recommend.pipeline import Answer, Ask
from serving.recommend.shadow import Shadow, overlap
from serving.recommend.worker import Lookups
from serving.rollout.arms import Beside, Trial, Tried
from stream.events import Item
from testing.random_release import write_random_release

USERS = [f"u{one}" for one in range(60)]
ARM = Arm("", 0.5, 0, "salt")


class Failing(Release):
    """A release that loads and then fails whenever it is asked."""

    def scores(self, batch: object) -> Float32:
        raise RuntimeError("this release fails")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> OnlineStore:
    opened = open_store(tmp_path_factory.mktemp("feast"), "sqlite", ("shop",))
    now = int(time.time() * 1000)
    row = Activity(recent=History(["i1"], [0], [now], [None]))
    opened.write_activities({("shop", user): row for user in USERS})
    return opened


@pytest.fixture
def domain(tmp_path: Path) -> Domain:
    """A domain with a release that serves; `beside` holds what is tried out."""
    home = Domain()
    rng = np.random.default_rng(0)
    for serve in (True, False):
        loaded = release_store.load(tmp_path / "shop" / write_random_release(tmp_path, 40, ITEM_KNN, rng))
        home.begin()
        home.adopt(home.align(loaded), serve=serve)
    return home


def tried(domain: Domain, aligned: Aligned) -> Tried:
    return Tried(Arm(aligned.release.id, ARM.share, 0, ARM.salt), Beside(domain, aligned))


def failing(domain: Domain) -> Aligned:
    good = domain.beside[0].release
    names = {"popularity": good.popularity, "neighbours": good._neighbors, "similarities": good._similarities}
    return Aligned(Failing(good.manifest, good.recommender, names), {}, domain.codes)


def looked(
    domain: Domain, store: OnlineStore, shadow: Shadow | None = None, until: Callable[[], bool] = lambda: True
) -> dict[str, Answer]:
    async def go() -> dict[str, Answer]:
        lookups = Lookups({"shop": domain})
        lookups.store, lookups.shadow = store, shadow
        lookups.start()
        if shadow is not None:
            shadow.start()
        asked: list[Awaitable[object]] = [lookups.of_user(user, Ask("shop", 5)) for user in USERS]
        found = [one.answer for one in await asyncio.gather(*asked)]  # type: ignore[attr-defined]
        end = time.monotonic() + 30
        while not until() and time.monotonic() < end:
            await asyncio.sleep(0.02)
        await lookups.stop()
        if shadow is not None:
            await shadow.stop()
        return dict(zip(USERS, found, strict=True))

    return asyncio.run(go())


def test_a_canary_answers_its_share_and_the_catalogue_reaches_it(domain: Domain, store: OnlineStore) -> None:
    canary = tried(domain, domain.beside[0])
    domain.trial = Trial("shop", canary, None)
    mine = {user for user in USERS if includes(ARM, user)}
    assert 15 < len(mine) < 45
    found = looked(domain, store)
    assert {user for user, one in found.items() if one.release == canary.arm.release} == mine
    assert (canary.figures.answers, canary.figures.errors) == (len(mine), 0)
    assert domain.trial.control.answers == len(USERS) - len(mine)
    first = next(iter(mine))
    gone = found[first].items[0].item_id
    domain.put([Item(item_id=gone, at=1, available=False)])
    assert gone not in [one.item_id for one in looked(domain, store)[first].items]


def test_a_canary_that_fails_costs_no_answer(domain: Domain, store: OnlineStore) -> None:
    canary = tried(domain, failing(domain))
    domain.trial = Trial("shop", canary, None)
    found = looked(domain, store)
    assert {one.release for one in found.values()} == {domain.aligned.release.id}  # type: ignore[union-attr]
    assert all(one.reason == "personal" for one in found.values())
    mine = sum(includes(ARM, user) for user in USERS)
    assert (canary.figures.answers, canary.figures.errors) == (mine, mine)
    assert domain.trial.control.errors == 0


def test_a_shadow_that_fails_is_counted_and_nobody_sees_it(domain: Domain, store: OnlineStore, tmp_path: Path) -> None:
    shadow, one = Shadow(tmp_path / "shadow", 1_000), tried(domain, failing(domain))
    domain.trial = Trial("shop", None, one)
    found = looked(domain, store, shadow, lambda: one.figures.answers > 0)
    assert {answer.release for answer in found.values()} == {domain.aligned.release.id}  # type: ignore[union-attr]
    assert one.figures.errors > 0
    assert not (tmp_path / "shadow" / "shop.jsonl").exists()


def test_overlap() -> None:
    assert overlap(["a", "b"], ["b", "c"]) == 0.5
    assert overlap(["a"], ["a", "b", "c", "d"]) == 0.25
    assert overlap(list("abcdefghijkl"), list("abcdefghijxy")) == 1.0
    assert overlap([], []) == 1.0
