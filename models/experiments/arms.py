"""The arms of the cold-start experiment: which scorers each adds to the opponent's members."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from models.data.interactions import Interactions
from models.injection.direct import GeneratorRanking
from models.injection.imagination import Imagination
from models.injection.injection import FADED, Injection
from models.injection.soft import Expected
from models.recommenders.base import Scorer
from models.synthesizers import registry
from models.synthesizers.base import Synthesizer, SynthesizerContext

Kind = Literal["synthesis", "control", "direct", "ensemble"]
WEIGHT: Final = (1.0,) * FADED
"""Of all imagined events together against all real ones, by the number of real ones; the blend decides how much of the
injected recommender, and how much of the same one without injection, it takes."""


class ExperimentArm(msgspec.Struct, frozen=True):
    """The opponent with the scorers `members`. `kind`: injected synthesis, a control that injects as much, a generator
    that ranks directly, or an ensemble."""

    name: str
    kind: Kind
    members: tuple[str, ...]


class ArmPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Which generators imagine events, so many `steps` ahead, for which recommenders (`hosts`).

    `params`: of a generator, by its name. `seconds`: that a generator's fit may take (None: any). `top`: the most
    probable events that are injected.
    """

    synthesizers: tuple[str, ...] = ("walk", "markov")
    hosts: tuple[str, ...] = ("sequential-rules", "ease")
    steps: tuple[int, ...] = (1, 2, 3)
    params: Mapping[str, Mapping[str, Any]] = {}
    seconds: float | None = None
    top: int = 64
    seed: int = 0


Part = tuple[str, Kind, dict[str, Imagination], dict[str, Scorer]]


class ExperimentArms:
    """The scorers of every arm, fitted on a fold's interactions, and which arm adds which."""

    def __init__(self, plan: ArmPlan, report: Callable[[str, float], None] = lambda _stage, _done: None) -> None:
        self.plan, self.report = plan, report
        self.arms: list[ExperimentArm] = []
        """Filled by `scorers`; the same arms for any interactions."""
        self.injections: dict[str, Injection] = {}
        """Every scorer with imagined events, of the last call of `scorers`."""

    def scorers(self, members: Mapping[str, Scorer], interactions: Interactions) -> dict[str, Scorer]:
        """Scorers by name that stand on the fitted `members`; generators are fitted on the same interactions."""
        self.arms, self.injections = [], {}
        scorers: dict[str, Scorer] = {}
        for name, kind, imaginations, direct in self._parts(interactions):
            own: dict[str, Scorer] = dict(direct)
            for part, imagination in imaginations.items():
                for host in (host for host in self.plan.hosts if host in members):
                    injection = Injection(members[host], imagination, weight=WEIGHT, name=f"{part} in {host}")
                    own[injection.name] = self.injections[injection.name] = injection
            self.arms.append(ExperimentArm(name, kind, tuple(own)))
            scorers |= own
        return scorers

    def _parts(
        self, interactions: Interactions
    ) -> Iterator[tuple[str, Kind, dict[str, Imagination], dict[str, Scorer]]]:
        """Name and kind of each arm, what it imagines, and scorers that inject nothing."""
        for name in self.plan.synthesizers:
            synthesizer = self.fitted(name, interactions)
            expected: dict[str, Imagination] = {
                f"{name} {step} ahead": Expected(synthesizer, steps=step, top=self.plan.top) for step in self.plan.steps
            }
            yield f"A1s {name}", "synthesis", expected, {}
            ranking: dict[str, Scorer] = {
                f"{name} ranks {step} ahead": GeneratorRanking(synthesizer, steps=step) for step in self.plan.steps
            }
            yield f"A4 {name}", "direct", {}, ranking

    def created(self, name: str) -> Synthesizer:
        """A generator that is not fitted."""
        context = SynthesizerContext(self.plan.seed, self.plan.seconds)
        return registry.create(name, self.plan.params.get(name, {}), context)

    def fitted(self, name: str, interactions: Interactions) -> Synthesizer:
        """A fitted generator."""
        synthesizer = self.created(name)
        synthesizer.fit(interactions, lambda share, _figures: self.report(f"fit {name}", share))
        return synthesizer


def of_kind(arms: Sequence[ExperimentArm], *kinds: Kind) -> list[str]:
    """The names of arms of these kinds."""
    return [arm.name for arm in arms if arm.kind in kinds]
