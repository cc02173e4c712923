"""Rollouts on disk: who is drawn, what a trial's begin and end leave behind."""

from pathlib import Path

import numpy as np
import pytest

from models.errors import ReleaseError
from models.releases import arms, release_store, rollout
from models.releases.arms import Arm
from models.releases.manifest import ITEM_KNN
from testing.random_release import write_random_release


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, str, str]:
    """A root, the release that serves, and another."""
    rng = np.random.default_rng(0)
    candidate, serving = (
        write_random_release(tmp_path, 30, ITEM_KNN, rng),
        write_random_release(tmp_path, 30, ITEM_KNN, rng),
    )
    return tmp_path, serving, candidate


def state_of(root: Path, name: str) -> tuple[str, str | None]:
    return next((info.state, info.reason) for info in release_store.list_releases(root, "shop") if info.id == name)


def test_arm_assignment_is_stable_within_a_trial_and_differs_between_trials() -> None:
    users = [f"u{number}" for number in range(20_000)]
    arm, other_arm = Arm("r", 0.1, 0, "salt-1"), Arm("r", 0.1, 0, "salt-2")
    first = {user for user in users if arms.includes(arm, user)}
    assert 1_850 < len(first) < 2_150  # 2,000 expected, standard deviation 42
    assert first == {user for user in users if arms.includes(arm, user)}
    both = first & {user for user in users if arms.includes(other_arm, user)}
    assert 140 < len(both) < 260  # 200 expected where the trials draw independently
    assert first < {user for user in users if arms.includes(Arm("r", 0.2, 0, "salt-1"), user)}


def test_arm_assignment_is_the_same_on_every_machine() -> None:
    assert arms.assignment("ann", "salt") == pytest.approx(DRAWN, abs=1e-12)


DRAWN = 0.5947603691592789


def test_a_canary_starts_rolls_back_and_records_its_reason(two: tuple[Path, str, str]) -> None:
    root, serving, candidate = two
    arm = rollout.begin_canary(root, "shop", candidate, 0.2)
    assert arms.read(root, "shop").canary == arm
    assert state_of(root, candidate) == ("canary", None)
    assert rollout.roll_back_canary(root, "shop", "another-salt", "canary-clicks", "worse") is None
    assert rollout.roll_back_canary(root, "shop", arm.salt, "canary-clicks", "worse") == arm
    assert state_of(root, candidate) == ("refused", "canary-clicks")
    after = arms.read(root, "shop")
    assert (after.canary, after.ended[-1].action, after.ended[-1].detail) == (None, "rolled-back", "worse")
    assert release_store.current_id(root, "shop") == serving


def test_a_promoted_canary_serves(two: tuple[Path, str, str]) -> None:
    root, _, candidate = two
    arm = rollout.begin_canary(root, "shop", candidate, 0.2)
    rollout.mark_ready(root, "shop", arm.salt, "as good")
    assert arms.read(root, "shop").ready == "as good"
    rollout.promote_canary(root, "shop", arm.salt, "as good")
    assert (release_store.current_id(root, "shop"), arms.read(root, "shop").canary) == (candidate, None)
    assert arms.read(root, "shop").ready is None


def test_a_manual_promotion_ends_the_trials_of_the_release(two: tuple[Path, str, str]) -> None:
    root, serving, candidate = two
    rollout.begin_canary(root, "shop", candidate, 0.2)
    rollout.begin_shadow(root, "shop", candidate, 0.5)
    rollout.promote(root, "shop", candidate)
    assert arms.read(root, "shop").releases == set()
    assert rollout.rollback(root, "shop") == serving


def test_invalid_trials_are_errors(two: tuple[Path, str, str]) -> None:
    root, serving, candidate = two
    for share in (0.0, -1.0, 1.5):
        with pytest.raises(ReleaseError, match="at most 1"):
            rollout.begin_canary(root, "shop", candidate, share)
    with pytest.raises(ReleaseError, match="serves everyone already"):
        rollout.begin_canary(root, "shop", serving, 0.1)
    with pytest.raises(ReleaseError, match="no release serves"):
        rollout.begin_shadow(root, "news", candidate, 0.1)
    (root / "shop" / candidate / "popularity.npy").unlink()
    with pytest.raises(ReleaseError, match="missing"):
        rollout.begin_canary(root, "shop", candidate, 0.1)
    assert state_of(root, candidate) == ("refused", "missing-file")
    assert arms.read(root, "shop").canary is None


def test_a_candidate_waits_while_another_canary_runs(two: tuple[Path, str, str]) -> None:
    root, serving, candidate = two
    third = write_random_release(root, 30, ITEM_KNN, np.random.default_rng(1))
    release_store.promote(root, "shop", serving)
    assert rollout.roll_out(root, "shop", candidate, 0.1) == "canary"
    assert rollout.roll_out(root, "shop", third, 0.1) == "waits"
    assert arms.read(root, "shop").releases == {candidate}
    assert rollout.roll_out(root, "shop", third, None) == "promote"
    assert release_store.current_id(root, "shop") == third


def test_releases_on_trial_are_not_deleted(two: tuple[Path, str, str]) -> None:
    root, _, candidate = two
    rollout.begin_shadow(root, "shop", candidate, 0.1)
    for seed in range(9):
        write_random_release(root, 30, ITEM_KNN, np.random.default_rng(seed))
    assert state_of(root, candidate) == ("shadow", None)


def test_a_damaged_rollout_file_is_named_and_hides_no_release(two: tuple[Path, str, str]) -> None:
    root, serving, _ = two
    (root / "shop" / "rollout.json").write_text('{"canary": 5}')
    with pytest.raises(ReleaseError, match="delete it"):
        arms.read(root, "shop")
    assert state_of(root, serving) == ("serving", None)
