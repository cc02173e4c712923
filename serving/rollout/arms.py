"""What a domain tries out in this process: the loaded arms, who is answered by which, and how they do."""

import time
from array import array
from typing import Any, Final

from models.releases.arms import Arm, includes
from serving import metrics
from serving.catalogue.domain import Aligned, Domain

REMEMBERED: Final = 2_000
"""Rankings whose time is remembered, for the 95th percentile."""


class Beside(Domain):
    """A domain as another of its releases sees it: everything but the release is the domain's own, at every moment."""

    def __init__(self, domain: Domain, aligned: Aligned) -> None:
        self.domain = domain
        self.aligned = aligned

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["domain"], name)


class Figures:
    """How an arm did since its trial began. Written by one thread, read by any."""

    def __init__(self) -> None:
        self.answers = 0
        self.errors = 0
        self.passes = 0
        self.overlap = 0.0
        self.judged = 0
        self.hits = 0
        self.shown_hits = 0
        self.dropped = 0
        self._seconds = array("d", bytes(8 * REMEMBERED))
        self._times = array("d", bytes(8 * REMEMBERED))

    def took(self, seconds: float) -> None:
        """Note the time of one ranking."""
        self._seconds[self.passes % REMEMBERED] = seconds
        self._times[self.passes % REMEMBERED] = time.monotonic()
        self.passes += 1

    def oldest(self) -> float:
        """Since when (`time.monotonic`) every ranking is remembered."""
        return min(self._times) if self.passes >= REMEMBERED else 0.0

    def seconds(self, since: float = 0.0) -> list[float]:
        """The times of the newest rankings since a moment (`time.monotonic`), in no order."""
        known = min(self.passes, REMEMBERED)
        return [one for one, at in zip(self._seconds[:known], self._times[:known], strict=True) if at >= since]


class Tried:
    """An arm that is loaded: its domain as its release sees it, and its figures."""

    def __init__(self, arm: Arm, home: Beside, figures: Figures | None = None) -> None:
        self.arm = arm
        self.home = home
        self.figures = figures or Figures()


class Trial:
    """A domain's arms. `control` has the figures of the serving release since the canary began."""

    def __init__(self, name: str, canary: Tried | None, shadow: Tried | None, control: Figures | None = None) -> None:
        self.name = name
        self.canary = canary
        self.shadow = shadow
        self.control = control or Figures()

    def home_of(self, user_id: str | None) -> Beside | None:
        """What answers a user: the canary, or None for the serving release (also for anonymous visitors)."""
        canary = self.canary
        if canary is None or user_id is None or not includes(canary.arm, user_id):
            return None
        return canary.home

    def answered(self, home: Domain, answers: int) -> None:
        """Note answers given by an arm."""
        self._of(home).answers += answers
        metrics.arm_answers.labels(self.name, _arm(home)).inc(answers)

    def failed(self, home: Domain, answers: int) -> None:
        """Note answers that an arm failed to give; an attempt is an answer, too."""
        figures = self._of(home)
        figures.answers += answers
        figures.errors += answers
        metrics.arm_errors.labels(self.name, _arm(home)).inc(answers)

    def ranked(self, home: Domain, seconds: float) -> None:
        """Note the time of one ranking by an arm."""
        self._of(home).took(seconds)
        metrics.arm_seconds.labels(self.name, _arm(home)).observe(seconds)

    def _of(self, home: Domain) -> Figures:
        return self.canary.figures if isinstance(home, Beside) and self.canary is not None else self.control


def _arm(home: Domain) -> str:
    return "canary" if isinstance(home, Beside) else "serving"
