"""Do synthetic events help users of few events? Every arm of the protocol against the strongest opponent."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from models.arrays import Float64, Int64
from models.data.batch import Batch, batch_histories
from models.data.item_features import ItemFeatures
from models.data.profiles import ProfileHistory
from models.evaluation.cold_users import HORIZONS
from models.evaluation.cold_values import tail_of
from models.evaluation.opponent import BLEND, BY_HORIZON, FittedFold, Opponent, OpponentPlan, Progress
from models.experiments.arms import ArmPlan, ExperimentArm, ExperimentArms, of_kind
from models.experiments.guards import check_canary, check_counts, check_fold
from models.experiments.results import WARM, UnitResults, together, unit_results, with_choice
from models.experiments.run import Unit
from models.injection.injection import FADED
from models.recommenders.blend import BUCKETS, bucket_of
from models.recommenders.blend_weights import Evidence

FIRST_LONG: Final = 6
"""The first bucket of histories that are longer than any cold user's; horizons are no matter there."""
BASE: Final = "blend, half by horizon"
"""The blend that arms add to."""
A0: Final = "A0 (chosen on tuning users)"
A1: Final = "A1 (chosen on tuning users)"
"""At each k the arm with the highest NDCG@10 on the tuning users of the fold."""


class ColdStartPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The opponent, the arms, and whether lists are kept."""

    opponent: OpponentPlan
    arms: ArmPlan = ArmPlan()
    predictions: bool = False


class ColdStart:
    """The cold-start experiment on a frame [user_id, item_id, kind, at]; a unit of work is a fold under a seed."""

    def __init__(
        self,
        frame: pd.DataFrame,
        plan: ColdStartPlan,
        progress: Progress | None = None,
        *,
        catalogue: ItemFeatures | None = None,
        categories: Mapping[str, str] | None = None,
        profiles: ProfileHistory | None = None,
    ) -> None:
        self.frame, self.plan = frame, plan
        self.progress = progress or (lambda _stage, _done, _figures: None)
        self.known = {"catalogue": catalogue, "categories": categories, "profiles": profiles}
        self._opponents: dict[int, tuple[Opponent, ExperimentArms]] = {}

    def results_of(self, unit: Unit) -> UnitResults:
        """Fit everything of a fold, choose weights and arms on its tuning users, and ask its cold and warm users."""
        opponent, arms = self.opponent(unit.seed)
        fold = opponent.folds.fold(unit.fold)
        check_fold(fold, self.frame)
        fitted = opponent.fitted(fold)
        arms.check_volumes(self._probe(fitted))
        check_counts(fitted.tuning_log, fold.tuning.training)
        check_counts(fitted.training, fold.test.training)
        blends, label = dict(fitted.blends), f"fold {unit.fold + 1}/{len(opponent.folds)} weights"
        base = blends[BASE] = base_weights(fitted.blends, fitted.evidence)
        for number, arm in enumerate(arms.arms):
            limit = BUCKETS if arm.kind in {"direct", "ensemble"} else FADED
            blends[arm.name] = opponent.stacked(
                fitted.evidence, fitted.horizons, base, arm.members, unit.fold, buckets=limit
            )
            self.progress(label, (number + 1) / len(arms.arms), {})
        tuned = tuning_values(fitted.evidence, fitted.horizons, blends, opponent.plan.folds.ks)
        return self._asked(opponent, fitted, blends, arms.arms, tuned)

    def _asked(
        self,
        opponent: Opponent,
        fitted: FittedFold,
        blends: Mapping[str, Float64],
        arms: Sequence[ExperimentArm],
        tuned: dict[str, dict[int, float]],
    ) -> UnitResults:
        cold, warm = fitted.fold.test.cold, fitted.fold.test.warm
        tail = tail_of(np.bincount(fitted.training.items, minlength=len(fitted.training.vocabulary)))
        direct, keep = [arm.members for arm in arms if arm.kind == "direct"], self.plan.predictions
        singles = [*opponent.member_names, *(name for members in direct for name in members)]
        ranked = opponent.ranked(fitted, cold, blends, lists=True, singles=singles)
        parts = [unit_results(ranked, cold, tail=tail, predictions=keep)]
        if warm:
            ranked = opponent.ranked(fitted, warm, blends, lists=True, singles=singles, label="warm users")
            parts.append(unit_results(ranked, warm, group=WARM, predictions=keep))
        real = [name for name in tuned if name in {*opponent.arms, BASE}]
        chosen = {A0: best_by_k(tuned, real), A1: best_by_k(tuned, of_kind(arms, "synthesis"))}
        results = together(parts, self._facts(opponent, fitted, blends, arms, tuned, chosen))
        for name, by_k in chosen.items():
            results = with_choice(results, name, by_k)
        return results

    def _facts(
        self,
        opponent: Opponent,
        fitted: FittedFold,
        blends: Mapping[str, Float64],
        arms: Sequence[ExperimentArm],
        tuned: Mapping[str, Mapping[int, float]],
        chosen: Mapping[str, Mapping[int, str]],
    ) -> dict[str, Any]:
        ks = np.array(opponent.plan.folds.ks, np.int64)
        shares = {}
        for name, table in blends.items():
            rows = (table if table.ndim == 2 else table.mean(axis=0))[bucket_of(ks)] * fitted.evidence.scales
            rows /= rows.sum(axis=1, keepdims=True)
            used = np.flatnonzero(rows.any(axis=0))
            shares[name] = {fitted.evidence.names[place]: rows[:, place].round(4).tolist() for place in used}
        return {
            "arms": msgspec.to_builtins(list(arms)),
            "opponent": [*opponent.arms, BASE],
            "tuning": {arm: {str(k): value for k, value in by_k.items()} for arm, by_k in tuned.items()},
            "chosen": {name: {str(k): arm for k, arm in by_k.items()} for name, by_k in chosen.items()},
            "shares": shares,
            "params": fitted.params,
        }

    def _probe(self, fitted: FittedFold) -> Batch:
        """A few cold users' histories, on which arms are compared."""
        histories = [episode.history for episode in fitted.fold.test.cold[:PROBED]]
        return batch_histories(histories, fitted.training.vocabulary, self.plan.opponent.folds.length)

    def opponent(self, seed: int) -> tuple[Opponent, ExperimentArms]:
        """The opponent of a seed, and the arms that stand on its members. Generators are checked with a canary once."""
        if seed not in self._opponents:
            plan = self.plan.opponent
            plan = msgspec.structs.replace(plan, folds=msgspec.structs.replace(plan.folds, seed=seed))
            opponent = Opponent(self.frame, plan, self.progress, **self.known)  # type: ignore[arg-type] # values of three types by name
            arms = ExperimentArms(
                msgspec.structs.replace(self.plan.arms, seed=seed),
                lambda stage, done: self.progress(stage, done, {}),
                opponent.fitted_again,
            )
            opponent.further = arms.scorers
            if not self._opponents:
                self._check_canaries(opponent, arms)
            self._opponents = {seed: (opponent, arms)}
        return self._opponents[seed]

    def _check_canaries(self, opponent: Opponent, arms: ExperimentArms) -> None:
        for name in arms.generators:
            check_canary(name, partial(arms.created, name), opponent.interactions, self.frame)


PROBED: Final = 50


def base_weights(blends: Mapping[str, Float64], evidence: Evidence) -> Float64:
    """float64 [horizons, buckets, members]: the mean of the weights by horizon and those for all horizons.

    Weights of one horizon are fitted on a fifth of the questions, so they are shrunk towards those of all.
    """
    pooled, by_horizon = (blends[name] / (blends[name] @ evidence.scales)[..., None] for name in (BLEND, BY_HORIZON))
    base: Float64 = (pooled + by_horizon) / 2
    base[:, FIRST_LONG:] = pooled[FIRST_LONG:]
    return base


def tuning_values(
    evidence: Evidence, horizons: Int64, blends: Mapping[str, Float64], ks: Sequence[int]
) -> dict[str, dict[int, float]]:
    """NDCG@10 of each member alone and each blend on the tuning users, by k: the mean over horizons 1 to 5.

    Weights were fitted on the same users, so blends with more members look better than they are.
    """
    near, buckets = (horizons >= 1) & (horizons <= HORIZONS), bucket_of(evidence.lengths)
    gains = {name: evidence.ndcg(row) for name, row in zip(evidence.names, np.eye(len(evidence.names)), strict=True)}
    for name, table in blends.items():
        rows = table if table.ndim == 3 else table[None]
        gains[name] = evidence.ndcg(rows[np.minimum(np.maximum(horizons, 1), len(rows)) - 1, buckets])
    inside = {k: near & (buckets == bucket_of(np.array([k], np.int64))) for k in ks}
    return {
        name: {k: float(own[inside[k]].mean()) if inside[k].any() else 0.0 for k in ks} for name, own in gains.items()
    }


def best_by_k(tuned: Mapping[str, Mapping[int, float]], arms: Sequence[str]) -> dict[int, str]:
    """At each k the arm with the highest value; the first in a tie."""
    ks = list(next(iter(tuned.values())))
    return {k: max(arms, key=lambda arm: tuned[arm][k]) for k in ks}
