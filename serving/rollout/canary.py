"""The loop that ends canaries: it reads counts and figures, asks `models.releases.canary`, and acts.

It runs in the API, because errors and latencies of the arms are known there. Where several API processes share the
folder of releases, the one that holds a lock decides; the kernel lets go of the lock with its process.
"""

import asyncio
import fcntl
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO, Any, Final

import msgspec

from features import outcomes
from features.outcomes import ImpressionCounts, PartitionOutcomes
from models.errors import ReleaseError
from models.releases import arms, baseline, canary, rollout
from models.releases.arms import Arm
from models.releases.baseline import Baseline
from models.releases.canary import ArmStats, CanaryDecision, CanaryThresholds
from serving import metrics
from serving.catalogue.domain import Domain
from serving.rollout.arms import Figures, Trial
from serving.settings import Settings

EVERY_S: Final = 1.0
HOUR_MS: Final = 60 * 60 * 1000
LOCK: Final = ".decider.lock"

Say = Callable[[str, str], Awaitable[None]]
"""Called with a domain and what was done (`rollback`, `promote`) once it is done."""

log = logging.getLogger("coldstream.api")
_rows = msgspec.json.Decoder(PartitionOutcomes)


class Told:
    """The newest rows of the topic `outcomes`, as they came; decoded when asked for."""

    def __init__(self) -> None:
        self._raw: dict[bytes, bytes] = {}

    def hear(self, key: bytes | None, value: bytes | None) -> None:
        """A message of `outcomes`."""
        if key is not None and value is not None:
            self._raw[key] = value

    def counts(self) -> dict[str, dict[str, ImpressionCounts]]:
        """Lists shown and clicked, by domain and release, over all partitions."""
        rows = []
        for key, value in list(self._raw.items()):
            try:
                rows.append(_rows.decode(value))
            except msgspec.DecodeError as error:
                log.warning("a message on outcomes is passed over (%s): %s", key, error)
        return outcomes.merge(rows)


class Decider:
    """Judges the canaries of this process. `ready` is set once the outcomes of the past were read."""

    def __init__(
        self, root: Path, domains: Mapping[str, Domain], told: Told, bounds: CanaryThresholds, *, auto: bool, say: Say
    ) -> None:
        self.root = root
        self.verdicts: dict[str, CanaryDecision] = {}
        self._domains = domains
        self._told = told
        self._bounds = bounds
        self._auto = auto
        self._say = say
        self._lock: IO[str] | None = None

    async def run(self, ready: asyncio.Event) -> None:
        """Decide until cancelled."""
        await ready.wait()
        while True:
            for name, domain in self._domains.items():
                trial = domain.trial
                if trial is not None and trial.canary is not None:
                    await self._decide(name, trial, trial.canary.arm)
                else:
                    self.verdicts.pop(name, None)
            await asyncio.sleep(EVERY_S)

    def sides(self, name: str, trial: Trial) -> tuple[ArmStats, ArmStats] | None:
        """Canary and control since the trial began; None before it was first looked at."""
        if trial.canary is None:
            return None
        began = baseline.read(self.root, name)
        if began is None or began.salt != trial.canary.arm.salt:
            return None
        counts = self._told.counts().get(name, {})
        ours, theirs = baseline.since(began, counts, trial.canary.arm.release)
        since = max(trial.canary.figures.oldest(), trial.control.oldest())  # both arms under the same load
        return _side(ours, trial.canary.figures, since), _side(theirs, trial.control, since)

    async def _decide(self, name: str, trial: Trial, arm: Arm) -> None:
        verdict = await asyncio.to_thread(self._judge, name, trial, arm)
        if verdict is None:
            return
        self.verdicts[name] = verdict
        action = verdict.action
        if action == "promote" and not self._auto:
            await asyncio.to_thread(rollout.mark_ready, self.root, name, arm.salt, verdict.detail)
            return
        if action == "wait":
            return
        done = await asyncio.to_thread(self._act, name, arm, verdict)
        if done is not None:
            metrics.trials_ended.labels(name, action, verdict.reason).inc()
            log.warning("%s: canary %s: %s (%s): %s", name, arm.release, action, verdict.reason, verdict.detail)
            await self._say(name, action)

    def _judge(self, name: str, trial: Trial, arm: Arm) -> CanaryDecision | None:
        if not self._alone():
            return None
        began = baseline.read(self.root, name)
        if began is None or began.salt != arm.salt:
            baseline.write(self.root, name, Baseline(arm.salt, self._told.counts().get(name, {})))
        sides = self.sides(name, trial)
        if sides is None:
            return None
        for label, side in zip(("canary", "serving"), sides, strict=True):
            metrics.arm_lists.labels(name, label).set(sum(side.counts.impressions))
            metrics.arm_clicked.labels(name, label).set(sum(side.counts.clicks))
        return canary.decide(*sides, self._bounds, self._hours(name, arm))

    def _hours(self, name: str, arm: Arm) -> float:
        """How long a trial has gone on; 0 for one that may be promoted: it has its verdict, and waits for a person."""
        try:
            waits = arms.read(self.root, name).ready is not None
        except ReleaseError:  # who follows the file says so, and ends the trial
            waits = True
        return 0.0 if waits else (time.time() * 1000 - arm.began_at) / HOUR_MS

    def _act(self, name: str, arm: Arm, verdict: CanaryDecision) -> Arm | None:
        if verdict.action == "rollback":
            return rollout.roll_back_canary(self.root, name, arm.salt, f"canary-{verdict.reason}", verdict.detail)
        try:
            return rollout.promote_canary(self.root, name, arm.salt, verdict.detail)
        except ReleaseError as error:
            return rollout.roll_back_canary(self.root, name, arm.salt, error.reason, error.detail)

    def _alone(self) -> bool:
        if self._lock is None:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / LOCK).open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                return False
            self._lock = lock
        return True


def bounds_of(settings: Settings) -> CanaryThresholds:
    """What the settings ask of a canary."""
    return CanaryThresholds(
        settings.canary_alpha,
        settings.canary_impressions,
        settings.canary_margin,
        settings.canary_errors,
        settings.canary_latency,
        settings.canary_hours,
    )


def told_of(name: str, domain: Domain, decider: Decider, counts: Mapping[str, ImpressionCounts]) -> dict[str, Any]:
    """What `/v1/releases` says of a domain's rollout: state, figures of each arm, verdict, outcomes by release."""
    trial = domain.trial
    try:
        told = msgspec.to_builtins(arms.read(decider.root, name))
    except ReleaseError as error:
        told = {"reason": error.reason, "detail": error.detail}
    figures: dict[str, Any] = {}
    sides = decider.sides(name, trial) if trial is not None else None
    if sides is not None:
        figures = {"canary": _figures(sides[0]), "serving": _figures(sides[1])}
    if trial is not None and trial.shadow is not None:
        figures["shadow"] = _shadow_figures(trial.shadow.figures)
    verdict = decider.verdicts.get(name)
    return {
        **told,
        "loaded": [role for role in ("canary", "shadow") if trial is not None and getattr(trial, role) is not None],
        "figures": figures,
        "verdict": msgspec.to_builtins(verdict) if verdict is not None else None,
        "outcomes": {release: _outcome(found) for release, found in counts.items()},
    }


def _side(counts: ImpressionCounts, figures: Figures, since: float) -> ArmStats:
    return ArmStats(counts, figures.answers, figures.errors, figures.seconds(since))


def _figures(side: ArmStats) -> dict[str, Any]:
    found = canary.click_through_rate(side.counts)
    return {
        "impressions": found.impressions,
        "clicks": found.clicks,
        "click_through": round(found.value, 6),
        "answers": side.answers,
        "errors": side.errors,
        "p95_ms": round(1000 * canary.p95(side.seconds), 3),
    }


def _shadow_figures(figures: Figures) -> dict[str, Any]:
    given = max(1, figures.answers - figures.errors)
    return {
        "answers": figures.answers,
        "errors": figures.errors,
        "dropped": figures.dropped,
        "overlap@10": round(figures.overlap / given, 4),
        "p95_ms": round(1000 * canary.p95(figures.seconds()), 3),
        "judged": figures.judged,
        "hits": figures.hits,
        "shown_hits": figures.shown_hits,
    }


def _outcome(counts: ImpressionCounts) -> dict[str, Any]:
    hours = {time.strftime("%Y-%m-%dT%HZ", time.gmtime(hour / 1000)): pair for hour, pair in counts.hours.items()}
    return {"impressions": sum(counts.impressions), "clicks": sum(counts.clicks), "hours": hours}
