"""The arms of the cold-start experiment: which scorers each adds to the opponent's members."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np

from models.data.batch import Batch
from models.data.interactions import Interactions
from models.experiments.guards import check_volumes
from models.injection.controls import CroppedUsers, NeighborItems, OtherUsers, PopularityEvents
from models.injection.direct import GeneratorRanking
from models.injection.imagination import Imagination
from models.injection.injection import FADED, Injection
from models.injection.sampled import Enumerated, Sampled
from models.injection.soft import Expected
from models.recommenders.base import Scorer
from models.synthesizers import registry
from models.synthesizers.base import Synthesizer, SynthesizerContext
from models.synthesizers.conditions import SynthesisError
from models.synthesizers.stepwise import StepwiseSynthesizer

Kind = Literal["synthesis", "control", "direct", "ensemble"]
WEIGHT: Final = (1.0,) * FADED
"""Of all imagined events together against all real ones, by the number of real ones; the blend decides how much of the
injected recommender, and how much of the same one without injection, it takes."""
EVENTS: Final = 64
"""Imagined events of each history in every arm, at most."""
PATHS: Final = 8
"""Sampled histories for each user; they share EVENTS."""
OTHER_SEEDS: Final = (1, 2)
"""Of the encoders of an ensemble, besides the member itself."""
Again = Callable[[str, Interactions, int], Scorer]


class ExperimentArm(msgspec.Struct, frozen=True):
    """The opponent with the scorers `members`. `kind`: injected synthesis, a control that injects as much, a generator
    that ranks directly, or an ensemble."""

    name: str
    kind: Kind
    members: tuple[str, ...]


class ArmPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Which generators imagine events, so many `steps` ahead, for which recommenders (`hosts`).

    `sampled`, `enumerated`: generators whose sampled, or most probable, histories are injected into the first host too.
    `controls`: whether arms that inject as many events from elsewhere, and ensembles of encoders, are measured.
    `params`: of a generator, by its name. `seconds`: that a generator's fit may take (None: any).
    """

    synthesizers: tuple[str, ...] = ("walk", "markov")
    hosts: tuple[str, ...] = ("sequential-rules", "ease")
    steps: tuple[int, ...] = (1, 2, 3)
    sampled: tuple[str, ...] = ()
    enumerated: tuple[str, ...] = ()
    controls: bool = True
    params: Mapping[str, Mapping[str, Any]] = {}
    seconds: float | None = None
    seed: int = 0


class ArmPart(msgspec.Struct):
    """What an arm adds: what is imagined for the first `hosts` (None: all of them), and scorers as they are."""

    name: str
    kind: Kind
    imagined: Mapping[str, Imagination] = {}
    scorers: Mapping[str, Scorer] = {}
    hosts: int | None = None


class ExperimentArms:
    """The scorers of every arm, fitted on a fold's interactions, and which arm adds which.

    `again`: fits a neural member with another seed on the same interactions.
    """

    def __init__(
        self,
        plan: ArmPlan,
        report: Callable[[str, float], None] = lambda _stage, _done: None,
        again: Again | None = None,
    ) -> None:
        self.plan, self.report, self.again = plan, report, again
        self.arms: list[ExperimentArm] = []
        """Filled by `scorers`; the same arms for any interactions."""
        self.injections: dict[str, Injection] = {}
        """Every scorer with imagined events, of the last call of `scorers`."""

    def scorers(self, members: Mapping[str, Scorer], interactions: Interactions) -> dict[str, Scorer]:
        """Scorers by name that stand on the fitted `members`; generators are fitted on the same interactions."""
        self.arms, self.injections = [], {}
        scorers: dict[str, Scorer] = {}
        for part in self._parts(members, interactions):
            own = dict(part.scorers)
            for imagined, imagination in part.imagined.items():
                for host in [host for host in self.plan.hosts if host in members][: part.hosts]:
                    injection = Injection(members[host], imagination, weight=WEIGHT, name=f"{imagined} in {host}")
                    own[injection.name] = self.injections[injection.name] = injection
            self.arms.append(ExperimentArm(part.name, part.kind, tuple(own)))
            scorers |= own
        return scorers

    def _parts(self, members: Mapping[str, Scorer], interactions: Interactions) -> Iterator[ArmPart]:
        """Every arm, one after another."""
        plan = self.plan
        fitted = {name: self.fitted(name, interactions) for name in self.generators}
        for name in plan.synthesizers:
            ahead = {f"{name} {step} ahead": Expected(fitted[name], steps=step, top=EVENTS) for step in plan.steps}
            yield ArmPart(f"A1s {name}", "synthesis", ahead)
            ranking = {f"{name} ranks {step} ahead": GeneratorRanking(fitted[name], steps=step) for step in plan.steps}
            yield ArmPart(f"A4 {name}", "direct", scorers=ranking)
        for name in plan.sampled:
            histories = Sampled(fitted[name], paths=PATHS, events=EVENTS // PATHS, seed=plan.seed)
            yield ArmPart(f"A1 {name} sampled", "synthesis", {f"{name} sampled": histories}, hosts=1)
        for name in plan.enumerated:
            continuations = Enumerated(stepwise(fitted[name]), most=EVENTS)
            yield ArmPart(f"A1 {name} enumerated", "synthesis", {f"{name} enumerated": continuations}, hosts=1)
        if plan.controls:
            like = Expected(fitted[plan.synthesizers[0]], steps=plan.steps[0], top=EVENTS)
            yield from self._controls(members, interactions, like)

    def _controls(
        self, members: Mapping[str, Scorer], interactions: Interactions, like: Imagination
    ) -> Iterator[ArmPart]:
        """Arms that inject as many events as `like` imagines, with the same probabilities, and ensembles."""
        seed, counts = self.plan.seed, np.bincount(interactions.items, minlength=len(interactions.vocabulary))
        controls: dict[str, Imagination] = {
            "A2a popular items": PopularityEvents(like, counts.astype(np.float32), seed=seed),
            "A2b cropped users": CroppedUsers(like, interactions, seed=seed),
            "A5 another user's": OtherUsers(like, interactions, seed=seed),
        }
        if "item-knn" in members:
            controls["A3 item-kNN neighbors"] = NeighborItems(members["item-knn"], like)
        for name, imagination in controls.items():
            yield ArmPart(name, "control", {name.partition(" ")[2]: imagination})
        if self.again is not None:
            for name in (name for name, member in members.items() if member.is_neural):
                others = {f"{name} seed {seed}": self.again(name, interactions, seed) for seed in OTHER_SEEDS}
                yield ArmPart(f"A6 {name} ensemble", "ensemble", scorers=others)

    @property
    def generators(self) -> tuple[str, ...]:
        """Every generator that some arm needs."""
        return tuple(dict.fromkeys([*self.plan.synthesizers, *self.plan.sampled, *self.plan.enumerated]))

    def check_volumes(self, batch: Batch) -> None:
        """Controls inject as many events as the expectation that they match, for the histories of a batch."""
        controls = [name for arm in self.arms if arm.kind == "control" for name in arm.members]
        first = f"{self.plan.synthesizers[0]} {self.plan.steps[0]} ahead in "
        matched = [name for name in self.injections if name.startswith(first)]
        counts = {name: self.injections[name].injected_events(batch).tolist() for name in [*matched, *controls]}
        check_volumes(counts)

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


def stepwise(synthesizer: Synthesizer) -> StepwiseSynthesizer:
    """A generator whose histories can be enumerated.

    Raises:
        SynthesisError: it is none.
    """
    if not isinstance(synthesizer, StepwiseSynthesizer):
        raise SynthesisError(f"{synthesizer.name} gives no probabilities of single events to enumerate; choose another")
    return synthesizer
