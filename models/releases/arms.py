"""The arms of a domain: its canary and shadow releases, which users belong to them, and the file that stores them.

<root>/<domain>/rollout.json     the running trials, and how the newest ones ended
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from models.errors import ReleaseError
from models.releases.manifest import EpochMs
from models.releases.release_files import checked_name, read_json, with_cure
from stream.files import exclusive, write_atomically

FILE: Final = "rollout.json"
LOCK: Final = ".rollout.lock"
KEPT_ENDED_TRIALS: Final = 10
SPACE: Final = float(2**64)

Role = Literal["canary", "shadow"]


class Arm(msgspec.Struct, frozen=True):
    """A release that is tried out on a `share` (0..1) of users or requests since `began_at` (epoch ms).

    `salt` belongs to this trial alone: another trial assigns other users.
    """

    release: str
    share: Annotated[float, msgspec.Meta(gt=0, le=1)]
    began_at: EpochMs
    salt: Annotated[str, msgspec.Meta(pattern="^[0-9A-Za-z.-]{1,64}$")]


class EndedTrial(msgspec.Struct, frozen=True):
    """How a trial ended: promoted, rolled-back, refused or off, with a short reason and a sentence."""

    role: Role
    release: str
    began_at: EpochMs
    ended_at: EpochMs
    action: str
    reason: str
    detail: str = ""


class Rollout(msgspec.Struct, frozen=True):
    """A domain's trials. `ready` is set once a canary may be promoted and waits for a person: the reason."""

    canary: Arm | None = None
    shadow: Arm | None = None
    ready: str | None = None
    ended: list[EndedTrial] = []

    @property
    def releases(self) -> set[str]:
        """The releases that are tried out."""
        return {arm.release for arm in (self.canary, self.shadow) if arm is not None}


def new_arm(release: str, share: float, now_ms: int) -> Arm:
    """A new arm with its own salt.

    Raises:
        ReleaseError: bad-share.
    """
    if not 0 < share <= 1:
        raise ReleaseError("bad-share", f"share={share:g} is not above 0 and at most 1; give .1 for a tenth")
    return Arm(release, share, now_ms, secrets.token_hex(8))


def assignment(key: str, salt: str) -> float:
    """The place of a user (or request) in [0, 1) for one salt; the same in every process and on every machine."""
    raw = blake2b(key.encode(), digest_size=8, key=salt.encode()).digest()
    return int.from_bytes(raw, "big") / SPACE


def includes(arm: Arm, user_id: str) -> bool:
    """Whether a user belongs to an arm."""
    return assignment(user_id, arm.salt) < arm.share


def read(root: Path, domain: str) -> Rollout:
    """A domain's trials; an empty Rollout if there never were any.

    Raises:
        ReleaseError: bad-rollout.
    """
    path, cure = root / domain / FILE, f"delete it to end every trial of {domain}"
    try:
        rollout = read_json(path, Rollout, "bad-rollout", cure)
        for arm in (rollout.canary, rollout.shadow):
            if arm is not None:
                checked_name(arm.release, str(path))
    except ReleaseError as error:
        if error.reason == "missing-file":
            return Rollout()
        raise ReleaseError("bad-rollout", with_cure(error.detail, cure)) from error
    return rollout


def read_or_none(root: Path, domain: str) -> Rollout:
    """A domain's trials; none if the file is damaged: the process that follows it reports that."""
    try:
        return read(root, domain)
    except ReleaseError:
        return Rollout()


def write(root: Path, domain: str, rollout: Rollout) -> None:
    """Replace a domain's trials; call it inside `locked`."""
    write_atomically(root / domain / FILE, msgspec.json.encode(rollout))


@contextmanager
def locked(root: Path, domain: str) -> Iterator[None]:
    """One process at a time reads, decides and writes a domain's trials."""
    with exclusive(root / domain / LOCK):
        yield
