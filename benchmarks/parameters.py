"""What encoders reach within a budget by their parameters: where tuning should begin, and what it should try.

python -m benchmarks.parameters --data FOLDER --vary learning_rate=.004,.008,.016 [--vary batch_size=128,512]
                                [--sets online-retail,movielens-1m,complete-journey] [--encoder NAME] [--seeds 0]
                                [--minutes 1.5] [--clock processor|wall] [--json]

One training for each set, seed and combination of values, everything else by default: at most `--minutes` on one
thread, the epoch that was best on the tuning cases. NDCG@10 of these cases is shown; the test part is not looked at.
`--clock wall` is for a GPU, whose work is no processor time (KERAS_BACKEND=jax; `benchmarks.recommenders --pack` makes
the folder that needs no sources there).
"""

import argparse
import json
import os
from itertools import product
from pathlib import Path
from typing import Any, Final

from benchmarks.data_sets import DATA_SETS, opened
from benchmarks.recommenders import CLOCKS
from models.data.splits import SplitProtocol
from models.evaluation.experiment import Experiment, ExperimentPlan
from models.recommenders.registry import neural_names
from serving.process import memory

CASES: Final = 1_000
Params = dict[str, Any]


def reached(experiment: Experiment, encoder: str, params: Params) -> dict[str, Any]:
    """One training: NDCG@10 on the tuning cases, epochs that there was time for, and which of them was best."""
    experiment.defaults = {encoder: params}
    clock = experiment.plan.clock
    started = clock()
    tuned = experiment.tune(encoder)
    spent = round(clock() - started, 1)
    return {"ndcg@10": tuned.ndcg, "epochs": len(tuned.curve), "best": tuned.params["epochs"], "seconds": spent}


def varied(options: list[str]) -> list[Params]:
    """Every combination of NAME=VALUE,VALUE,...: values are JSON, or words."""
    names, columns = [], []
    for assignment in options:
        name, _, values = assignment.partition("=")
        names.append(name)
        columns.append([_value(value) for value in values.split(",")])
    return [dict(zip(names, values, strict=True)) for values in product(*columns)]


def _value(text: str) -> Any:
    try:
        return json.loads(f"0{text}" if text.startswith(".") else text)
    except json.JSONDecodeError:
        return text


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of all data sets")
    parser.add_argument("--vary", action="append", default=[], metavar="NAME=V,V", help="a parameter and its values")
    parser.add_argument("--sets", default="online-retail,movielens-1m,complete-journey")
    parser.add_argument("--encoder", choices=neural_names(), help="another than the set's own")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--minutes", type=float, default=1.5, help="for each training")
    parser.add_argument("--clock", choices=list(CLOCKS), default="processor", help="what minutes are counted by")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each training")
    arguments = parser.parse_args()
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(name, "1")
    memory.configure_allocator(memory.TRAINING)
    clock = CLOCKS[arguments.clock]
    for name, seed in product(arguments.sets.split(","), [int(seed) for seed in arguments.seeds.split(",")]):
        frame, categories, _ = opened(arguments.data, name)
        encoder = arguments.encoder or DATA_SETS[name].encoder
        plan = ExperimentPlan(
            SplitProtocol.parse(DATA_SETS[name].protocol), seed, 1, arguments.minutes, CASES, tested=1, clock=clock
        )
        experiment = Experiment(frame, plan, categories=categories or None)
        for params in varied(arguments.vary):
            row = {"set": name, "encoder": encoder, "seed": seed, **params, **reached(experiment, encoder, params)}
            print(json.dumps(row) if arguments.json else _told(row), flush=True)


def _told(row: dict[str, Any]) -> str:
    shown = {**row, "ndcg@10": f"{row['ndcg@10']:.4f}"}
    return "  ".join(f"{key} {value}" for key, value in shown.items())


if __name__ == "__main__":
    main()
