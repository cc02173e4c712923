"""The releases that serve: what was promoted is loaded beside the old one, then swapped in at once."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

import msgspec

from features.activity import History
from models.errors import ReleaseError
from models.releases import arms, release_store, rollout
from models.releases.arms import Arm, Role
from models.releases.release import Release
from serving import metrics
from serving.catalogue.domain import Domain
from serving.errors import MessageError
from serving.messages import decode_announcement
from serving.rollout.arms import Beside, Trial, Tried

LOOK_EVERY_S: Final = 1.0
POINTER: Final = "current.json"

log = logging.getLogger("coldstream.api")


class Refused(msgspec.Struct, frozen=True):
    """A release that this process would not load."""

    domain: str
    release: str
    reason: str
    detail: str


class Current:
    """Keeps each domain's release the one that its pointer names. `swapped` is called after every swap."""

    def __init__(
        self, root: Path, domains: Mapping[str, Domain], executor: Executor, swapped: Callable[[], None]
    ) -> None:
        self.root = root
        self.refused: dict[tuple[str, str], Refused] = {}
        self._domains = domains
        self._executor = executor
        self._swapped = swapped
        self._look = asyncio.Event()

    def hear(self, _key: bytes | None, value: bytes | None) -> None:
        """A message of `releases`: look at once, also at a release that was refused before."""
        try:
            announcement = decode_announcement(value)
        except MessageError as error:
            log.warning("%s", error)
            return
        self.refused.pop((announcement.domain, announcement.release), None)
        self._look.set()

    def look(self) -> None:
        """Look at the folder now."""
        self._look.set()

    async def watch(self) -> None:
        """Look now, at every announcement, and every second: an announcement may be lost, the pointer is not."""
        while True:
            self._look.clear()
            for name in self._domains:
                await self._follow(name)
                await self._follow_arms(name)
            try:
                await asyncio.wait_for(self._look.wait(), LOOK_EVERY_S)
            except TimeoutError:
                continue

    def serving(self, name: str) -> str | None:
        """The id of the release that serves a domain here."""
        aligned = self._domains[name].aligned
        return aligned.release.id if aligned is not None else None

    async def _follow(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            wanted = await loop.run_in_executor(self._executor, release_store.current_id, self.root, name)
        except ReleaseError as error:
            self._refuse(name, POINTER, error)
            return
        self.refused.pop((name, POINTER), None)
        if wanted is None or wanted == self.serving(name):
            return
        if not await self._swap(name, wanted) and self._domains[name].aligned is None:
            await self._fall_back(name)

    async def _swap(self, name: str, wanted: str) -> bool:
        if (name, wanted) in self.refused:
            return False
        domain, loop = self._domains[name], asyncio.get_running_loop()
        old = self.serving(name)
        domain.begin()
        aligned = None
        try:
            loaded = await loop.run_in_executor(self._executor, _load, self.root / name / wanted)
            aligned = await loop.run_in_executor(self._executor, domain.align, loaded)
        except ReleaseError as error:
            self._refuse(name, wanted, error)
            return False
        finally:
            domain.adopt(aligned)
        _tell(name, old, loaded)
        self._swapped()
        return True

    async def _fall_back(self, name: str) -> None:
        """With nothing in service (a start beside a damaged release), the newest whole one is better than none."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._executor, release_store.list_releases, self.root, name
        )
        for one in found:
            if one.state == "ready" and await self._swap(name, one.id):
                log.warning("%s: release %s serves instead of the one that was refused", name, one.id)
                return

    async def _follow_arms(self, name: str) -> None:
        """Load the releases that are tried out, each beside the serving one; those that are not whole never answer."""
        loop, domain = asyncio.get_running_loop(), self._domains[name]
        try:
            wanted = await loop.run_in_executor(self._executor, arms.read, self.root, name)
        except ReleaseError as error:
            self._refuse(name, arms.FILE, error)
            wanted = arms.Rollout()
        else:
            self.refused.pop((name, arms.FILE), None)
        before, serving = domain.trial, self.serving(name)
        canary = await self._arm(name, "canary", wanted.canary if serving is not None else None)
        shadow = await self._arm(name, "shadow", wanted.shadow if serving is not None else None)
        if canary is (before.canary if before else None) and shadow is (before.shadow if before else None):
            return
        same = before is not None and canary is not None and canary is before.canary
        control = before.control if same and before is not None else None
        domain.trial = Trial(name, canary, shadow, control) if canary or shadow else None
        domain.beside = tuple(one.home.aligned for one in (canary, shadow) if one and one.home.aligned)
        for role, one in (("canary", canary), ("shadow", shadow)):
            metrics.arm_share.labels(name, role).set(one.arm.share if one is not None else 0)
            log.info("%s: %s %s", name, role, f"{one.arm.release}, share {one.arm.share:g}" if one else "off")
        self._swapped()

    async def _arm(self, name: str, role: Role, wanted: Arm | None) -> Tried | None:
        domain, loop = self._domains[name], asyncio.get_running_loop()
        if wanted is None or wanted.release == self.serving(name):
            return None
        kept = getattr(domain.trial, role, None)
        if kept is not None and kept.arm == wanted:
            return kept
        domain.begin()
        aligned = None
        try:
            loaded = await loop.run_in_executor(self._executor, _load, self.root / name / wanted.release)
            aligned = await loop.run_in_executor(self._executor, domain.align, loaded)
        except ReleaseError as error:
            self._refuse(name, wanted.release, error)
            await loop.run_in_executor(self._executor, self._end, name, role, wanted, error)
            return None
        finally:
            domain.adopt(aligned, serve=False)
        return Tried(wanted, Beside(domain, aligned))

    def _end(self, name: str, role: Role, arm: Arm, error: ReleaseError) -> None:
        if role == "canary":
            rollout.roll_back_canary(self.root, name, arm.salt, error.reason, error.detail)
            return
        rollout.end_trial(self.root, name, role, action="refused", reason=error.reason, detail=error.detail)
        release_store.refuse(self.root, name, arm.release, error)

    def _refuse(self, name: str, release: str, error: ReleaseError) -> None:
        if (name, release) not in self.refused:
            log.error("%s: release %s is refused (%s): %s", name, release, error.reason, error.detail)
            metrics.release_refused.labels(error.reason).inc()
            self.refused[name, release] = Refused(name, release, error.reason, error.detail)


def _load(folder: Path) -> Release:
    loaded = release_store.load(folder)
    loaded.scores([History()])  # the first call of a session is slow, so it is not a visitor's
    return loaded


def _tell(name: str, old: str | None, loaded: Release) -> None:
    manifest = loaded.manifest
    log.info("%s: release %s (%s) serves %d items", name, loaded.id, manifest.recommender, manifest.items)
    if old is not None:
        metrics.release_info.remove(name, old)
    created = manifest.created_at / 1000
    metrics.release_info.labels(name, loaded.id).set(1)
    metrics.release_created.labels(name).set(created)
    metrics.release_age.labels(name).set_function(lambda: time.time() - created)
    for metric, value in manifest.metrics.items():
        metrics.release_quality.labels(name, metric).set(value)
