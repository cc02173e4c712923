"""What encoders reach within a budget by their learning rate: which one the first trial of tuning should begin with.

python -m benchmarks.rates --data FOLDER [--sets online-retail,movielens-1m,complete-journey] [--rates .004,.008,.016]
                           [--seeds 0] [--minutes 1.5] [--json]

One training for each set, rate and seed, everything else by default: at most `--minutes` of processor time on one
thread, the epoch that was best on the tuning cases. NDCG@10 of these cases is shown; the test part is not looked at.
"""

import argparse
import json
import os
import time
from itertools import product
from pathlib import Path
from typing import Any, Final

from benchmarks.recommenders import SETS, opened
from models.experiment import Experiment, Plan
from models.splits import Protocol
from serving import memory

CASES: Final = 1_000


def reached(data: Path, name: str, rate: float, seed: int, minutes: float) -> dict[str, Any]:
    """One training: NDCG@10 on the tuning cases, epochs that there was time for, and which of them was best."""
    chosen = SETS[name]
    frame, categories, _ = opened(data, name)
    plan = Plan(Protocol.of(chosen.protocol), seed, 1, minutes, CASES, tested=1, clock=time.process_time)
    defaults = {chosen.encoder: {"learning_rate": rate}}
    experiment = Experiment(frame, plan, categories=categories or None, defaults=defaults)
    tuned = experiment.tune(chosen.encoder)
    row = {"set": name, "encoder": chosen.encoder, "rate": rate, "seed": seed, "ndcg@10": tuned.ndcg}
    return {**row, "epochs": len(tuned.curve), "best": tuned.params["epochs"]}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of all data sets")
    parser.add_argument("--sets", default="online-retail,movielens-1m,complete-journey")
    parser.add_argument("--rates", default=".004,.008,.016")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--minutes", type=float, default=1.5, help="of processor time, for each training")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")
    memory.keep(memory.TRAINING)
    rates, seeds = [float(one) for one in given.rates.split(",")], [int(one) for one in given.seeds.split(",")]
    rows = []
    for name, rate, seed in product(given.sets.split(","), rates, seeds):
        row = reached(given.data, name, rate, seed, given.minutes)
        rows.append(row)
        if not given.json:
            figures = f"NDCG@10 {row['ndcg@10']:.4f}, {row['epochs']} epochs, the best {row['best']}"
            print(f"{name} {row['encoder']} rate {rate:g} seed {seed}: {figures}", flush=True)
    if given.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
