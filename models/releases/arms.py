"""Which release answers whom: a domain's canary and shadow beside its serving release, and the file that says so.

<root>/<domain>/rollout.json     what is tried out now, and how the newest trials ended
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

import msgspec

from models.errors import ReleaseError

FILE: Final = "rollout.json"
ENDED: Final = 10
"""Trials that ended and are still told of."""
SPACE: Final = float(2**64)

Role = Literal["canary", "shadow"]


class Arm(msgspec.Struct, frozen=True):
    """A release that is tried out on a `share` (0..1) since `began_at` (epoch ms).

    `salt` belongs to this trial alone: another trial draws other users.
    """

    release: str
    share: float
    began_at: int
    salt: str


class Ended(msgspec.Struct, frozen=True):
    """How a trial ended: promoted, rolled-back or off, the reason in a word and in a sentence."""

    role: Role
    release: str
    began_at: int
    ended_at: int
    action: str
    reason: str
    detail: str = ""


class Rollout(msgspec.Struct, frozen=True):
    """A domain's trials. `ready` says why a canary may be promoted, where a person is to do it."""

    canary: Arm | None = None
    shadow: Arm | None = None
    ready: str | None = None
    ended: list[Ended] = []

    @property
    def releases(self) -> set[str]:
        """The releases that are tried out."""
        return {one.release for one in (self.canary, self.shadow) if one is not None}


def arm(release: str, share: float, now_ms: int) -> Arm:
    """A new arm, with a salt of its own.

    Raises:
        ReleaseError: bad-share.
    """
    if not 0 < share <= 1:
        raise ReleaseError("bad-share", f"share={share:g} is not above 0 and at most 1; give .1 for a tenth")
    return Arm(release, share, now_ms, secrets.token_hex(8))


def draw(user_id: str, salt: str) -> float:
    """A user's place in [0, 1) for one salt: always the same, whatever the process or the machine."""
    raw = blake2b(user_id.encode(), digest_size=8, key=salt.encode()).digest()
    return int.from_bytes(raw, "big") / SPACE


def takes(one: Arm, user_id: str) -> bool:
    """Whether a user belongs to an arm."""
    return draw(user_id, one.salt) < one.share


def read(root: Path, domain: str) -> Rollout:
    """A domain's trials; an empty Rollout where none were ever begun.

    Raises:
        ReleaseError: bad-rollout.
    """
    path = root / domain / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Rollout)
    except FileNotFoundError:
        return Rollout()
    except msgspec.DecodeError as error:
        raise ReleaseError("bad-rollout", f"{path}: {error}; delete it to end every trial of {domain}") from error


def write(root: Path, domain: str, rollout: Rollout) -> None:
    """Put a domain's trials in place at once; call it inside `changing`."""
    path = root / domain / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".aside")
    with aside.open("wb") as file:
        file.write(msgspec.json.encode(rollout))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


@contextmanager
def changing(root: Path, domain: str) -> Iterator[None]:
    """One process at a time reads, decides and writes; the kernel lets go of the lock with the process."""
    home = root / domain
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".rollout.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
