"""The release loader on real folders of releases: what it loads, what it refuses, and how arms come and go."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from features.catalogue import CatalogueEntry
from models.releases import arms, release_store
from models.releases.arms import Arm, Rollout
from serving.catalogue.domain_state import DomainState
from serving.errors import MessageError
from serving.messages import encode, release_announcement
from serving.rollout.loader import POINTER, ReleaseLoader
from testing.lookups import NOW, domain_state, follow, write_release
from testing.lookups import release_view as view_of

ITEMS = ["a", "b", "c"]
NEAR = {"a": [("b", 1.0)]}


class Loader:
    """A release loader of one domain, and how often it called back."""

    def __init__(self, root: Path) -> None:
        self.state = domain_state(clock=lambda: NOW)
        self.swaps = 0
        self.loader = ReleaseLoader(root, {"shop": self.state}, ThreadPoolExecutor(1), self._swapped)

    def _swapped(self) -> None:
        self.swaps += 1

    def check(self) -> None:
        asyncio.run(self.loader.check())

    @property
    def serving(self) -> str | None:
        return self.state.serving_id


def damage(root: Path, release: str) -> None:
    (root / "shop" / release / "items.json").write_text("[]")


def promoted(root: Path) -> str:
    return write_release(root, ITEMS, NEAR)


def arm(release: str, share: float = 0.5) -> Arm:
    return Arm(release, share, NOW, f"salt-{share:g}")


def plan(root: Path, canary: Arm | None = None, shadow: Arm | None = None) -> None:
    with arms.locked(root, "shop"):
        arms.write(root, "shop", Rollout(canary, shadow))


def test_without_a_release_nothing_serves(tmp_path: Path) -> None:
    loader = Loader(tmp_path)
    loader.check()
    assert (loader.serving, loader.swaps, loader.loader.refused) == (None, 0, {})
    assert loader.state.view.release_id is None


def test_the_promoted_release_is_loaded_once_and_swapped_in(tmp_path: Path) -> None:
    loader, first = Loader(tmp_path), promoted(tmp_path)
    loader.check()
    loader.check()
    assert (loader.serving, loader.swaps) == (first, 1)
    before = loader.state.view
    second = promoted(tmp_path)
    loader.check()
    assert (loader.serving, loader.swaps) == (second, 2)
    assert before.release_id == first  # a look-up on its way keeps the view that it took


def test_a_damaged_release_is_refused_and_the_old_one_serves_on(tmp_path: Path) -> None:
    loader, good = Loader(tmp_path), promoted(tmp_path)
    loader.check()
    bad = promoted(tmp_path)
    damage(tmp_path, bad)
    loader.check()
    assert (loader.serving, loader.swaps) == (good, 1)
    assert loader.loader.refused["shop", bad].reason == "hash-mismatch"
    assert "items.json" in loader.loader.refused["shop", bad].detail


def test_a_start_with_a_damaged_release_falls_back_to_the_newest_whole_one(tmp_path: Path) -> None:
    old, newer, bad = promoted(tmp_path), promoted(tmp_path), promoted(tmp_path)
    damage(tmp_path, bad)
    loader = Loader(tmp_path)
    loader.check()
    assert old != newer
    assert loader.serving == newer
    assert list(loader.loader.refused) == [("shop", bad)]


def test_an_announcement_lets_a_refused_release_be_tried_again(tmp_path: Path) -> None:
    loader, good, bad = Loader(tmp_path), promoted(tmp_path), promoted(tmp_path)
    whole = (tmp_path / "shop" / bad / "items.json").read_text()
    damage(tmp_path, bad)
    loader.check()
    assert loader.serving == good
    (tmp_path / "shop" / bad / "items.json").write_text(whole)
    loader.check()
    assert loader.serving == good  # refused releases are not read again and again
    _, key, value = encode(release_announcement(tmp_path, "shop", "promote"))
    with pytest.raises(MessageError):
        loader.loader.on_message(key, b"no announcement")
    assert ("shop", bad) in loader.loader.refused
    loader.loader.on_message(key, value)
    loader.check()
    assert (loader.serving, loader.loader.refused) == (bad, {})


def test_a_damaged_pointer_is_refused_until_it_is_whole(tmp_path: Path) -> None:
    loader, release = Loader(tmp_path), promoted(tmp_path)
    pointer = tmp_path / "shop" / POINTER
    whole = pointer.read_text()
    pointer.write_text("{")
    loader.check()
    assert loader.serving == release  # the newest whole one
    assert ("shop", POINTER) in loader.loader.refused
    pointer.write_text(whole)
    loader.check()
    assert (loader.serving, loader.loader.refused) == (release, {})


def test_arms_are_loaded_follow_the_catalogue_and_end(tmp_path: Path) -> None:
    loader, canary, shadow, serving = Loader(tmp_path), promoted(tmp_path), promoted(tmp_path), promoted(tmp_path)
    plan(tmp_path, arm(canary), arm(shadow, 1.0))
    loader.check()
    rollout = loader.loader.rollouts["shop"]
    assert loader.serving == serving
    assert {role: each.view.release_id for role, each in rollout.arms.items()} == {"canary": canary, "shadow": shadow}
    assert [loaded.id for loaded in loader.state.releases] == [serving, canary, shadow]
    loader.state.put_items([CatalogueEntry(item_id="b", at=NOW, available=False)])
    assert all(each.view.items.hidden.tolist() == [1] for each in rollout.arms.values())
    loader.check()
    assert loader.loader.rollouts["shop"] is rollout  # nothing changed
    plan(tmp_path, arm(canary))
    loader.check()
    left = loader.loader.rollouts["shop"]
    assert left.canary is rollout.canary
    assert (left.shadow, left.control) == (None, rollout.control)
    plan(tmp_path)
    loader.check()
    assert loader.loader.rollouts == {}
    assert [loaded.id for loaded in loader.state.releases] == [serving]


def test_another_share_begins_another_arm(tmp_path: Path) -> None:
    loader, canary, _ = Loader(tmp_path), promoted(tmp_path), promoted(tmp_path)
    plan(tmp_path, arm(canary, 0.1))
    loader.check()
    before = loader.loader.rollouts["shop"]
    plan(tmp_path, arm(canary, 0.2))
    loader.check()
    after = loader.loader.rollouts["shop"]
    assert after.canary is not None
    assert after.canary.arm.share == 0.2
    assert after.canary is not before.canary
    assert after.control is not before.control


@pytest.mark.parametrize("role", ["canary", "shadow"])
def test_a_damaged_arm_never_answers_and_its_rollout_ends(tmp_path: Path, role: str) -> None:
    loader, tried, serving = Loader(tmp_path), promoted(tmp_path), promoted(tmp_path)
    damage(tmp_path, tried)
    plan(tmp_path, **{role: arm(tried)})
    loader.check()
    assert (loader.serving, loader.loader.rollouts, loader.state.arms) == (serving, {}, ())
    assert loader.loader.refused["shop", tried].reason == "hash-mismatch"
    state = arms.read(tmp_path, "shop")
    assert (state.canary, state.shadow) == (None, None)
    assert (state.ended[-1].role, state.ended[-1].release) == (role, tried)
    (listed,) = [row for row in release_store.list_releases(tmp_path, "shop") if row.id == tried]
    assert listed.state == "refused"


def test_without_a_serving_release_nothing_is_tried_out(tmp_path: Path) -> None:
    tried = promoted(tmp_path)
    (tmp_path / "shop" / POINTER).unlink()
    plan(tmp_path, arm(tried))
    loader = Loader(tmp_path)
    loader.check()
    assert (loader.serving, loader.loader.rollouts) == (None, {})


def test_the_serving_release_is_no_arm(tmp_path: Path) -> None:
    loader, release = Loader(tmp_path), promoted(tmp_path)
    plan(tmp_path, arm(release))
    loader.check()
    assert (loader.serving, loader.loader.rollouts) == (release, {})


def test_run_looks_at_once_when_told_so(tmp_path: Path) -> None:
    loader = Loader(tmp_path)

    async def go() -> float:
        task = asyncio.create_task(loader.loader.run())
        await asyncio.sleep(0.2)
        assert loader.serving is None
        promoted(tmp_path)
        began = time.monotonic()
        loader.loader.check_now()
        while loader.serving is None:
            await asyncio.sleep(0.01)
        task.cancel()
        return time.monotonic() - began

    assert asyncio.run(asyncio.wait_for(go(), 30)) < 20


def test_changes_that_arrive_while_a_release_is_loaded_reach_it(tmp_path: Path) -> None:
    from serving.rules.rule import Rule

    state: DomainState = domain_state(clock=lambda: NOW)
    release = release_store.load(tmp_path / "shop" / promoted(tmp_path))
    with state.loading() as loading:
        loading.prepare(release)
        state.put_items([CatalogueEntry(item_id="b", at=NOW, available=False), CatalogueEntry(item_id="new", at=NOW)])
        follow(state, Rule(id="x", action="exclude", items=["c"]))
        assert state.serving is None
    view = view_of(state)
    assert view.items.hidden.tolist() == [1]
    assert view.new_items == ("new",)
    assert view.rules is not None
    assert view.rules.rules == state.rules
    assert not view.shows("c")


def test_a_release_that_fails_to_load_changes_nothing(tmp_path: Path) -> None:
    state = domain_state(clock=lambda: NOW)
    with pytest.raises(RuntimeError, match="damaged"), state.loading():
        raise RuntimeError("damaged")
    with state.loading():
        pass
    assert (state.serving, state.arms) == (None, ())


def test_a_damaged_pointer_leaves_the_newest_whole_release(tmp_path: Path) -> None:
    older, newer = promoted(tmp_path), promoted(tmp_path)
    (tmp_path / "shop" / POINTER).write_bytes(b"\xff")
    (tmp_path / "shop" / newer / "manifest.json").write_bytes(b'{"id":"\xff"}')
    loader = Loader(tmp_path)  # as after a restart
    loader.check()
    assert loader.serving == older
    assert loader.loader.problem("shop") is not None
    release_store.promote(tmp_path, "shop", older)
    loader.check()
    assert loader.loader.problem("shop") is None


def test_one_domain_in_trouble_does_not_keep_the_others_from_their_releases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = promoted(tmp_path)
    read = release_store.current_id
    monkeypatch.setattr(release_store, "current_id", lambda root, name: read(root, name) if name == "shop" else 1 // 0)
    loader = Loader(tmp_path)
    loader.loader._domains = {"news": domain_state(clock=lambda: NOW), "shop": loader.state}
    loader.check()
    assert loader.serving == release
    assert loader.loader.checked.is_set()
