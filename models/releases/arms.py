"""The arms of a domain: its canary and shadow releases, which users belong to them, and the file that stores them.

<root>/<domain>/rollout.json     the running trials, and how the newest ones ended
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

import msgspec

from models.errors import ReleaseError
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
    share: float
    began_at: int
    salt: str


class EndedTrial(msgspec.Struct, frozen=True):
    """How a trial ended: promoted, rolled-back, refused or off, with a short reason and a sentence."""

    role: Role
    release: str
    began_at: int
    ended_at: int
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
    path = root / domain / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Rollout)
    except FileNotFoundError:
        return Rollout()
    except msgspec.DecodeError as error:
        raise ReleaseError("bad-rollout", f"{path}: {error}; delete it to end every trial of {domain}") from error


def write(root: Path, domain: str, rollout: Rollout) -> None:
    """Replace a domain's trials; call it inside `locked`."""
    write_atomically(root / domain / FILE, msgspec.json.encode(rollout))


@contextmanager
def locked(root: Path, domain: str) -> Iterator[None]:
    """One process at a time reads, decides and writes a domain's trials."""
    with exclusive(root / domain / LOCK):
        yield
