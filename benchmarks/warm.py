"""Warm starts: what a retraining that begins with the serving release's weights reaches, and how soon, beside a cold.

python -m benchmarks.warm [--source NAME:PATH] [--users 1000] [--recommender transformer] [--minutes 2] [--seeds 0,1,2]
                          [--json]

A network is tuned and fitted on all but the newest tenth of the events, as if it served; then twice on all events, as a
training run does it: cold, and from the serving one's weights. Each tuning has `--minutes` of processor time. `goal` is
99% of the cold one's best NDCG@10 on the tuning cases; `epochs` and `seconds` (of the processor) lead there. The tuning
cases choose the epoch, and so flatter whoever has more of them; `test` is NDCG@10 of the cases behind them, of a fit of
so many epochs, and its ratio to the cold one's is paired by user: the mean over the seeds, 95% by bootstrap over users.
`as it was` is the serving network itself, not trained again.
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.data_sets import users_of
from benchmarks.measurements import machine
from models.arrays import Float64
from models.evaluation import metrics
from models.evaluation.experiment import Experiment, ExperimentPlan, TunedRecommender
from models.recommenders.base import Recommender
from models.recommenders.neural import warm_start as warm
from models.training import warm_start
from models.training.train import HOLDOUT

BEFORE: Final = 0.9
"""The share of the events, the oldest, that the serving network knows of."""
WAYS: Final = ("cold", "warm", "as it was")


class TrainingCurve:
    """One training: its curve on the tuning cases, and the network that was fitted after it."""

    def __init__(
        self, frame: pd.DataFrame, recommender: str, minutes: float, seed: int, starts: Sequence[warm.Start] = ()
    ) -> None:
        self.curve: list[dict[str, float]] = []
        plan = ExperimentPlan(HOLDOUT, seed, 1, minutes, 1_000, False, clock=time.process_time)
        self.experiment = Experiment(frame, plan, self._note, starts=starts)
        self.experiment.situation = warm_start.with_length_of(self.experiment.situation, starts)
        self.began = time.process_time()
        self.tuned: TunedRecommender = self.experiment.tune(recommender, 1, minutes)
        self.fitted: Recommender = self.experiment.fit(self.tuned)

    def _note(self, _stage: str, _done: float, figures: dict[str, float]) -> None:
        if "epoch" in figures:
            self.curve.append({**figures, "seconds": time.process_time() - self.began})

    @property
    def starts(self) -> list[warm.Start]:
        """What it hands on."""
        return list(warm_start.kept_weights(self.experiment, self.tuned, self.fitted).values())

    def tested(self, recommender: Recommender | None = None) -> Float64:
        """float64 [cases]: NDCG@10 of the test cases, by its own network or another."""
        return self.experiment.measured(recommender or self.fitted)[0]["ndcg@10"]


def measure(frame: pd.DataFrame, recommender: str, minutes: float, seeds: Sequence[int]) -> dict[str, Any]:
    """Curves of both ways by seed, when each came to the goal, and what the test cases say."""
    rounds: list[dict[str, Any]] = []
    tested: dict[str, list[Float64]] = {way: [] for way in WAYS}
    for seed in seeds:
        serving = TrainingCurve(frame.iloc[: int(BEFORE * len(frame))], recommender, minutes, seed)
        cold = TrainingCurve(frame, recommender, minutes, seed)
        warmed = TrainingCurve(frame, recommender, minutes, seed, serving.starts)
        goal = 0.99 * max(epoch["ndcg@10"] for epoch in cold.curve)
        tested["cold"].append(cold.tested())
        tested["warm"].append(warmed.tested())
        tested["as it was"].append(cold.tested(serving.fitted))
        ways = {"cold": reached(cold, goal), "warm": reached(warmed, goal)}
        begun = getattr(warmed.fitted, "started_from", None) is not None
        rounds.append({"seed": seed, "goal": goal, "fits": begun, **ways})
    means = {way: np.mean(values, axis=0) for way, values in tested.items()}
    judged = {
        way: {
            "test": float(values.mean()),
            "by_seed": [float(ratios.mean()) for ratios in tested[way]],
            "to_cold": metrics.mean_ratio(values, means["cold"], np.random.default_rng(0)),
        }
        for way, values in means.items()
    }
    facts = {"events": len(frame), "recommender": recommender, "cases": len(means["cold"])}
    return {"machine": machine(), **facts, "rounds": rounds, "test": judged}


def reached(trained: TrainingCurve, goal: float) -> dict[str, Any]:
    """When a training's curve came to the goal, and what it chose."""
    curve = trained.curve
    hit = next((epoch for epoch in curve if epoch["ndcg@10"] >= goal), None)
    return {
        "epochs": int(hit["epoch"]) + 1 if hit else None,
        "seconds": hit["seconds"] if hit else None,
        "first": curve[0]["ndcg@10"],
        "best": max(epoch["ndcg@10"] for epoch in curve),
        "chosen": int(trained.tuned.params["epochs"]),
        "curve": [round(epoch["ndcg@10"], 5) for epoch in curve],
    }


def show(figures: dict[str, Any]) -> None:
    """Both tables."""
    print(f"{figures['recommender']}, {figures['events']:,} events\n")
    print("| seed | | goal | epochs to it | seconds | after one epoch | best | epochs chosen |\n" + "|---" * 8 + "|")
    for round_ in figures["rounds"]:
        for way in ("cold", "warm"):
            row = round_[way]
            when = f"{row['epochs']} | {row['seconds']:.0f}" if row["epochs"] else "never | "
            best = f"{row['first']:.4f} | {row['best']:.4f} | {row['chosen']}"
            print(f"| {round_['seed']} | {way} | {round_['goal']:.4f} | {when} | {best} |")
    print(f"\n| {figures['cases']} test cases | NDCG@10 | by seed | to cold |\n|---|---|---|---|")
    for way, row in figures["test"].items():
        ratio, low, high = row["to_cold"]
        seeds = ", ".join(f"{value:.4f}" for value in row["by_seed"])
        print(f"| {way} | {row['test']:.4f} | {seeds} | {ratio:.3f} [{low:.3f}, {high:.3f}] |")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="complete-journey", help="a data set: NAME or NAME:PATH")
    parser.add_argument("--users", type=int, default=1_000, help="take so many users of it")
    parser.add_argument("--recommender", default="transformer", choices=("dnn", "cnn", "rnn", "transformer"))
    parser.add_argument("--minutes", type=float, default=2.0, help="of the processor, for each tuning")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    frame = users_of(options.source, options.users)
    figures = measure(frame, options.recommender, options.minutes, [int(seed) for seed in options.seeds.split(",")])
    if options.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
