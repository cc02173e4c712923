"""Warm starts: epochs and seconds until a network is as good on the tuning cases as one that begins cold.

python -m benchmarks.warm [--source NAME:PATH] [--users 1000] [--recommender transformer] [--minutes 5] [--json]

A network is tuned on all but the newest tenth of the events, as if it served; then twice on all events: cold, and from
the serving one's weights. `reached` is the first epoch whose NDCG@10 (of the first 600 tuning cases) is at least 99% of
the cold one's best.
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import pandas as pd

from benchmarks.recommenders import users_of
from benchmarks.running import machine
from models.experiment import Experiment, Plan
from models.recommenders import warm
from models.retrain import HELD_OUT


def curve_of(
    frame: pd.DataFrame, recommender: str, minutes: float, starts: Sequence[warm.Start] = ()
) -> tuple[list[dict[str, float]], Experiment, Any]:
    """Epoch, seconds since the beginning and NDCG@10 after each epoch of one training."""
    curve: list[dict[str, float]] = []
    began = time.monotonic()

    def note(_stage: str, _done: float, figures: dict[str, float]) -> None:
        if "epoch" in figures:
            curve.append({**figures, "seconds": time.monotonic() - began})

    plan = Plan(HELD_OUT, 0, 1, minutes, 1_000, False)
    experiment = Experiment(frame, plan, note, starts=starts)
    began = time.monotonic()
    tuned = experiment.tune(recommender, 1, minutes)
    return curve, experiment, tuned.recommender


def measure(frame: pd.DataFrame, recommender: str, minutes: float) -> dict[str, Any]:
    """Cold and warm curves, and when each reached the cold one's best."""
    _, serving, network = curve_of(frame.iloc[: int(0.9 * len(frame))], recommender, minutes)
    start = warm.start_of(network, serving.tuned_from)
    cold, _, _ = curve_of(frame, recommender, minutes)
    warmed, _, begun = curve_of(frame, recommender, minutes, [start])
    goal = 0.99 * max(one["ndcg@10"] for one in cold)
    rows = {}
    for name, curve in (("cold", cold), ("warm", warmed)):
        hit = next((one for one in curve if one["ndcg@10"] >= goal), None)
        rows[name] = {
            "epochs": hit["epoch"] + 1 if hit else None,
            "seconds": hit["seconds"] if hit else None,
            "first": curve[0]["ndcg@10"],
            "best": max(one["ndcg@10"] for one in curve),
            "curve": [round(one["ndcg@10"], 5) for one in curve],
        }
    facts = {"events": len(frame), "recommender": recommender, "goal": goal, "fits": begun.started_from is not None}
    return {"machine": machine(), **facts, **rows}


def show(figures: dict[str, Any]) -> None:
    """The table."""
    print(f"{figures['recommender']}, {figures['events']:,} events; goal: NDCG@10 {figures['goal']:.4f}")
    print(f"{'':6}{'epochs':>8}{'seconds':>9}{'after one epoch':>17}{'best':>8}")
    for name in ("cold", "warm"):
        row = figures[name]
        seconds = f"{row['seconds']:9.1f}" if row["seconds"] is not None else f"{'never':>9}"
        print(f"{name:6}{row['epochs'] or 0:8.0f}{seconds}{row['first']:17.4f}{row['best']:8.4f}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", default="complete-journey", help="a data set: NAME or NAME:PATH")
    parser.add_argument("--users", type=int, default=1_000, help="take so many users of it")
    parser.add_argument("--recommender", default="transformer", choices=("dnn", "cnn", "rnn", "transformer"))
    parser.add_argument("--minutes", type=float, default=5.0, help="of each of the three trainings")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(arguments)
    frame = users_of(asked.source, asked.users)
    figures = measure(frame, asked.recommender, asked.minutes)
    if asked.json:
        print(json.dumps(figures, indent=2))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
