"""The verbs of a rollout: begin and end a canary or a shadow, promote, go back. All is checked before it changes.

`models.releases.arms` holds the state, `models.releases.canary` the rule by which a canary is judged.
"""

import time
from pathlib import Path
from typing import Final

import msgspec

from models.errors import ReleaseError
from models.releases import arms, release_store
from models.releases.arms import ENDED, Arm, Ended, Role, Rollout

REPLACED: Final = "replaced"


def begin_canary(root: Path, domain: str, release: str, share: float, now_ms: int | None = None) -> Arm:
    """Let a share of the users be answered by a release; a canary that runs already ends.

    Raises:
        ReleaseError: as `releases.load` where the release is damaged (it is marked as refused); `bad-share`;
            `no-control` where nothing serves yet; `serving` where it serves already.
    """
    return _begin(root, domain, "canary", release, share, now_ms)


def begin_shadow(root: Path, domain: str, release: str, share: float, now_ms: int | None = None) -> Arm:
    """Let a release answer a share of the look-ups in the background. Raises like `begin_canary`."""
    return _begin(root, domain, "shadow", release, share, now_ms)


def end(
    root: Path, domain: str, role: Role, *, action: str = "off", reason: str = "by-hand", detail: str = ""
) -> Arm | None:
    """End a trial and remember why; the arm that ended, None where there was none."""
    with arms.changing(root, domain):
        before = arms.read(root, domain)
        ended: Arm | None = getattr(before, role)
        if ended is not None:
            arms.write(root, domain, _without(before, role, action, reason, detail))
    return ended


def roll_back_canary(root: Path, domain: str, salt: str, reason: str, detail: str) -> Arm | None:
    """Take a canary out at once, and leave the reason beside its release. None where another trial runs by now."""
    with arms.changing(root, domain):
        before = arms.read(root, domain)
        if before.canary is None or before.canary.salt != salt:
            return None
        arms.write(root, domain, _without(before, "canary", "rolled-back", reason, detail))
    release_store.refuse(root, domain, before.canary.release, ReleaseError(reason, detail))
    return before.canary


def promote_canary(root: Path, domain: str, salt: str, detail: str) -> Arm | None:
    """Let a canary serve everyone. None where another trial runs by now. Raises like `releases.promote`."""
    with arms.changing(root, domain):
        before = arms.read(root, domain)
        if before.canary is None or before.canary.salt != salt:
            return None
        release_store.promote(root, domain, before.canary.release)
        arms.write(root, domain, _without(before, "canary", "promoted", "not-worse", detail))
    return before.canary


def say_ready(root: Path, domain: str, salt: str, detail: str) -> None:
    """Note that a canary may be promoted, where a person is to do it."""
    with arms.changing(root, domain):
        before = arms.read(root, domain)
        if before.canary is not None and before.canary.salt == salt and before.ready is None:
            arms.write(root, domain, msgspec.structs.replace(before, ready=detail))


def enter(root: Path, domain: str, release: str, share: float | None) -> str:
    """What becomes of a candidate that passed the gate: `promote`, or with a share `canary`. Raises like both.

    The first release of a domain is promoted. While another canary is on trial the candidate `waits`: trials that are
    replaced by each training run would never come to an end.
    """
    if share is None or release_store.current_id(root, domain) is None:
        promote(root, domain, release)
        return "promote"
    if arms.read(root, domain).canary is not None:
        return "waits"
    begin_canary(root, domain, release, share)
    return "canary"


def promote(root: Path, domain: str, release: str) -> None:
    """Let a release serve everyone; its own trials end with that. Raises like `releases.promote`."""
    with arms.changing(root, domain):
        release_store.promote(root, domain, release)
        _end_own(root, domain, release)


def rollback(root: Path, domain: str) -> str:
    """Let the release before the serving one serve again; its id. Raises like `releases.rollback`."""
    with arms.changing(root, domain):
        release = release_store.rollback(root, domain)
        _end_own(root, domain, release)
    return release


def _begin(root: Path, domain: str, role: Role, release: str, share: float, now_ms: int | None) -> Arm:
    made = arms.arm(release, share, now_ms if now_ms is not None else int(time.time() * 1000))
    serving = release_store.current_id(root, domain)
    if serving is None:
        raise ReleaseError("no-control", f"{domain}: no release serves yet; promote {release} instead")
    if serving == release:
        raise ReleaseError("serving", f"{domain}: {release} serves everyone already; choose another release")
    try:
        release_store.load(root / domain / release)
    except ReleaseError as error:
        release_store.refuse(root, domain, release, error)
        raise
    with arms.changing(root, domain):
        before = arms.read(root, domain)
        if getattr(before, role) is not None:
            before = _without(before, role, "off", REPLACED, f"{release} took its place")
        arms.write(root, domain, msgspec.structs.replace(before, **{role: made}))
    return made


def _end_own(root: Path, domain: str, release: str) -> None:
    """A release that serves everyone is no longer on trial."""
    before = arms.read(root, domain)
    after = before
    if before.canary is not None and before.canary.release == release:
        after = _without(after, "canary", "promoted", "by-hand", "")
    if before.shadow is not None and before.shadow.release == release:
        after = _without(after, "shadow", "promoted", "by-hand", "")
    if after != before:
        arms.write(root, domain, after)


def _without(before: Rollout, role: Role, action: str, reason: str, detail: str) -> Rollout:
    one: Arm | None = getattr(before, role)
    assert one is not None
    told = Ended(role, one.release, one.began_at, int(time.time() * 1000), action, reason, detail)
    ended = [*before.ended, told][-ENDED:]
    if role == "canary":
        return Rollout(None, before.shadow, None, ended)
    return Rollout(before.canary, None, before.ready, ended)
