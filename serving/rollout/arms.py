"""A domain's rollout in this process: the releases that are tried out, which users they answer, and how they do."""

import time
from array import array
from typing import Final

from models.releases.arms import Arm, Role, includes
from serving import metrics
from serving.catalogue.domain_state import LoadedRelease
from serving.catalogue.release_view import ReleaseView

TIMES_KEPT: Final = 2_000
"""Rankings whose time is remembered, for the 95th percentile."""
SERVING: Final = "serving"


class ArmCounters:
    """How an arm did since its rollout began. Written by one thread, read by any.

    `role` is canary, shadow, or serving for the release that a canary is compared with.
    """

    def __init__(self, domain: str, role: str) -> None:
        self.domain = domain
        self.role = role
        self.answers = 0
        self.errors = 0
        self.rankings = 0
        self.overlap = 0.0
        self.judged = 0
        self.hits = 0
        self.serving_hits = 0
        self.dropped = 0
        self._seconds = array("d", bytes(8 * TIMES_KEPT))
        self._times = array("d", bytes(8 * TIMES_KEPT))

    def count_answers(self, answers: int) -> None:
        """Count answers given."""
        self.answers += answers
        metrics.arm_recommendations.labels(self.domain, self.role).inc(answers)

    def count_errors(self, answers: int) -> None:
        """Count answers that failed; an attempt is an answer, too."""
        self.answers += answers
        self.errors += answers
        metrics.arm_errors.labels(self.domain, self.role).inc(answers)

    def observe(self, seconds: float) -> None:
        """Note the time of one ranking."""
        self._seconds[self.rankings % TIMES_KEPT] = seconds
        self._times[self.rankings % TIMES_KEPT] = time.monotonic()
        self.rankings += 1
        metrics.arm_ranking_seconds.labels(self.domain, self.role).observe(seconds)

    def complete_since(self) -> float:
        """Since when (`time.monotonic`) every ranking is remembered."""
        return min(self._times) if self.rankings >= TIMES_KEPT else 0.0

    def seconds(self, since: float = 0.0) -> list[float]:
        """The times of the newest rankings since a moment (`time.monotonic`), in no order."""
        kept = min(self.rankings, TIMES_KEPT)
        pairs = zip(self._seconds[:kept], self._times[:kept], strict=True)
        return [seconds for seconds, at in pairs if at >= since]


class LoadedArm:
    """A release that is tried out, in memory."""

    def __init__(self, arm: Arm, loaded: LoadedRelease, counters: ArmCounters) -> None:
        self.arm = arm
        self.loaded = loaded
        self.counters = counters

    @property
    def view(self) -> ReleaseView:
        """What look-ups see of it now."""
        return self.loaded.view


class ActiveRollout:
    """A domain's canary and shadow. `control` has the figures of the serving release since the canary began."""

    def __init__(self, domain: str, canary: LoadedArm | None, shadow: LoadedArm | None) -> None:
        self.canary = canary
        self.shadow = shadow
        self.control = ArmCounters(domain, SERVING)

    @property
    def arms(self) -> dict[Role, LoadedArm]:
        """The arms in memory, by role."""
        arms: dict[Role, LoadedArm] = {}
        if self.canary is not None:
            arms["canary"] = self.canary
        if self.shadow is not None:
            arms["shadow"] = self.shadow
        return arms

    def canary_for(self, user_id: str | None) -> LoadedArm | None:
        """The canary, if it answers this user; None for the serving release (also for anonymous visitors)."""
        canary = self.canary
        if canary is None or user_id is None or not includes(canary.arm, user_id):
            return None
        return canary

    def counters_of(self, role: str) -> ArmCounters:
        """The figures of what answered: the canary, or the serving release."""
        return self.canary.counters if role == "canary" and self.canary is not None else self.control
