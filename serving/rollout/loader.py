"""The releases in memory: what was promoted or is tried out is loaded in another thread, then swapped in at once."""

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
from serving.catalogue.domain_state import DomainState, ReleaseLoading
from serving.messages import decode_announcement
from serving.rollout.arms import ActiveRollout, ArmCounters, LoadedArm

CHECK_EVERY_S: Final = 1.0
POINTER: Final = "current.json"

log = logging.getLogger("coldstream.api")


class RefusedRelease(msgspec.Struct, frozen=True):
    """A release that this process does not load."""

    domain: str
    release: str
    reason: str
    detail: str


class ReleaseLoader:
    """Keeps each domain's releases in memory those that its folder names: the serving one, a canary, a shadow.

    `rollouts` has the domains that try something out now. `on_swap` is called after every change. `checked` is set once
    every domain's folder was read.
    """

    def __init__(
        self, root: Path, domains: Mapping[str, DomainState], executor: Executor, on_swap: Callable[[], None]
    ) -> None:
        self.root = root
        self.refused: dict[tuple[str, str], RefusedRelease] = {}
        self.rollouts: dict[str, ActiveRollout] = {}
        self._domains = domains
        self._executor = executor
        self._on_swap = on_swap
        self.checked = asyncio.Event()
        self._current: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        self._check_now = asyncio.Event()

    def on_message(self, _key: bytes | None, value: bytes | None) -> None:
        """A message of `releases`: check at once, also a release that was refused before. Raises MessageError."""
        announcement = decode_announcement(value)
        self.refused.pop((announcement.domain, announcement.release), None)
        self._check_now.set()

    def check_now(self) -> None:
        """Check the folder without waiting for the next second."""
        self._check_now.set()

    async def run(self) -> None:
        """Check now, at every announcement, and every second: an announcement may be lost, the folder is not."""
        while True:
            self._check_now.clear()
            await self.check()
            try:
                await asyncio.wait_for(self._check_now.wait(), CHECK_EVERY_S)
            except TimeoutError:
                continue

    async def check(self) -> None:
        """Load what the folder names and is not in memory yet."""
        for name in self._domains:
            try:
                await self._check_serving(name)
                await self._check_rollout(name)
            except Exception as error:  # the other domains go on, and so does this one a second later
                if self._failures.get(name) != str(error):
                    log.exception("%s: its releases cannot be followed", name)
                self._failures[name] = str(error)
            else:
                self._failures.pop(name, None)
        self.checked.set()

    def serving_id(self, name: str) -> str | None:
        """The id of the release that serves a domain here."""
        return self._domains[name].serving_id

    def problem(self, name: str) -> RefusedRelease | None:
        """Why the current release of a domain does not serve here; None where it does."""
        return self.refused.get((name, POINTER)) or self.refused.get((name, self._current.get(name, "")))

    async def _check_serving(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        try:
            release_id = await loop.run_in_executor(self._executor, release_store.current_id, self.root, name)
        except ReleaseError as error:
            self._refuse(name, POINTER, error)
            if self._domains[name].serving is None:
                await self._fall_back(name)
            return
        self.refused.pop((name, POINTER), None)
        self._current[name] = release_id or ""
        if release_id is None or release_id == self.serving_id(name):
            return
        if not await self._swap(name, release_id) and self._domains[name].serving is None:
            await self._fall_back(name)

    async def _swap(self, name: str, release_id: str) -> bool:
        if (name, release_id) in self.refused:
            return False
        old = self.serving_id(name)
        try:
            with self._domains[name].loading() as loading:
                release = await self._load(loading, name, release_id)
        except ReleaseError as error:
            self._refuse(name, release_id, error)
            return False
        _report(name, old, release)
        self._on_swap()
        return True

    async def _load(self, loading: ReleaseLoading, name: str, release_id: str) -> Release:
        loop, folder = asyncio.get_running_loop(), self.root / name / release_id
        try:
            release = await loop.run_in_executor(self._executor, _load, folder)
            await loop.run_in_executor(self._executor, loading.prepare, release)
        except ReleaseError:
            raise
        except Exception as error:  # of whatever library meets what a release contains
            raise ReleaseError("unusable", f"{folder}: {type(error).__name__}: {error}") from error
        return release

    async def _fall_back(self, name: str) -> None:
        """Without a serving release (a start with a damaged one), the newest whole one is better than none."""
        loop = asyncio.get_running_loop()
        releases = await loop.run_in_executor(self._executor, release_store.list_releases, self.root, name)
        for release in releases:
            if release.state == "ready" and await self._swap(name, release.id):
                log.warning("%s: release %s, the newest whole one, serves instead", name, release.id)
                return

    async def _check_rollout(self, name: str) -> None:
        """Load the releases of a rollout; a release that cannot be loaded never answers."""
        loop, state = asyncio.get_running_loop(), self._domains[name]
        try:
            planned = await loop.run_in_executor(self._executor, arms.read, self.root, name)
        except ReleaseError as error:
            self._refuse(name, arms.FILE, error)
            planned = arms.Rollout()
        else:
            self.refused.pop((name, arms.FILE), None)
        before, has_serving = self.rollouts.get(name), state.serving is not None
        canary = await self._arm(name, "canary", planned.canary if has_serving else None)
        shadow = await self._arm(name, "shadow", planned.shadow if has_serving else None)
        if canary is (before.canary if before else None) and shadow is (before.shadow if before else None):
            return
        self._set_rollout(name, canary, shadow)
        self._on_swap()

    def _set_rollout(self, name: str, canary: LoadedArm | None, shadow: LoadedArm | None) -> None:
        before = self.rollouts.get(name)
        active = ActiveRollout(name, canary, shadow)
        if before is not None and canary is not None and canary is before.canary:
            active.control = before.control
        if active.arms:
            self.rollouts[name] = active
        else:
            self.rollouts.pop(name, None)
        self._domains[name].arms = tuple(arm.loaded for arm in active.arms.values())
        for role, arm in (("canary", canary), ("shadow", shadow)):
            metrics.arm_traffic_share.labels(name, role).set(arm.arm.share if arm is not None else 0)
            log.info("%s: %s %s", name, role, f"{arm.arm.release}, share {arm.arm.share:g}" if arm else "off")

    async def _arm(self, name: str, role: Role, planned: Arm | None) -> LoadedArm | None:
        """The arm as it is planned, in memory; None for one that is not planned or cannot be loaded."""
        if planned is None or planned.release == self.serving_id(name):
            return None
        active = self.rollouts.get(name)
        kept = active.arms.get(role) if active is not None else None
        if kept is not None and kept.arm == planned:
            return kept
        try:
            with self._domains[name].loading(serve=False) as loading:
                await self._load(loading, name, planned.release)
        except ReleaseError as error:
            self._refuse(name, planned.release, error)
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._executor, self._end, name, role, planned, error)
            return None
        assert loading.loaded is not None, "prepared inside"
        return LoadedArm(planned, loading.loaded, ArmCounters(name, role))

    def _end(self, name: str, role: Role, arm: Arm, error: ReleaseError) -> None:
        if role == "canary":
            rollout.roll_back_canary(self.root, name, arm.salt, error.reason, error.detail)
            return
        rollout.end_trial(self.root, name, role, action="refused", reason=error.reason, detail=error.detail)
        release_store.refuse(self.root, name, arm.release, error)

    def _refuse(self, name: str, release: str, error: ReleaseError) -> None:
        if (name, release) not in self.refused:
            log.error("%s: release %s is refused (%s): %s", name, release, error.reason, error.detail)
            metrics.releases_rejected.labels(error.reason).inc()
            self.refused[name, release] = RefusedRelease(name, release, error.reason, error.detail)


def _load(folder: Path) -> Release:
    release = release_store.load(folder)
    release.scores([History()])  # the first call of a session is slow, so it is not a visitor's
    return release


def _report(name: str, old: str | None, release: Release) -> None:
    """Log the release that serves now, and set its metrics."""
    manifest = release.manifest
    log.info("%s: release %s (%s) serves %d items", name, release.id, manifest.recommender, manifest.items)
    if old is not None:
        metrics.release_info.remove(name, old)
    created = manifest.created_at / 1000
    metrics.release_info.labels(name, release.id).set(1)
    metrics.release_created.labels(name).set(created)
    metrics.release_age.labels(name).set_function(lambda: time.time() - created)
    for metric, value in manifest.metrics.items():
        metrics.release_quality.labels(name, metric).set(value)
