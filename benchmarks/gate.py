"""The gate on candidates that are worse on purpose, on a better one, and on the same one again: what it says of each.

python -m benchmarks.gate [--source NAME:PATH] [--users 1000] [--cases 1000] [--seeds 10] [--mask-seen] [--json]

The serving release is item-kNN (for false alarms, iALS with seed 0), fitted on what came before the newest 5% of the
events, as every candidate is. A false alarm is iALS with another seed that is promoted as better, or refused for
anything but being no better. Nothing is written.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.data_sets import users_of
from benchmarks.measurements import machine
from features.activity import History
from models.arrays import Float32
from models.data import splits
from models.data.batch import Batch, batch_histories
from models.data.interactions import Interactions
from models.data.vocabulary import Vocabulary
from models.recommenders.base import Recommender
from models.recommenders.ease import EASE
from models.recommenders.ials import IALS
from models.recommenders.item_knn import ItemKNN
from models.recommenders.popularity import Popularity
from models.releases import gate
from models.releases.gate import GateThresholds, HoldoutAnswers
from models.releases.manifest import DEFAULT_HISTORY_LENGTH
from models.training import champion_challenger
from models.training.train import HOLDOUT

HEAD: Final = 30


class AlteredRecommender:
    """A fitted recommender whose scores are changed on the way out."""

    def __init__(self, inner: Recommender, change: Callable[[Float32], Float32]) -> None:
        self.inner, self.change = inner, change
        self.vocabulary: Vocabulary = inner.vocabulary

    def score(self, batch: Batch) -> Float32:
        return self.change(self.inner.score(batch))


def fitted(recommender: Any, log: Interactions) -> Any:
    """The recommender, fitted."""
    recommender.fit(log)
    return recommender


def candidates(log: Interactions, rng: np.random.Generator, *, mask_seen: bool) -> list[tuple[str, str, Any]]:
    """Name, the check that has to fail (none: it has to pass), and the recommender."""
    knn, mixed_up, factors = (fitted(model, log) for model in (ItemKNN(), ItemKNN(), IALS()))
    better = EASE() if mask_seen else ItemKNN(ItemKNN.Params(own=1.0))
    order = rng.permutation(len(log.vocabulary))
    mixed_up.neighbors, mixed_up.similarities = mixed_up.neighbors[order], mixed_up.similarities[order]
    spam = len(log.vocabulary) // 2
    return [
        ("the same again", "not-better", knn),
        ("EASE" if mask_seen else "what was taken counts too", "", fitted(better, log)),
        ("popularity alone", "not-personalized", fitted(Popularity(), log)),
        ("shuffled item factors", "not-personalized", AlteredRecommender(factors, lambda table: table[:, order])),
        ("shuffled neighbors", "not-personalized", mixed_up),
        ("one item for everyone", "dominant-item", AlteredRecommender(knn, lambda table: _set(table, spam, 1e6))),
        ("not a number", "not-finite", AlteredRecommender(knn, lambda table: _set(table, spam, np.nan))),
        (f"the {HEAD} most popular only", "coverage", AlteredRecommender(knn, _head)),
        ("slow", "slow", AlteredRecommender(knn, _slowly)),
    ]


def _set(table: Float32, column: int, value: float) -> Float32:
    table[:, column] = value
    return table


def _head(table: Float32) -> Float32:
    table[:, HEAD:] = -1e9
    return table


def _slowly(table: Float32) -> Float32:
    if len(table) == 1:  # a look-up
        time.sleep(0.05)
    return table


class SharedCases:
    """The held-out cases, and everything that is the same for each candidate."""

    def __init__(self, frame: pd.DataFrame, most: int, mask_seen: bool) -> None:
        before, after = splits.split(frame, HOLDOUT)
        self.held_out = splits.evaluation_cases(before, after, DEFAULT_HISTORY_LENGTH, most)
        self.log, self.mask_seen = Interactions.from_frame(before), mask_seen
        self.numbers = dict(self.log.vocabulary.index)
        for case in self.held_out:
            for item in case.targets:
                self.numbers.setdefault(item, len(self.numbers))
        self.cases = champion_challenger.holdout_cases(self.held_out, before, self.numbers, np.random.default_rng(0))

    def answers(self, recommender: Any) -> HoldoutAnswers:
        return champion_challenger.holdout_answers(
            recommender,
            self.held_out,
            self.numbers,
            history_length=DEFAULT_HISTORY_LENGTH,
            mask_seen=self.mask_seen,
        )

    def judge(
        self, recommender: Any, theirs: HoldoutAnswers, bounds: GateThresholds
    ) -> tuple[list[gate.Check], HoldoutAnswers]:
        ours = self.answers(recommender)
        histories = [case.history for case in self.held_out]

        def score(history: History) -> Float32:
            return recommender.score(batch_histories([history], recommender.vocabulary, DEFAULT_HISTORY_LENGTH))

        sane = gate.sanity_checks(ours, self.cases, champion_challenger.latency_ms(score, histories), bounds)
        return sane + gate.comparison_checks(ours, theirs, bounds, np.random.default_rng(0)), ours


def measure(frame: pd.DataFrame, most: int, seeds: int, *, mask_seen: bool) -> dict[str, Any]:
    """Every candidate before the gate, then the false alarms."""
    side, bounds = SharedCases(frame, most, mask_seen), GateThresholds()
    theirs = side.answers(fitted(ItemKNN(), side.log))
    rows = []
    for name, expected, recommender in candidates(side.log, np.random.default_rng(0), mask_seen=mask_seen):
        checks, _ = side.judge(recommender, theirs, bounds)
        failed = [check.name for check in checks if not check.passed]
        right = expected in failed if expected else not failed
        values = {check.name: check.value for check in checks}
        rows.append({"candidate": name, "expected": expected, "failed": failed, "right": right, **values})
    facts = {"events": len(frame), "cases": len(side.held_out), "items": len(side.log.vocabulary)}
    return {"machine": machine(), **facts, "rows": rows, "again": alarms(side, bounds, seeds)}


def alarms(side: SharedCases, bounds: GateThresholds, seeds: int) -> dict[str, Any]:
    """iALS with seeds 1 to n against seed 0: promotions, refreshes (as if it were stale), other refusals."""
    theirs = side.answers(fitted(IALS(IALS.Params(seed=0)), side.log))
    counts: dict[str, Any] = {"seeds": seeds, "promoted": 0, "refreshed": 0, "other": 0, "gains": []}
    for seed in range(1, seeds + 1):
        checks, ours = side.judge(fitted(IALS(IALS.Params(seed=seed)), side.log), theirs, bounds)
        counts["promoted"] += all(check.passed for check in checks)
        counts["other"] += any(not check.passed for check in checks if check.name != "not-better")
        rng = np.random.default_rng(0)
        counts["refreshed"] += gate.improvement_check(ours.ndcg, theirs.ndcg, bounds, rng, stale=True).passed
        counts["gains"].append(gate.relative_gain(ours.ndcg, theirs.ndcg, bounds.confidence, rng))
    return counts


def show(figures: dict[str, Any]) -> None:
    """The tables."""
    print(f"{figures['events']:,} events, {figures['items']:,} items, {figures['cases']:,} held-out cases")
    print(f"{'candidate':30}{'has to fail':>13}{'gain >=':>9}{'nearness':>10}{'one item':>10}{'coverage':>10}  failed")
    for row in figures["rows"]:
        values = (row["not-better"], row["not-personalized"], row["dominant-item"], row["coverage"])
        shown = "".join(f"{value:{width}.3f}" for value, width in zip(values, (9, 10, 10, 10), strict=True))
        mark = "" if row["right"] else "   WRONG"
        print(f"{row['candidate']:30}{row['expected']:>13}{shown}  {', '.join(row['failed']) or 'passes'}{mark}")
    again = figures["again"]
    print(f"the same with {again['seeds']} other seeds: {again['promoted']} promoted, {again['other']} refused for")
    print(f"anything but being no better; {again['refreshed']} taken in place of a stale one")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; code 1 where a candidate was judged wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="complete-journey", help="a data set: NAME or NAME:PATH")
    parser.add_argument("--users", type=int, default=1_000, help="take so many users of it")
    parser.add_argument("--cases", type=int, default=1_000, help="ask so many of them")
    parser.add_argument("--seeds", type=int, default=10, help="other seeds of the same recommender")
    parser.add_argument("--mask-seen", action="store_true", help="what a user took cannot be recommended again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    frame = users_of(options.source, options.users)
    figures = measure(frame, options.cases, options.seeds, mask_seen=options.mask_seen)
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return int(not all(row["right"] for row in figures["rows"]))


if __name__ == "__main__":
    raise SystemExit(main())
