"""Augmentation of a young shop: recommenders trained on real and synthetic users, against those of real users alone.

Of each fold a share of the training users is the whole shop. The strongest opponent (A0) is fitted on it, with and
without the recommenders that read titles and categories. Then the counting recommenders are fitted again on real and
added events, and blended again. Popularity counts, the clock, content-kNN and all targets keep to real events.
Parameters and weights are tuned on users beyond the share, the same for every arm; no arm sees the cold users.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final
from zlib import crc32

import msgspec
import numpy as np
import pandas as pd

from models.data.interactions import Interactions
from models.data.item_features import ItemFeatures
from models.data.profiles import ProfileHistory
from models.data.vocabulary import Vocabulary
from models.evaluation.cold_ranking import RankedEpisodes, rank_episodes
from models.evaluation.cold_users import ColdFold
from models.evaluation.cold_values import tail_of
from models.evaluation.opponent import BLEND, TUNED_ON, Opponent, OpponentPlan, Progress, of_users
from models.experiments.augmentation_events import (
    KINDS,
    LENGTHENED,
    USERS,
    AddedEvents,
    check_kinds,
    combined,
    duplicated,
    shuffled,
)
from models.experiments.guards import check_canary, check_counts, check_fold, check_volumes
from models.experiments.results import WARM, UnitResults, together, unit_results
from models.experiments.run import Unit
from models.recommenders.base import Scorer
from models.recommenders.sparse import popularity_of, popularity_prior
from models.synthesizers.base import Synthesizer, SynthesizerContext
from models.synthesizers.registry import create, synthesizer_class

REAL_ONLY: Final = ("popularity", "first-events", "content-knn")
"""Recommenders that count popularity or read texts: they are never fitted on synthetic events."""
TEXT_READERS: Final = ("content-knn",)
WITHOUT_TEXT: Final = ", without text"
NO_TEXT: Final = f"{BLEND}{WITHOUT_TEXT}"
DUPLICATED: Final = "duplicated"
POPULARITY: Final = "popularity-draw"
SHUFFLED: Final = "shuffled"
COPYING: Final = ("knn-copy", "mixture")
"""Synthesizers that return real histories, by design or as a part."""


class ShopRanks(msgspec.Struct, frozen=True):
    """Ranks of the cold users of a fold, and of its warm users."""

    cold: RankedEpisodes
    warm: RankedEpisodes


class AugmentationArm(msgspec.Struct, frozen=True):
    """What is added to a shop: `kind` of events by a `synthesizer`, or a control; `ratio` of them to real events."""

    kind: str
    synthesizer: str
    ratio: float
    shuffled: bool = False

    @property
    def is_control(self) -> bool:
        """Whether it is a control of equal volume."""
        return self.shuffled or self.synthesizer in {DUPLICATED, POPULARITY}

    @property
    def name(self) -> str:
        """The arm's name: `users by text, ratio 1`."""
        return f"{self.kind} by {f'{SHUFFLED} ' if self.shuffled else ''}{self.synthesizer}, ratio {self.ratio:g}"


class Scenario(msgspec.Struct, frozen=True):
    """A share of the training users, and a ratio of added to real events."""

    share: float
    ratio: float

    @property
    def name(self) -> str:
        """Such as `share=0.01 ratio=1`."""
        return f"share={self.share:g} ratio={self.ratio:g}"


class AugmentationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What is added to which shops.

    `shares` of the training users; `ratios` of added to real events. Of the first of `synthesizers` the events are also
    shuffled, as a control of each kind. `warm_users`: at most so many of each fold are checked for harm.
    """

    opponent: OpponentPlan
    shares: tuple[float, ...] = (0.01, 0.05, 0.2, 1.0)
    ratios: tuple[float, ...] = (0.25, 0.5, 1.0, 4.0)
    kinds: tuple[str, ...] = tuple(KINDS)
    synthesizers: tuple[str, ...] = ("text", "markov", "walk")
    warm_users: int = 100
    predictions: bool = False

    @property
    def scenarios(self) -> list[Scenario]:
        """Every share and ratio, one share after another."""
        return [Scenario(share, ratio) for share in self.shares for ratio in self.ratios]

    def arms(self, ratio: float) -> list[AugmentationArm]:
        """Every arm of a ratio, controls first."""
        controls = [AugmentationArm(USERS, control, ratio) for control in (DUPLICATED, POPULARITY)]
        controls += [AugmentationArm(kind, self.synthesizers[0], ratio, shuffled=True) for kind in self.kinds]
        return controls + [AugmentationArm(kind, name, ratio) for kind in self.kinds for name in self.synthesizers]


class Augmentation:
    """The experiment on a frame [user_id, item_id, kind, at]; a unit of work is a fold, a seed and a scenario.

    Raises:
        SynthesisError: there is no such kind or synthesizer, or the synthesizer cannot generate the kind.
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        plan: AugmentationPlan,
        progress: Progress | None = None,
        *,
        catalogue: ItemFeatures | None = None,
        categories: Mapping[str, str] | None = None,
        profiles: ProfileHistory | None = None,
    ) -> None:
        check_kinds(plan.kinds, [synthesizer_class(name) for name in plan.synthesizers])
        self.frame, self.plan = frame, plan
        self.progress = progress or (lambda _stage, _done, _figures: None)
        self._known: dict[str, Any] = {"catalogue": catalogue, "categories": categories, "profiles": profiles}
        self._scenarios = {scenario.name: scenario for scenario in plan.scenarios}
        self._shop: tuple[tuple[int, int, float], YoungShop, ShopRanks] | None = None
        self._checked = False

    def results_of(self, unit: Unit) -> UnitResults:
        """Rank the cold and warm users of a fold by the real recommenders and by every arm of the scenario."""
        scenario = self._scenarios[unit.scenario]
        shop, strongest = self._opened(unit, scenario.share)
        ranked, volumes = [strongest], {}
        arms = self.plan.arms(scenario.ratio)
        for number, arm in enumerate(arms):
            self.progress(f"fold {unit.fold + 1} {scenario.name}", number / len(arms), {})
            added = shop.added(arm)
            volumes[arm.name] = len(added)
            ranked.append(shop.augmented(arm, added))
        check_volumes({name: [count] for name, count in volumes.items() if LENGTHENED not in name})
        facts = {"real events": len(shop.real), "real users": shop.real.user_count, "added": volumes}
        tail = tail_of(np.bincount(shop.real.items, minlength=len(shop.real.vocabulary)))
        keep: dict[str, Any] = {"scenario": scenario.name, "tail": tail, "predictions": self.plan.predictions}
        parts = [unit_results(side_by_side([part.cold for part in ranked]), shop.cold, **keep)]
        if shop.warm:
            warm = side_by_side([part.warm for part in ranked])
            parts.append(unit_results(warm, shop.warm, group=WARM, **keep))
        return together(parts, {**facts, "params": shop.params})

    def _opened(self, unit: Unit, share: float) -> "tuple[YoungShop, ShopRanks]":
        """The shop of a unit and its opponent's ranks, which the scenarios of a share have in common."""
        key = (unit.seed, unit.fold, share)
        if self._shop is None or self._shop[0] != key:
            plan = self.plan.opponent
            plan = msgspec.structs.replace(plan, folds=msgspec.structs.replace(plan.folds, seed=unit.seed))
            opponent = Opponent(self.frame, plan, self.progress, **self._known)
            fold = opponent.folds.fold(unit.fold)
            check_fold(fold, self.frame)
            self._check_canaries(opponent)
            shop = YoungShop(opponent, fold, share, self.plan.warm_users)
            self._shop = (key, shop, shop.strongest())
        return self._shop[1:]

    def _check_canaries(self, opponent: Opponent) -> None:
        """Once: no synthesizer returns a planted user, but for those that are known to copy."""
        for name in () if self._checked else self.plan.synthesizers:
            if name not in COPYING:
                check_canary(name, partial(create, name, {}), opponent.interactions, self.frame)
        self._checked = True


class YoungShop:
    """A fold whose training users are a share of those that there are; the rest are strangers to the shop."""

    def __init__(self, opponent: Opponent, fold: ColdFold, share: float, warm_users: int) -> None:
        self.opponent, self.fold = opponent, fold
        self._seeds = (opponent.plan.folds.seed, fold.number)
        training = fold.tuning.training
        users = np.sort(training["user_id"].unique())
        order = np.random.default_rng(self._seeds).permutation(len(users))
        kept = set(users[order[: max(1, round(share * len(users)))]])
        frame = training[training["user_id"].isin(kept)]
        self.real = opponent.interactions(frame, self._catalogue(frame))
        self.cold, self.warm = fold.test.cold, fold.test.warm[:warm_users]
        assert not kept & {episode.user_id for episode in (*self.cold, *fold.tuning.cold)}
        check_counts(self.real, frame)
        self.members: dict[str, Scorer] = {}
        self.params: dict[str, dict[str, Any]] = {}
        self._synthesizers: dict[str, Synthesizer] = {}

    def _catalogue(self, frame: pd.DataFrame) -> Vocabulary:
        """Every item of the data set; those without events in the shop come last, in the order of their ids."""
        plan = self.opponent.plan
        own = Vocabulary.fit(frame, 1, kind_weights=plan.folds.weights, popularity_half_life_ms=plan.recency_ms)
        rest = sorted(set(self.opponent.folds.frame["item_id"].unique()) - set(own.index))
        return Vocabulary.from_items([*own.item_ids, *rest], own.kind_weights, own.popularity_half_life_ms)

    def strongest(self) -> ShopRanks:
        """Tune and fit every member on the real events; the ranks of the members and of their blends."""
        few = of_users(self.fold.tuning.cold, TUNED_ON)
        for name in self.opponent.members:
            self.members[name], self.params[name] = self.opponent.tuned(name, self.real, few)
        self.members |= self.opponent.clocks(self.real)
        return self._ranked(self.members, list(self.members))

    def augmented(self, arm: AugmentationArm, added: AddedEvents) -> ShopRanks:
        """The ranks of the blends of members that are fitted on real and added events, under the arm's names."""
        ranked = self._ranked(self.fitted_with(added), [])
        return ShopRanks(*(msgspec.structs.replace(part, arms=arm_names(arm)) for part in (ranked.cold, ranked.warm)))

    def fitted_with(self, added: AddedEvents) -> dict[str, Scorer]:
        """The members, those that may learn from added events fitted on them as well."""
        log, members = combined(self.real, added), dict(self.members)
        for name in self.opponent.members:
            if name not in REAL_ONLY:
                members[name] = self.opponent.member(name, self.params[name], log)
                count_real_events(members[name], self.real)
        return members

    def added(self, arm: AugmentationArm) -> AddedEvents:
        """The events that an arm adds: `ratio` times as many as the real ones, the same in every run."""
        events = max(1, round(arm.ratio * len(self.real)))
        rng = np.random.default_rng([*self._seeds, crc32(arm.name.encode())])
        if arm.synthesizer == DUPLICATED:
            added = duplicated(self.real, events, rng)
        else:
            added = KINDS[arm.kind](self._synthesizer(arm.synthesizer), self.real, events, rng)
        assert len(added) == events or arm.kind == LENGTHENED  # histories have a greatest length
        return shuffled(added, rng) if arm.shuffled else added

    def _synthesizer(self, name: str) -> Synthesizer:
        if name not in self._synthesizers:
            context = SynthesizerContext(self._seeds[0], 60 * self.opponent.plan.minutes)
            self._synthesizers[name] = create(name, {}, context)
            self._synthesizers[name].fit(self.real)
        return self._synthesizers[name]

    def _ranked(self, members: Mapping[str, Scorer], singles: Sequence[str]) -> ShopRanks:
        """The ranks of some members alone, and of the blends with and without those that read texts."""
        opponent, number, plan = self.opponent, self.fold.number, self.opponent.plan
        evidence, horizons = opponent.evidence(members, self.fold.tuning)
        silent = [name for name in members if name not in TEXT_READERS]
        blends = {
            BLEND: opponent.blend(evidence, horizons, list(members), number),
            NO_TEXT: opponent.blend(evidence, horizons, silent, number),
        }
        ranking: dict[str, Any] = {
            "masked": plan.masked,
            "length": plan.folds.length,
            "lists": True,
            "singles": singles,
        }
        return ShopRanks(*(rank_episodes(members, blends, part, **ranking) for part in (self.cold, self.warm)))


def arm_names(arm: AugmentationArm) -> tuple[str, str]:
    """An arm's names with and without the recommenders that read texts."""
    return arm.name, f"{arm.name}{WITHOUT_TEXT}"


def count_real_events(member: Scorer, real: Interactions) -> None:
    """Let a member that was fitted on added events order items of equal score by real events alone."""
    counts = popularity_of(real, real.vocabulary.popularity_half_life_ms)
    assert hasattr(member, "popularity")
    member.popularity = counts
    if hasattr(member, "prior"):
        member.prior = popularity_prior(counts)


def side_by_side(parts: Sequence[RankedEpisodes]) -> RankedEpisodes:
    """Ranks and lists of several groups of arms on the same episodes and vocabulary."""
    lists = [part.lists for part in parts if part.lists is not None]
    return msgspec.structs.replace(
        parts[0],
        arms=tuple(arm for part in parts for arm in part.arms),
        ranks=np.concatenate([part.ranks for part in parts], axis=1),
        lists=np.concatenate(lists, axis=1) if lists else None,
    )
