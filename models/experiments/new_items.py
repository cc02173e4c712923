"""Do texts bring new items to the users who want them? Every arm of the experiment, and what it costs known items."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from models.arrays import Float32, Float64, Int64
from models.data.item_features import ItemFeatures
from models.evaluation.bootstrap import Comparison, compare, intervals, ratio_text
from models.experiments.new_items_arms import (
    ARMS,
    CONTROLS,
    HONEST,
    OPPONENT_BLEND,
    OPPONENT_EXPECTED,
    SHUFFLED,
    SUM,
    SUM_EXPECTED,
    SUM_WITH_GENERATOR,
    ArmInputs,
    Questions,
    Tuning,
    base_of,
    fitted_columns,
    known_lists,
    tuned_arms,
)
from models.experiments.new_items_lists import (
    ItemLists,
    ListBuilder,
    NewItemsResults,
    Reach,
    among_new,
    item_lists,
    mixed,
    reach_of,
    with_slots,
)
from models.experiments.new_items_split import HidingPlan, NewItemsFolds, check_planted
from models.experiments.run import Unit
from models.experiments.verdicts import GAIN, SIGNIFICANT
from models.recommenders.new_item_columns import ContentFeatures

OURS: Final = (SUM, SUM_WITH_GENERATOR, SUM_EXPECTED)
"""The arms that are judged; p-values are corrected for all of them."""
OTHERS: Final = (*HONEST, OPPONENT_EXPECTED, *CONTROLS)
SHARES: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
"""Shares of the probability that new items are given."""
CURVE: Final = (0.0, 0.0005, 0.001, 0.002, 0.005, *SHARES[1:])
"""Shares of the curve; those below 1% show what the last places bring."""
PRICE: Final = 0.01
"""What known items may lose at the share that is chosen on tuning users."""
SLOTS: Final = (1, 2)
Report = Callable[[str], None]


class NewItems:
    """The experiment on a frame [user_id, item_id, kind, at] and its items; a unit of work is a fold under a seed."""

    def __init__(
        self, frame: pd.DataFrame, features: ItemFeatures, plan: HidingPlan, *, predictions: bool = False
    ) -> None:
        self.frame, self.features, self.plan, self.predictions = frame, features, plan, predictions
        self._folds: dict[int, NewItemsFolds] = {}

    def folds(self, seed: int) -> NewItemsFolds:
        """The folds of a seed."""
        if seed not in self._folds:
            self._folds = {
                seed: NewItemsFolds(self.frame, self.features, msgspec.structs.replace(self.plan, seed=seed))
            }
        return self._folds[seed]

    def results_of(self, unit: Unit, report: Report = lambda _stage: None) -> NewItemsResults:
        """Tune on items that training has, then fit every arm and ask for the hidden items."""
        folds = self.folds(unit.seed)
        fold = folds.fold(unit.fold)
        check_planted(folds, fold)
        tuning = tuned_arms(fold, self.plan.length, unit.seed, report)
        tuned, chosen = tuning.arms, chosen_shares(tuning)
        del tuning
        holdout = fold.test
        training = holdout.training
        inputs = ArmInputs(training, ContentFeatures.fit(training), tuned.reg, unit.seed)
        questions = Questions(holdout, holdout.questions, self.plan.length)
        base = base_of(inputs, tuned.decay)
        lists = ListBuilder(questions, base, training.vocabulary.item_ids, predictions=self.predictions)
        for arm, columns in fitted_columns(inputs, tuned, report).items():
            lists.add(arm, columns, tuned.decay)
        facts = {
            "tuned": msgspec.to_builtins(tuned),
            "shares": chosen,
            "known": holdout.known,
            "hidden": len(holdout.hidden),
        }
        return lists.results(facts)


def chosen_shares(tuning: Tuning) -> dict[str, float]:
    """For each arm the largest share of new items that costs known items at most `PRICE` on tuning users."""
    questions = tuning.questions
    known = _lists_of_known(tuning)
    warm = np.array([len(targets) for targets in questions.warm], np.int64)
    new = np.array([len(targets) for targets in questions.new], np.int64)
    chosen = {}
    for arm in ARMS:
        if arm == SHUFFLED:
            continue
        lists, _ = item_lists(tuning.scores[arm], questions.new)
        values = [float(np.nanmean(reach_of(mixed(known, lists, share), new, warm).warm_ndcg)) for share in SHARES]
        kept = [share for share, value in zip(SHARES, values, strict=True) if value >= (1 - PRICE) * values[0]]
        chosen[arm] = max(kept)
    return {**chosen, SHUFFLED: chosen[SUM]}


def _lists_of_known(tuning: Tuning) -> ItemLists:
    questions = tuning.questions
    indices, values = known_lists(base_of(tuning.inputs, tuning.arms.decay), questions)
    hits = np.array([np.isin(row, own) for row, own in zip(indices, questions.warm, strict=True)], np.bool_)
    return ItemLists(hits, np.where(np.isfinite(values), values, 0.0).astype(np.float32))


class ArmValues(msgspec.Struct, frozen=True):
    """An arm's values, float64 [users] over all units, nan where a user has no such target.

    `ndcg`, `hit`: among new items. `full`: in the full catalogue at the share chosen on tuning users. `slots`: by the
    number of places that new items have to themselves.
    """

    ndcg: Float64
    hit: Float64
    full: Reach
    slots: dict[int, Reach]
    coverage: float


class NewItemsValues(msgspec.Struct, frozen=True):
    """The values of all units. `users`: ids, so that a user counts once in all folds. `warm`: NDCG@10 of warm targets
    where no new item is shown."""

    users: list[str]
    arms: dict[str, ArmValues]
    warm: Float64
    units: list[NewItemsResults]


def values_of(units: Sequence[NewItemsResults]) -> NewItemsValues:
    """Every arm's values over the units; a user's values are the means over the units that asked."""
    names = [user for unit in units for user in unit.users]
    users = list(dict.fromkeys(names))
    rows = pd.Categorical(names, categories=users).codes.astype(np.int64)
    arms = {}
    for arm in units[0].new:
        among = [among_new(unit.new[arm], unit.new_targets) for unit in units]
        full = [_reach(unit, mixed(unit.known, unit.new[arm], unit.facts["shares"][arm])) for unit in units]
        slots = {
            slot: _together([_reach(unit, with_slots(unit.known, unit.new[arm], slot)) for unit in units], rows)
            for slot in SLOTS
        }
        arms[arm] = ArmValues(
            _mean_by(rows, np.concatenate([part[0] for part in among])),
            _mean_by(rows, np.concatenate([part[1] for part in among])),
            _together(full, rows),
            slots,
            float(np.mean([unit.facts["coverage"][arm] for unit in units])),
        )
    any_arm = next(iter(units[0].new))
    alone = [_reach(unit, mixed(unit.known, unit.new[any_arm], 0.0)) for unit in units]
    return NewItemsValues(users, arms, _together(alone, rows).warm_ndcg, list(units))


def _reach(unit: NewItemsResults, lists: Any) -> Reach:
    return reach_of(lists, unit.new_targets, unit.warm_targets)


def _together(parts: Sequence[Reach], rows: Int64) -> Reach:
    names = Reach.__struct_fields__
    return Reach(*(_mean_by(rows, np.concatenate([getattr(part, name) for part in parts])) for name in names))


def _mean_by(rows: Int64, values: Float64) -> Float64:
    """float64 [users]: the mean of each user's values that are not nan."""
    there = ~np.isnan(values)
    size = int(rows.max(initial=-1)) + 1
    counts = np.bincount(rows[there], minlength=size)
    sums = np.bincount(rows[there], values[there], minlength=size)
    means: Float64 = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return means


class NewItemsVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """An arm against the best other one, by NDCG@10 among new items; `users`: those with a new target.

    `to_blend`: to the opponents' tuned blend, which knows no expected popularity. `slots`: by places of their own, the
    ratio of the full list's NDCG@10 of new targets. `reasons`: why it fails.
    """

    arm: str
    other: str
    users: int
    value: float
    other_value: float
    ratio: Comparison
    to_blend: Comparison
    slots: dict[int, Comparison]
    reasons: list[str]

    @property
    def passed(self) -> bool:
        return not self.reasons


def judge_arms(values: NewItemsValues, rng: np.random.Generator) -> list[NewItemsVerdict]:
    """A verdict on each of our arms."""
    means = {arm: _mean(own.ndcg) for arm, own in values.arms.items()}
    other = max(OTHERS, key=lambda arm: means[arm])
    ours = [values.arms[arm] for arm in OURS]
    best, blend = values.arms[other], values.arms[OPPONENT_BLEND]
    ratios = compare([own.ndcg for own in ours], [best.ndcg] * len(ours), rng)
    to_blend = compare([own.ndcg for own in ours], [blend.ndcg] * len(ours), rng)
    slots = {
        slot: compare([own.slots[slot].new_ndcg for own in ours], [best.slots[slot].new_ndcg] * len(ours), rng)
        for slot in SLOTS
    }
    return [
        NewItemsVerdict(
            arm=arm,
            other=other,
            users=int((~np.isnan(values.arms[arm].ndcg)).sum()),
            value=means[arm],
            other_value=means[other],
            ratio=ratios[place],
            to_blend=to_blend[place],
            slots={slot: slots[slot][place] for slot in SLOTS},
            reasons=_reasons(ratios[place], means[arm], means[SHUFFLED]),
        )
        for place, arm in enumerate(OURS)
    ]


def _reasons(ratio: Comparison, value: float, shuffled: float) -> list[str]:
    reasons = []
    if not ratio.low > 1 or not ratio.holm < SIGNIFICANT:
        reasons.append("the gain is not proven")
    if not ratio.ratio >= GAIN:
        reasons.append(f"the gain is below {GAIN - 1:.0%}")
    if value <= shuffled:
        reasons.append("other items' texts do as well")
    return reasons


def prices(values: NewItemsValues, rng: np.random.Generator) -> dict[int, Comparison]:
    """What known items keep (NDCG@10) when new items have so many places to themselves."""
    arm = next(iter(values.arms.values()))
    kept = compare([arm.slots[slot].warm_ndcg for slot in SLOTS], [values.warm] * len(SLOTS), rng)
    return dict(zip(SLOTS, kept, strict=True))


def sentences_of(verdicts: Sequence[NewItemsVerdict], slot_prices: Mapping[int, Comparison]) -> list[str]:
    """The verdict, failures first."""
    best = max(verdicts, key=lambda verdict: (verdict.passed, verdict.value))
    price = "; ".join(
        f"{slot} of 10 places cost known items {1 - kept.ratio:.1%} of NDCG@10 "
        f"[{1 - kept.high:.1%}, {1 - kept.low:.1%}]"
        for slot, kept in slot_prices.items()
    )
    figures = (
        f"{best.arm} gives {ratio_text(best.ratio)} times {best.other} among new items (NDCG@10 {best.value:.4f} to "
        f"{best.other_value:.4f}, {best.users:,} users; {ratio_text(best.to_blend)} times {OPPONENT_BLEND})"
    )
    if not best.passed:
        return [f"Do not rank new items by more than their content: {figures}; {', '.join(best.reasons)}.", f"{price}."]
    failed = [verdict for verdict in verdicts if not verdict.passed]
    lines = [f"{verdict.arm} alone fails: {', '.join(verdict.reasons)}." for verdict in failed]
    return [*lines, f"Rank new items by {best.arm}, in places of their own: {figures}.", f"{price}."]


class CurvePoint(msgspec.Struct, frozen=True):
    """A share of the probability for new items, and what it brings: the share of new items in the first ten, NDCG@10
    and HR@10 of new targets, and what is left of the NDCG@10 of warm ones."""

    share: float
    reach: float
    new_ndcg: float
    new_hit: float
    warm: float


def curve_of(units: Sequence[NewItemsResults], arm: str, shares: Sequence[float] = CURVE) -> list[CurvePoint]:
    """The price of new items at each share."""
    points, alone = [], 0.0
    for share in shares:
        parts = [_reach(unit, mixed(unit.known, unit.new[arm], share)) for unit in units]
        warm = _mean(np.concatenate([part.warm_ndcg for part in parts]))
        alone = alone or warm
        points.append(
            CurvePoint(
                share,
                _mean(np.concatenate([part.new_share for part in parts])),
                _mean(np.concatenate([part.new_ndcg for part in parts])),
                _mean(np.concatenate([part.new_hit for part in parts])),
                warm / max(alone, 1e-12),
            )
        )
    return points


def at_loss(points: Sequence[CurvePoint], loss: float) -> CurvePoint:
    """The point of a curve where known items lose so much of their NDCG@10, between its points in straight lines."""
    losses = np.maximum.accumulate([1 - point.warm for point in points])
    names = ("share", "reach", "new_ndcg", "new_hit")
    values = {name: float(np.interp(loss, losses, [getattr(point, name) for point in points])) for name in names}
    return CurvePoint(**values, warm=1 - loss)


def spread_of(values: NewItemsValues, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """The 95% interval of each arm's NDCG@10 among new items."""
    return intervals({arm: own.ndcg for arm, own in values.arms.items()}, rng)


def _mean(column: Float64 | Float32) -> float:
    return float(np.nanmean(column)) if len(column) and not np.isnan(column).all() else float("nan")
