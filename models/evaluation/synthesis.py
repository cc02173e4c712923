"""Evaluate synthesizers on a data set: fidelity against its ceiling, utility, and what attacks reveal.

Users are divided at random: most are learned from; two equal groups are held out. The first is what synthetic users are
compared with; its likeness to the second is the ceiling of every figure, and the attacker calibrates with the second.
Canaries, users with random sequences, are planted among those that are learned from.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.profiles import ProfileHistory
from models.data.vocabulary import DEFAULT_KIND_WEIGHTS
from models.errors import TrainingError
from models.evaluation.synthesis_report import Ceiling, GeneratorResults, SynthesisReport, shapes_of
from models.evaluation.utility import UtilityTest, utility_of
from models.privacy.canaries import exposure, plant_canaries, returned_canaries
from models.privacy.membership import CandidateUsers, attacks, exact_copies
from models.synthesizers import registry
from models.synthesizers.base import MAX_EVENTS, SamplingOptions, Synthesizer, SynthesizerContext
from models.synthesizers.conditions import ANYTHING
from models.synthesizers.decoding import Decoding, ItemConstraint
from models.synthesizers.discriminator import feature_auc, sequence_auc
from models.synthesizers.fidelity import Reference, compare
from models.synthesizers.histories import Histories

Progress = Callable[[str, float, dict[str, float]], None]
"""Called with the stage, the completed share of it (0..1), and its figures."""
BASELINE: Final = "markov"
LEAST_USERS: Final = 50
HELD_OUT: Final = 0.2
"""Share of the users in each held-out group, unless `SynthesisPlan.users` is less."""


class SynthesisPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is evaluated, and how.

    `generators`: parameters by name of the synthesizer; the baseline is always added. `users`: at most so many in each
    held-out group, and as many synthetic ones. `seconds`: limit of each fit (None: none). `canaries`: how many are
    planted. `epochs`: of the sequence discriminator, 0 leaves it out. `weights`: kind weights of the domain. `decoding`
    and `constraints`, built for the interactions that are learned from, say how items are drawn.
    """

    generators: Mapping[str, Mapping[str, Any]]
    seed: int = 0
    users: int = 2_000
    seconds: float | None = None
    canaries: int = 10
    epochs: int = 3
    weights: tuple[float, ...] = DEFAULT_KIND_WEIGHTS
    decoding: Decoding = Decoding()
    constraints: Callable[[Interactions], Sequence[ItemConstraint]] | None = None


def ignored(histories: Histories) -> None:
    """What is done with synthetic users that nobody keeps."""


class SynthesisExperiment:
    """A data set, divided once; `evaluate` fits and measures a synthesizer.

    Raises:
        TrainingError: there are fewer than LEAST_USERS users.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        plan: SynthesisPlan,
        progress: Progress,
        features: ItemFeatures | None = None,
        profiles: ProfileHistory | None = None,
    ) -> None:
        self.plan, self.progress = plan, progress
        rng = np.random.default_rng(plan.seed)
        groups = _divided(frame, plan, rng)
        learned, self.sequences = plant_canaries(groups[0], plan.canaries, rng)
        self.learned = Interactions.from_frame(
            learned, item_features=features, profiles=profiles, kind_weights=plan.weights
        )
        vocabulary = self.learned.vocabulary
        self.held_out, self.public = (
            first_events(Histories.from_interactions(Interactions.from_frame(group, vocabulary)), MAX_EVENTS)
            for group in groups[1:]
        )
        self.public_interactions = Interactions.from_frame(groups[2], vocabulary)
        rules = () if plan.constraints is None else plan.constraints(self.learned)
        self.sampling = SamplingOptions(decoding=plan.decoding, constraints=tuple(rules))
        self.reference = Reference.fit(self.learned, plan.seed)
        self.real_users = groups[0]["user_id"].unique()[: plan.users]
        real = groups[0][groups[0]["user_id"].isin(self.real_users)]
        self.utility = UtilityTest(groups[1], real, vocabulary, plan.seed)
        self.calibration = registry.create(BASELINE, {}, SynthesizerContext(plan.seed))
        self.calibration.fit(self.public_interactions)

    def ceiling(self) -> Ceiling:
        """Every figure of fidelity between the two held-out groups of real users."""
        left, right = _same_size(self.held_out, self.public)
        return Ceiling(
            compare(left, right, self.reference),
            feature_auc(left, right, self.reference, self.plan.seed),
            self._sequence_auc(left, right),
        )

    def fitted(self, name: str) -> tuple[Synthesizer, list[dict[str, float]], float]:
        """A synthesizer fitted on the users that are learned from, its figures by epoch, and the seconds it took."""
        context = SynthesizerContext(self.plan.seed, self.plan.seconds)
        synthesizer = registry.create(name, self.plan.generators.get(name, {}), context)
        curve: list[dict[str, float]] = []

        def progress(share: float, figures: Mapping[str, float]) -> None:
            curve.append(dict(figures))
            self.progress(f"fit {name}", share, dict(figures))

        started = time.monotonic()
        synthesizer.fit(self.learned, progress)
        return synthesizer, [figures for figures in curve if figures], time.monotonic() - started

    def evaluate(self, name: str, on_sampled: Callable[[Histories], None] = ignored) -> GeneratorResults:
        """Fit a synthesizer, sample as many users as are held out, and measure them.

        `on_sampled` gets the synthetic users. The figures do not depend on what was evaluated before.
        """
        rng = np.random.default_rng(self.plan.seed)
        synthesizer, curve, fit_seconds = self.fitted(name)
        started = time.monotonic()
        synthetic = self._sampled(synthesizer, len(self.held_out))
        sampling_seconds = time.monotonic() - started
        on_sampled(synthetic)
        self.progress(f"measure {name}", 0.2, {})
        left, right = _same_size(self.held_out, synthetic)
        fidelity = compare(left, right, self.reference)
        aucs = feature_auc(left, right, self.reference, self.plan.seed), self._sequence_auc(left, right)
        self.progress(f"measure {name}", 0.5, {})
        members = first_events(Histories.from_interactions(self.learned), MAX_EVENTS)
        some = members.take(np.sort(rng.permutation(len(members))[: len(self.held_out)]))
        users = CandidateUsers(some, self.held_out, self.public)
        found_out = attacks(synthesizer, self.calibration, synthetic, users, self.reference)
        index = self.learned.vocabulary.index
        canaries = [[index[item] for item in sequence if item in index] for sequence in self.sequences]
        self.progress(f"measure {name}", 0.7, {})
        results = GeneratorResults(
            name=name,
            params=synthesizer.describe(),
            fit_seconds=fit_seconds,
            users_per_second=len(synthetic) / max(sampling_seconds, 1e-9),
            fidelity=fidelity,
            feature_auc=aucs[0],
            sequence_auc=aucs[1],
            log_prob=_log_prob(synthesizer, self.held_out),
            utility=self._utility(synthesizer),
            attacks=found_out,
            copies=exact_copies(synthetic, members),
            held_out_copies=exact_copies(self.held_out, members),
            canaries_returned=returned_canaries(synthetic, canaries) if canaries else 0,
            exposure=exposure(synthesizer, canaries, rng) if canaries else None,
            curve=curve,
            shapes=shapes_of(synthetic),
        )
        self.progress(f"measure {name}", 1.0, {})
        return results

    def _sampled(self, synthesizer: Synthesizer, users: int) -> Histories:
        histories = synthesizer.sample([ANYTHING], users, np.random.default_rng(self.plan.seed), self.sampling)
        return histories.take(np.flatnonzero(histories.lengths > 0))

    def _utility(self, synthesizer: Synthesizer) -> Any:
        frame = self._sampled(synthesizer, len(self.real_users)).frame(self.learned.vocabulary)
        return utility_of(self.utility, frame, np.random.default_rng(self.plan.seed))

    def _sequence_auc(self, left: Histories, right: Histories) -> float | None:
        if not self.plan.epochs:
            return None
        return sequence_auc(left, right, len(self.learned.vocabulary), self.plan.seed, self.plan.epochs)


def evaluate_synthesizers(
    frame: pd.DataFrame,
    plan: SynthesisPlan,
    source: str,
    progress: Progress,
    features: ItemFeatures | None = None,
    profiles: ProfileHistory | None = None,
) -> SynthesisReport:
    """The report of every generator of the plan and of the baseline.

    Raises:
        TrainingError: there are too few users.
        SynthesisError: there is no such synthesizer.
    """
    experiment = SynthesisExperiment(frame, plan, progress, features, profiles)
    progress("ceiling", 0.0, {})
    ceiling = experiment.ceiling()
    progress("ceiling", 1.0, {})
    names: Sequence[str] = list(dict.fromkeys([*plan.generators, BASELINE]))
    return SynthesisReport(
        source=source,
        events=len(frame),
        users=int(frame["user_id"].nunique()),
        items=int(frame["item_id"].nunique()),
        compared=len(experiment.held_out),
        seed=plan.seed,
        ceiling=ceiling,
        generators=[experiment.evaluate(name) for name in names],
        shapes=shapes_of(experiment.held_out),
        created_at=int(time.time() * 1000),
    )


def first_events(histories: Histories, most: int) -> Histories:
    """The first `most` events of each user."""
    place = np.arange(len(histories.items)) - np.repeat(histories.starts[:-1], histories.lengths)
    kept = np.flatnonzero(place < most)
    starts = np.concatenate([[0], np.cumsum(np.minimum(histories.lengths, most))]).astype(np.int64)
    return Histories(
        starts,
        histories.items[kept],
        histories.kinds[kept],
        histories.at[kept],  # noqa: PD008 - an array of times
        histories.values[kept],
        histories.sessions[kept],
        histories.profiles,
    )


def _divided(frame: pd.DataFrame, plan: SynthesisPlan, rng: np.random.Generator) -> list[pd.DataFrame]:
    """Events of the users to learn from, of those to compare with, and of the public ones."""
    users = np.sort(frame["user_id"].unique())
    if len(users) < LEAST_USERS:
        raise TrainingError(
            f"{len(users)} users are too few to judge synthesizers; give events of {LEAST_USERS} or more"
        )
    each = min(plan.users, int(HELD_OUT * len(users)))
    order = rng.permutation(len(users))
    parts = (users[order[2 * each :]], users[order[:each]], users[order[each : 2 * each]])
    return [frame[frame["user_id"].isin(part)] for part in parts]


def _same_size(left: Histories, right: Histories) -> tuple[Histories, Histories]:
    size = min(len(left), len(right))
    return left.take(np.arange(size)), right.take(np.arange(size))


def _log_prob(synthesizer: Synthesizer, histories: Histories) -> float | None:
    logs = synthesizer.log_prob(histories)
    return None if logs is None else float(logs.sum() / max(1, len(histories.items)))
