"""What the dense encoder gains by users' profiles and by the moment of asking.

python -m benchmarks.profiles --data FOLDER [--sets movielens-1m,complete-journey] [--users 1000] [--seeds 0,1,2]
                              [--minutes 2] [--json]

One training for each row and seed, everything else equal: early stopping on the tuning cases, at most `--minutes` of
processor time, then a fit as long on what comes before the test part. `--users` are drawn with one seed; where a data
set has profiles of some users only, half of them from among those. NDCG@10 over the full catalogue is asked three
times: with the whole history, with the newest three events alone, and without the profile (what someone without one
gets from a network that learned to read them). Ratios are to `history`, paired by user, the mean over the seeds; their
95% interval is a Poisson bootstrap over users. Cells are kept in `--out`: a run that was cut off goes on.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from benchmarks.data_sets import DATA_SETS, categories_of, table_of
from models.arrays import Float64
from models.data import splits
from models.data.profiles import ProfileHistory
from models.evaluation import metrics
from models.evaluation.experiment import Experiment, ExperimentPlan
from models.recommenders.base import Recommender
from stream.sources.source import Source

ROWS: Final[dict[str, dict[str, Any]]] = {
    "history": {},
    "profile": {"profile": True},
    "profile, never hidden": {"profile": True, "profile_dropout": 0.0},
    "context": {"context": True},
    "both": {"profile": True, "context": True},
}
ASKED: Final = ("whole", "three events", "no profile")
FEW: Final = 3
K: Final = 10
SHAPE: Final = {"blocks": 1, "batch_size": 32, "windows_per_user": 5, "learning_rate": 3e-3, "compiled": False}
"""Small batches: an epoch has to be long enough to show a gain, for the search stops after four without one."""


class ProfileBenchmarkOptions(msgspec.Struct, frozen=True):
    """What the command line says."""

    data: Path
    out: Path
    sets: tuple[str, ...]
    users: int
    seeds: tuple[int, ...]
    minutes: float
    rows: tuple[str, ...]


def drawn(source: Source, most: int) -> tuple[pd.DataFrame, ProfileHistory]:
    """The interactions of at most so many users, half of them with a profile where only some have one."""
    frame = table_of(source, 1.0)
    people = ProfileHistory.from_users(user for users in source.profiles() for user in users)
    users, rng = np.sort(frame["user_id"].unique()), np.random.default_rng(0)
    users_with_profiles = np.array([user for user in users if user in people.updates], object)
    if len(users) > most:
        first = rng.permutation(users_with_profiles)[: most // 2]
        rest = rng.permutation(np.setdiff1d(users, first))[: most - len(first)]
        frame = frame[frame["user_id"].isin([*first, *rest])].reset_index(drop=True)
    return frame, people


def run(options: ProfileBenchmarkOptions, name: str, home: Path) -> None:
    """Whatever cells of a data set are missing."""
    pending = [(seed, row) for seed in options.seeds for row in options.rows if not _path(home, seed, row).exists()]
    if not pending:
        return
    source = DATA_SETS[name].open(options.data)
    frame, people = drawn(source, options.users)
    categories = categories_of(source)
    for seed, row in pending:
        protocol = splits.SplitProtocol.parse(DATA_SETS[name].protocol)
        masked = DATA_SETS[name].protocol == "leave-one-out"
        plan = ExperimentPlan(
            protocol, seed, 1, options.minutes, 600, masked, 5, tested=options.users, clock=time.process_time
        )
        defaults = {"dnn": {**SHAPE, **ROWS[row]}}
        experiment = Experiment(frame, plan, categories=categories or None, defaults=defaults, profiles=people)
        started = time.process_time()
        recommender = experiment.fit(experiment.tune("dnn"))
        ndcg = {how: measured(experiment, recommender, how).tolist() for how in ASKED}
        path = _path(home, seed, row)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".aside")
        aside.write_text(json.dumps(ndcg), "utf-8")
        aside.replace(path)
        figures = ", ".join(f"{how} {np.mean(values):.4f}" for how, values in ndcg.items())
        spent = time.process_time() - started
        print(f"{name} seed {seed} {row}: {figures}; {spent:.0f} s, {len(ndcg['whole'])} users", flush=True)


def measured(experiment: Experiment, recommender: Recommender, how: str) -> Float64:
    """NDCG@10 of each test case, float64 [cases]."""
    cases = experiment.test.cases
    if how == "no profile":
        cases = [msgspec.structs.replace(case, profile=None) for case in cases]
    batch = splits.batch_cases(cases, recommender.vocabulary, FEW if how == "three events" else 50)
    ranked = metrics.rank(
        lambda start, stop: recommender.score(batch.slice(start, stop)),
        recommender.vocabulary,
        cases,
        K,
        mask_seen=experiment.masked,
    )
    return metrics.per_user(ranked, recommender.vocabulary, cases, (K,))[f"ndcg@{K}"]


def table(options: ProfileBenchmarkOptions, home: Path, name: str) -> list[dict[str, Any]]:
    """A line for each row and way of asking: NDCG@10, and its ratio to `history` with an interval."""
    seeds_and_rows = [(seed, row) for seed in options.seeds for row in options.rows]
    cells = {(seed, row): json.loads(_path(home, seed, row).read_text("utf-8")) for seed, row in seeds_and_rows}
    lines = []
    for how in ASKED:
        means = {row: np.mean([cells[seed, row][how] for seed in options.seeds], axis=0) for row in options.rows}
        for row, values in means.items():
            gained = metrics.mean_ratio(values, means["history"], np.random.default_rng(0))
            each = [float(np.mean(cells[seed, row][how])) for seed in options.seeds]
            figures = {"ndcg@10": float(values.mean()), "ratio": gained, "by_seed": each, "users": len(values)}
            lines.append({"set": name, "asked": how, "row": row, **figures})
    return lines


def _path(home: Path, seed: int, row: str) -> Path:
    return home / str(seed) / f"{row.replace(', ', '-').replace(' ', '-')}.json"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of all data sets")
    parser.add_argument("--sets", default="movielens-1m,complete-journey")
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", default=";".join(ROWS), help="parted by semicolons; history is one of them")
    parser.add_argument("--minutes", type=float, default=2.0, help="of processor time, for each search of epochs")
    parser.add_argument("--out", type=Path, default=Path(".coldstream/profiles"), help="where results are kept")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seeds = tuple(int(seed) for seed in arguments.seeds.split(","))
    sets, rows = tuple(arguments.sets.split(",")), tuple(arguments.rows.split(";"))
    options = ProfileBenchmarkOptions(
        arguments.data, arguments.out, sets, arguments.users, seeds, arguments.minutes, rows
    )
    lines = []
    for name in options.sets:
        home = options.out / f"{name}-{options.users}-{options.minutes:g}"
        run(options, name, home)
        lines += table(options, home, name)
    if arguments.json:
        print(json.dumps(lines))
        return
    print("| data | asked with | row | NDCG@10 | to `history` | 95% |\n|---|---|---|---|---|---|")
    for line in lines:
        ratio, low, high = line["ratio"]
        figures = f"{line['ndcg@10']:.4f} | {ratio:.3f} | {low:.3f} to {high:.3f}"
        print(f"| {line['set']} | {line['asked']} | {line['row']} | {figures} |")


if __name__ == "__main__":
    main()
