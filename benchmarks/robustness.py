"""What defences cost on clean data, and what they save under attack.

python -m benchmarks.robustness --data FOLDER [--set beauty] [--encoder transformer] [--seeds 0,1,2] [--json]

Each user's last event is held out; a seeded sample of `--users` is learned from. Attacks are added to that: false users
(shilling profiles that push one tail item) and noise events, 1% and 5% of users and events. Asked afterwards are up to
`--cases` real users, whether learned from or not, by their own clean histories: how far did NDCG@10 move, and to what
share of them is the pushed item shown among the ten? Every cell is trained anew for each seed, which draws the weights,
the pushed item and the profiles. Cells are kept in `--out`: a run that was cut off goes on where it stopped. `none` is
the encoder with every defence off; each other row switches one on.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from benchmarks.attacks import ATTACKS, attacked, tail_item
from benchmarks.data_sets import DATA_SETS, table_of
from models.data import splits
from models.data.batch import batch_histories
from models.data.interactions import Interactions
from models.evaluation import metrics
from models.recommenders.base import Recommender, TuningContext
from models.recommenders.registry import create, neural_names
from serving.process import memory

SMALL: Final = {
    "blocks": 1,
    "embedding_size": 32,
    "windows_per_user": 3,
    "learning_rate": 5e-3,
    "loss": "sampled",
    "negatives": 256,
    "compiled": False,
}
"""A network that is trained a hundred times on a small machine."""
OFF: Final = {"reg": 0.0, "dropout": 0.0, "adversarial": 0.0}
DEFENCES: Final[dict[str, dict[str, float]]] = {
    "none": {},
    "weight decay": {"reg": 1e-2},
    "l2": {"l2": 1e-3},
    "dropout": {"dropout": 0.3},
    "adversarial": {"adversarial": 1.0, "epsilon": 0.5},
    "crop": {"crop": 0.5},
    "mask": {"mask": 0.2},
    "reorder": {"reorder": 0.5},
    "substitute": {"substitute": 0.2},
}
FIRST: Final = ("none", "dropout", "adversarial", "mask")
"""Defences that are measured under every attack, unless others are asked for; all of them are on clean data."""
REFERENCES: Final = ("item-knn", "ease")
SHARES: Final = (0.01, 0.05)
CLEAN: Final = "clean"
K: Final = 10
RESAMPLES: Final = 2_000


class AttackBenchmarkOptions(msgspec.Struct, frozen=True):
    """What the command line says."""

    data: Path
    out: Path
    set: str
    encoder: str
    seeds: tuple[int, ...]
    users: int
    cases: int
    epochs: int
    attacks: tuple[str, ...]
    defences: tuple[str, ...]


class TrainingCell(msgspec.Struct, frozen=True):
    """One training: `attack` is `clean`, or an attack and its share as `bandwagon-0.05`."""

    seed: int
    attack: str
    row: str

    def path(self, home: Path) -> Path:
        return home / str(self.seed) / self.attack / f"{self.row.replace(' ', '-')}.json"


class AttackOutcome(msgspec.Struct, frozen=True):
    """Of each real user NDCG@10 and whether the pushed item was shown."""

    ndcg: list[float]
    shown: list[bool]
    seconds: float


def cells(options: AttackBenchmarkOptions) -> Iterator[TrainingCell]:
    """Seed by seed, clean data first, so that a part of the run is a table already."""
    attacks = [f"{attack}-{share:g}" for share in reversed(SHARES) for attack in options.attacks]
    for seed in options.seeds:
        for row in (*DEFENCES, *REFERENCES):
            yield TrainingCell(seed, CLEAN, row)
        for attack in attacks:
            for row in (*REFERENCES, *options.defences):
                yield TrainingCell(seed, attack, row)


def run(options: AttackBenchmarkOptions) -> Path:
    """Whatever cells are missing; the folder that holds them."""
    chosen = f"{options.set}-{options.encoder}-{options.users}-{options.epochs}"
    home = options.out / chosen
    pending = [cell for cell in cells(options) if not cell.path(home).exists()]
    if not pending:
        return home
    frame = table_of(DATA_SETS[options.set].open(options.data), 1.0)
    users = np.sort(frame["user_id"].unique())
    learned = np.random.default_rng(0).choice(users, min(options.users, len(users)), replace=False)
    whole, after = splits.split(frame, splits.SplitProtocol("leave-one-out"))
    before = whole[whole["user_id"].isin(learned)]
    cases = splits.evaluation_cases(whole, after, 50, options.cases)
    started = time.monotonic()
    for done, cell in enumerate(pending):
        outcome = measured(options, cell, before, cases)
        path = cell.path(home)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".aside")
        aside.write_bytes(msgspec.json.encode(outcome))
        aside.replace(path)
        left = (time.monotonic() - started) / (done + 1) * (len(pending) - done - 1)
        summary = f"NDCG@10 {np.mean(outcome.ndcg):.4f} shown {np.mean(outcome.shown):.4f} {outcome.seconds:.0f} s"
        where = f"seed {cell.seed} {cell.attack} {cell.row}"
        print(f"{done + 1}/{len(pending)} {where}: {summary}, {left / 60:.0f} min left", file=sys.stderr, flush=True)
    return home


def measured(
    options: AttackBenchmarkOptions, cell: TrainingCell, before: pd.DataFrame, cases: list[splits.EvaluationCase]
) -> AttackOutcome:
    """Train on what is left of the log and the attack; ask the real users."""
    started, target = time.monotonic(), tail_item(before, np.random.default_rng(cell.seed))
    if cell.attack != CLEAN:
        name, share = cell.attack.rsplit("-", 1)
        before = attacked(before, name, float(share), target, np.random.default_rng([cell.seed, 1]))
    log = Interactions.from_frame(before)
    recommender = _made(options, cell)
    recommender.fit(log)
    batch = batch_histories([case.history for case in cases], log.vocabulary, 50)
    ranked = metrics.rank(
        lambda start, stop: recommender.score(batch.slice(start, stop)), log.vocabulary, cases, K, mask_seen=True
    )
    ndcg = metrics.per_user(ranked, log.vocabulary, cases, (K,))[f"ndcg@{K}"]
    shown = (ranked.items == log.vocabulary.index[target]).any(axis=1)
    return AttackOutcome(ndcg.tolist(), shown.tolist(), time.monotonic() - started)


def _made(options: AttackBenchmarkOptions, cell: TrainingCell) -> Recommender:
    if cell.row in REFERENCES:
        return create(cell.row, {}, TuningContext())
    params = {**SMALL, **OFF, "epochs": options.epochs, **DEFENCES[cell.row]}
    return create(options.encoder, params, TuningContext(length=20), cell.seed)


def show(options: AttackBenchmarkOptions, home: Path) -> dict[str, Any]:
    """Print both tables from what cells there are; the same as data."""
    rng, clean, hurt = np.random.default_rng(0), [], []
    for row in (*DEFENCES, *REFERENCES):
        outcomes = _together(options, home, (CLEAN, row))[0]
        if outcomes:
            clean.append(
                {"row": row, "seeds": len(outcomes), **_ndcg(outcomes, rng), **_against(options, home, row, rng)}
            )
    for attack in [f"{name}-{share:g}" for name in options.attacks for share in SHARES]:
        for row in (*REFERENCES, *options.defences):
            outcomes, calm = _together(options, home, (attack, row), (CLEAN, row))
            if outcomes:
                hurt.append(
                    {
                        "attack": attack,
                        "row": row,
                        "seeds": len(outcomes),
                        **_ndcg(outcomes, rng),
                        **_ratio("to_clean", outcomes, calm, rng),
                        "shown_before": _shown(calm),
                        "shown": _shown(outcomes),
                    }
                )
    _print(clean, hurt)
    return {"set": options.set, "encoder": options.encoder, "clean": clean, "attacked": hurt}


def _print(clean: list[dict[str, Any]], hurt: list[dict[str, Any]]) -> None:
    print(f"{'clean data':<16} {'seeds':>5} {'NDCG@10':>24} {'to none':>24}")
    for row in clean:
        other = _span(row, "to_none") if "to_none" in row else ""
        print(f"{row['row']:<16} {row['seeds']:>5} {_span(row, 'ndcg'):>24} {other:>24}")
    print(f"\n{'attack':<16} {'row':<13} {'seeds':>5} {'NDCG@10':>24} {'to clean':>24} {'shown before, after':>20}")
    for row in hurt:
        spread = f"{row['shown_before']:.2%} {row['shown']:.2%}"
        figures = f"{_span(row, 'ndcg'):>24} {_span(row, 'to_clean'):>24} {spread:>20}"
        print(f"{row['attack']:<16} {row['row']:<13} {row['seeds']:>5} {figures}")


def _span(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.4f} [{row[name + '_low']:.4f}, {row[name + '_high']:.4f}]"


def _together(options: AttackBenchmarkOptions, home: Path, *keys: tuple[str, str]) -> list[list[AttackOutcome]]:
    """The outcomes of each (attack, row), of the seeds that all of them have."""
    paths = [[TrainingCell(seed, *key).path(home) for key in keys] for seed in options.seeds]
    whole = [row for row in paths if all(path.exists() for path in row)]
    return [
        [msgspec.json.decode(row[place].read_bytes(), type=AttackOutcome) for row in whole]
        for place in range(len(keys))
    ]


def _mean(outcomes: list[AttackOutcome]) -> np.ndarray:
    """float64 [users]: NDCG@10 of each user, the mean over seeds."""
    return np.mean([outcome.ndcg for outcome in outcomes], axis=0)


def _ndcg(outcomes: list[AttackOutcome], rng: np.random.Generator) -> dict[str, float]:
    values = _mean(outcomes)
    low, high = metrics.intervals({"x": values}, rng, RESAMPLES)["x"]
    return {"ndcg": float(values.mean()), "ndcg_low": low, "ndcg_high": high}


def _ratio(
    name: str, ours: list[AttackOutcome], theirs: list[AttackOutcome], rng: np.random.Generator
) -> dict[str, float]:
    value, low, high = metrics.mean_ratio(_mean(ours), _mean(theirs), rng, RESAMPLES)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _against(options: AttackBenchmarkOptions, home: Path, row: str, rng: np.random.Generator) -> dict[str, float]:
    ours, none = _together(options, home, (CLEAN, row), (CLEAN, "none"))
    return _ratio("to_none", ours, none, rng) if ours and row not in {"none", *REFERENCES} else {}


def _shown(outcomes: list[AttackOutcome]) -> float:
    return float(np.mean([outcome.shown for outcome in outcomes]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--set", default="movielens-1m", choices=list(DATA_SETS))
    parser.add_argument("--encoder", default="transformer", choices=neural_names())
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--users", type=int, default=1_000, help="real users that are learned from")
    parser.add_argument("--cases", type=int, default=4_000, help="real users that are asked")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--attacks", default=",".join(ATTACKS))
    parser.add_argument("--defences", default=",".join(FIRST), help="those measured under attack")
    parser.add_argument("--out", type=Path, default=Path(".coldstream/robustness"), help="where results are kept")
    parser.add_argument("--show", action="store_true", help="only print what is kept")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.show and arguments.data is None:
        parser.error("give --data FOLDER, or --show")
    memory.configure_allocator(memory.TRAINING)
    seeds = tuple(int(seed) for seed in arguments.seeds.split(","))
    attacks, defences = tuple(arguments.attacks.split(",")), tuple(arguments.defences.split(","))
    options = AttackBenchmarkOptions(
        arguments.data or Path(),
        arguments.out,
        arguments.set,
        arguments.encoder,
        seeds,
        arguments.users,
        arguments.cases,
        arguments.epochs,
        attacks,
        defences,
    )
    home = (
        options.out / f"{options.set}-{options.encoder}-{options.users}-{options.epochs}"
        if arguments.show
        else run(options)
    )
    figures = show(options, home)
    if arguments.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
