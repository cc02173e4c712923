"""Start and end canaries and shadows, promote, roll back. Everything is checked before anything changes.

`models.releases.arms` stores the trials; `models.releases.canary` decides how a canary is doing.
"""

import time
from pathlib import Path
from typing import Final, Literal

import msgspec

from models.errors import ReleaseError
from models.releases import arms, release_store
from models.releases.arms import KEPT_ENDED_TRIALS, Arm, EndedTrial, Role, Rollout

REPLACED: Final = "replaced"


def begin_canary(root: Path, domain: str, release: str, share: float, now_ms: int | None = None) -> Arm:
    """Serve a share of the users from a release; a running canary ends.

    Raises:
        ReleaseError: as `release_store.load` if the release is damaged (it is marked as refused); `bad-share`;
            `no-control` if no release serves yet; `serving` if it serves already.
    """
    return _begin(root, domain, "canary", release, share, now_ms)


def begin_shadow(root: Path, domain: str, release: str, share: float, now_ms: int | None = None) -> Arm:
    """Let a release answer a share of the look-ups in the background. Raises like `begin_canary`."""
    return _begin(root, domain, "shadow", release, share, now_ms)


def end_trial(
    root: Path, domain: str, role: Role, *, action: str = "off", reason: str = "by-hand", detail: str = ""
) -> Arm | None:
    """End a trial and record why; returns its arm, or None if there was none."""
    with arms.locked(root, domain):
        rollout = arms.read(root, domain)
        arm: Arm | None = getattr(rollout, role)
        if arm is not None:
            arms.write(root, domain, _without(rollout, role, action, reason, detail))
    return arm


def roll_back_canary(root: Path, domain: str, salt: str, reason: str, detail: str) -> Arm | None:
    """End a canary at once and mark its release as refused. None if another trial has replaced it."""
    with arms.locked(root, domain):
        rollout = arms.read(root, domain)
        if rollout.canary is None or rollout.canary.salt != salt:
            return None
        arms.write(root, domain, _without(rollout, "canary", "rolled-back", reason, detail))
    release_store.refuse(root, domain, rollout.canary.release, ReleaseError(reason, detail))
    return rollout.canary


def promote_canary(root: Path, domain: str, salt: str, detail: str) -> Arm | None:
    """Make a canary serve everyone. None if another trial has replaced it. Raises like `release_store.promote`."""
    with arms.locked(root, domain):
        rollout = arms.read(root, domain)
        if rollout.canary is None or rollout.canary.salt != salt:
            return None
        release_store.promote(root, domain, rollout.canary.release)
        arms.write(root, domain, _without(rollout, "canary", "promoted", "not-worse", detail))
    return rollout.canary


def mark_ready(root: Path, domain: str, salt: str, detail: str) -> None:
    """Record that a canary may be promoted, and waits for a person to do it."""
    with arms.locked(root, domain):
        rollout = arms.read(root, domain)
        if rollout.canary is not None and rollout.canary.salt == salt and rollout.ready is None:
            arms.write(root, domain, msgspec.structs.replace(rollout, ready=detail))


def roll_out(root: Path, domain: str, release: str, share: float | None) -> Literal["promote", "canary", "waits"]:
    """Put a candidate that passed the gate to work: `promote`, or with a share `canary`. Raises like both.

    The first release of a domain is promoted. While another canary runs, the candidate `waits`: if every training run
    replaced the canary, no canary would ever finish.
    """
    if share is None or release_store.serving_id(root, domain) is None:
        promote(root, domain, release)
        return "promote"
    if arms.read_or_none(root, domain).canary is not None:
        return "waits"
    begin_canary(root, domain, release, share)
    return "canary"


def promote(root: Path, domain: str, release: str) -> None:
    """Make a release serve everyone, and end its own trials. Raises like `release_store.promote`."""
    with arms.locked(root, domain):
        release_store.promote(root, domain, release)
        _end_trials_of(root, domain, release)


def rollback(root: Path, domain: str) -> str:
    """Make the previous release serve again; returns its id. Raises like `release_store.rollback`."""
    with arms.locked(root, domain):
        release = release_store.rollback(root, domain)
        _end_trials_of(root, domain, release)
    return release


def _begin(root: Path, domain: str, role: Role, release: str, share: float, now_ms: int | None) -> Arm:
    arm = arms.new_arm(release, share, now_ms if now_ms is not None else int(time.time() * 1000))
    serving = release_store.serving_id(root, domain)
    if serving is None:
        raise ReleaseError("no-control", f"{domain}: no release serves yet; promote {release} instead")
    if serving == release:
        raise ReleaseError("serving", f"{domain}: {release} serves everyone already; choose another release")
    try:
        release_store.load(root / domain / release)
    except ReleaseError as error:
        release_store.refuse(root, domain, release, error)
        raise
    with arms.locked(root, domain):
        rollout = arms.read(root, domain)
        if getattr(rollout, role) is not None:
            rollout = _without(rollout, role, "off", REPLACED, f"{release} replaced it")
        arms.write(root, domain, msgspec.structs.replace(rollout, **{role: arm}))
    return arm


def _end_trials_of(root: Path, domain: str, release: str) -> None:
    """End the trials of a release that now serves everyone."""
    before = after = arms.read_or_none(root, domain)
    if before.canary is not None and before.canary.release == release:
        after = _without(after, "canary", "promoted", "by-hand", "")
    if before.shadow is not None and before.shadow.release == release:
        after = _without(after, "shadow", "promoted", "by-hand", "")
    if after != before:
        arms.write(root, domain, after)


def _without(rollout: Rollout, role: Role, action: str, reason: str, detail: str) -> Rollout:
    arm: Arm | None = getattr(rollout, role)
    assert arm is not None
    trial = EndedTrial(
        role=role,
        release=arm.release,
        began_at=arm.began_at,
        ended_at=int(time.time() * 1000),
        action=action,
        reason=reason,
        detail=detail,
    )
    ended = [*rollout.ended, trial][-KEPT_ENDED_TRIALS:]
    if role == "canary":
        return Rollout(None, rollout.shadow, None, ended)
    return Rollout(rollout.canary, None, rollout.ready, ended)
