"""The loop that ends canaries: it reads outcomes and statistics, asks `models.releases.canary`, and acts.

It runs in the API, because errors and latencies of the arms are known there. Where several API processes share the
folder of releases, the one that holds a lock decides; the kernel releases the lock with that
process.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from features import outcomes
from features.outcomes import ImpressionCounts, PartitionOutcomes
from models.errors import ReleaseError
from models.releases import arms, baseline, canary, rollout
from models.releases.arms import Arm
from models.releases.baseline import Baseline
from models.releases.canary import ArmStats, CanaryDecision, CanaryThresholds
from serving import metrics
from serving.rollout.arms import ActiveRollout, ArmCounters
from serving.settings import Settings
from stream import files, topics

if TYPE_CHECKING:
    from filelock import BaseFileLock

CHECK_EVERY_S: Final = 1.0
HOUR_MS: Final = 60 * 60 * 1000
LOCK: Final = ".canary.lock"

OnEnd = Callable[[str, str], Awaitable[None]]
"""Called with a domain and an action (`rollback`, `promote`) once it is done."""

log = logging.getLogger("coldstream.api")
_rows = msgspec.json.Decoder(PartitionOutcomes)


class LatestOutcomes:
    """The newest rows of the topic `outcomes`, decoded on demand."""

    def __init__(self) -> None:
        self._raw: dict[bytes, bytes] = {}

    def on_message(self, key: bytes | None, value: bytes | None) -> None:
        """A message of `outcomes`."""
        if key is not None and value is not None:
            self._raw[key] = value

    def counts(self) -> dict[str, dict[str, ImpressionCounts]]:
        """Lists shown and clicked, by domain and release, over all partitions."""
        rows = []
        for key, value in list(self._raw.items()):
            try:
                rows.append(_rows.decode(value))
            except (ValueError, RecursionError) as error:
                self._raw.pop(key, None)
                metrics.records_skipped.labels(topics.OUTCOMES).inc()
                log.warning("invalid message on outcomes, skipped (%s): %s", key, error)
        return outcomes.merge(rows)


class CanaryController:
    """Judges the canaries of this process, and promotes them or rolls them back.

    `rollouts` are those in memory, by domain. With `auto` a canary that won is promoted; without, it is marked as ready
    for a person to promote.
    """

    def __init__(
        self,
        root: Path,
        rollouts: Mapping[str, ActiveRollout],
        outcomes: LatestOutcomes,
        thresholds: CanaryThresholds,
        *,
        auto: bool,
        on_end: OnEnd,
    ) -> None:
        self.root = root
        self.decisions: dict[str, CanaryDecision] = {}
        self._rollouts = rollouts
        self._outcomes = outcomes
        self._thresholds = thresholds
        self._auto = auto
        self._on_end = on_end
        self._lock: BaseFileLock | None = None

    async def run(self, ready: asyncio.Event) -> None:
        """Decide until cancelled; from when `ready` is set: the outcomes of the past were read."""
        await ready.wait()
        while True:
            for name, active in list(self._rollouts.items()):
                if active.canary is not None:
                    await self._decide(name, active, active.canary.arm)
            self._forget_ended()
            await asyncio.sleep(CHECK_EVERY_S)

    def arm_stats(self, name: str, active: ActiveRollout) -> tuple[ArmStats, ArmStats] | None:
        """Canary and control since the rollout began; None before it was first checked."""
        canary_arm = active.canary
        if canary_arm is None:
            return None
        start = baseline.read(self.root, name)
        if start is None or start.salt != canary_arm.arm.salt:
            return None
        counts = self._outcomes.counts().get(name, {})
        canary_counts, control_counts = baseline.since(start, counts, canary_arm.arm.release)
        since = max(canary_arm.counters.complete_since(), active.control.complete_since())  # both under the same load
        return _arm_stats(canary_counts, canary_arm.counters, since), _arm_stats(control_counts, active.control, since)

    def _forget_ended(self) -> None:
        for name in list(self.decisions):
            active = self._rollouts.get(name)
            if active is None or active.canary is None:
                self.decisions.pop(name)

    async def _decide(self, name: str, active: ActiveRollout, arm: Arm) -> None:
        decision = await asyncio.to_thread(self._judge, name, active, arm)
        if decision is None:
            return
        self.decisions[name] = decision
        action = decision.action
        if action == "promote" and not self._auto:
            await asyncio.to_thread(rollout.mark_ready, self.root, name, arm.salt, decision.detail)
            return
        if action == "wait":
            return
        done = await asyncio.to_thread(self._act, name, arm, decision)
        if done is not None:
            metrics.canaries_ended.labels(name, action, decision.reason).inc()
            log.warning("%s: canary %s: %s (%s): %s", name, arm.release, action, decision.reason, decision.detail)
            await self._on_end(name, action)

    def _judge(self, name: str, active: ActiveRollout, arm: Arm) -> CanaryDecision | None:
        if not self._holds_lock():
            return None
        start = baseline.read(self.root, name)
        if start is None or start.salt != arm.salt:
            baseline.write(self.root, name, Baseline(arm.salt, self._outcomes.counts().get(name, {})))
        both = self.arm_stats(name, active)
        if both is None:
            return None
        for label, stats in zip(("canary", "serving"), both, strict=True):
            metrics.arm_impressions.labels(name, label).set(sum(stats.counts.impressions))
            metrics.arm_clicked_impressions.labels(name, label).set(sum(stats.counts.clicks))
        return canary.decide(*both, self._thresholds, self._hours(name, arm))

    def _hours(self, name: str, arm: Arm) -> float:
        """How long a canary has run; 0 for one that is ready: it has its decision, and waits for a person."""
        try:
            ready = arms.read(self.root, name).ready is not None
        except ReleaseError:  # the release loader reports it, and ends the rollout
            ready = True
        return 0.0 if ready else (time.time() * 1000 - arm.began_at) / HOUR_MS

    def _act(self, name: str, arm: Arm, decision: CanaryDecision) -> Arm | None:
        if decision.action == "rollback":
            return rollout.roll_back_canary(self.root, name, arm.salt, f"canary-{decision.reason}", decision.detail)
        try:
            return rollout.promote_canary(self.root, name, arm.salt, decision.detail)
        except ReleaseError as error:
            return rollout.roll_back_canary(self.root, name, arm.salt, error.reason, error.detail)

    def _holds_lock(self) -> bool:
        if self._lock is None:
            self._lock = files.try_lock(self.root / LOCK)
        return self._lock is not None


def canary_thresholds(settings: Settings) -> CanaryThresholds:
    """The limits that the settings set a canary."""
    return CanaryThresholds(
        settings.canary_alpha,
        settings.canary_impressions,
        settings.canary_margin,
        settings.canary_errors,
        settings.canary_latency,
        settings.canary_hours,
    )


def describe_rollout(
    name: str, active: ActiveRollout | None, controller: CanaryController, counts: Mapping[str, ImpressionCounts]
) -> dict[str, Any]:
    """A domain's rollout as `/v1/releases` shows it: state, figures of each arm, decision, outcomes by release."""
    try:
        state = msgspec.to_builtins(arms.read(controller.root, name))
    except ReleaseError as error:
        state = {"reason": error.reason, "detail": error.detail}
    figures: dict[str, Any] = {}
    both = controller.arm_stats(name, active) if active is not None else None
    if both is not None:
        figures = {"canary": _figures(both[0]), "serving": _figures(both[1])}
    if active is not None and active.shadow is not None:
        figures["shadow"] = _shadow_figures(active.shadow.counters)
    decision = controller.decisions.get(name)
    return {
        **state,
        "loaded": list(active.arms) if active is not None else [],
        "figures": figures,
        "verdict": msgspec.to_builtins(decision) if decision is not None else None,
        "outcomes": {release: _outcome(release_counts) for release, release_counts in counts.items()},
    }


def _arm_stats(counts: ImpressionCounts, counters: ArmCounters, since: float) -> ArmStats:
    return ArmStats(counts, counters.answers, counters.errors, counters.seconds(since))


def _figures(stats: ArmStats) -> dict[str, Any]:
    rate = canary.click_through_rate(stats.counts)
    return {
        "impressions": rate.impressions,
        "clicks": rate.clicks,
        "click_through": round(rate.value, 6),
        "answers": stats.answers,
        "errors": stats.errors,
        "p95_ms": round(1000 * canary.p95(stats.seconds), 3),
    }


def _shadow_figures(counters: ArmCounters) -> dict[str, Any]:
    answered = max(1, counters.answers - counters.errors)
    return {
        "answers": counters.answers,
        "errors": counters.errors,
        "dropped": counters.dropped,
        "overlap@10": round(counters.overlap / answered, 4),
        "p95_ms": round(1000 * canary.p95(counters.seconds()), 3),
        "judged": counters.judged,
        "hits": counters.hits,
        "shown_hits": counters.serving_hits,
    }


def _outcome(counts: ImpressionCounts) -> dict[str, Any]:
    hours = {time.strftime("%Y-%m-%dT%HZ", time.gmtime(hour / 1000)): pair for hour, pair in counts.hours.items()}
    return {"impressions": sum(counts.impressions), "clicks": sum(counts.clicks), "hours": hours}
