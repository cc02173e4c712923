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
from benchmarks.recommenders import SETS, table_of
from models.data import splits
from models.data.batch import batch_histories
from models.data.interactions import Interactions
from models.evaluation import metrics
from models.recommenders.base import Recommender
from models.recommenders.registry import NEURAL, Situation, make
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


class Asked(msgspec.Struct, frozen=True):
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


class Cell(msgspec.Struct, frozen=True):
    """One training: `attack` is `clean`, or an attack and its share as `bandwagon-0.05`."""

    seed: int
    attack: str
    row: str

    def path(self, home: Path) -> Path:
        return home / str(self.seed) / self.attack / f"{self.row.replace(' ', '-')}.json"


class Outcome(msgspec.Struct, frozen=True):
    """Of each real user NDCG@10 and whether the pushed item was shown."""

    ndcg: list[float]
    shown: list[bool]
    seconds: float


def cells(asked: Asked) -> Iterator[Cell]:
    """Seed by seed, clean data first, so that a part of the run is a table already."""
    attacks = [f"{attack}-{share:g}" for share in reversed(SHARES) for attack in asked.attacks]
    for seed in asked.seeds:
        for row in (*DEFENCES, *REFERENCES):
            yield Cell(seed, CLEAN, row)
        for attack in attacks:
            for row in (*REFERENCES, *asked.defences):
                yield Cell(seed, attack, row)


def run(asked: Asked) -> Path:
    """Whatever cells are missing; the folder that holds them."""
    chosen = f"{asked.set}-{asked.encoder}-{asked.users}-{asked.epochs}"
    home = asked.out / chosen
    wanted = [cell for cell in cells(asked) if not cell.path(home).exists()]
    if not wanted:
        return home
    frame = table_of(SETS[asked.set].open(asked.data), 1.0)
    users = np.sort(frame["user_id"].unique())
    learned = np.random.default_rng(0).choice(users, min(asked.users, len(users)), replace=False)
    whole, after = splits.split(frame, splits.SplitProtocol("leave-one-out"))
    before = whole[whole["user_id"].isin(learned)]
    asking = splits.evaluation_cases(whole, after, 50, asked.cases)
    started = time.monotonic()
    for done, cell in enumerate(wanted):
        outcome = measured(asked, cell, before, asking)
        path = cell.path(home)
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".aside")
        aside.write_bytes(msgspec.json.encode(outcome))
        aside.replace(path)
        left = (time.monotonic() - started) / (done + 1) * (len(wanted) - done - 1)
        told = f"NDCG@10 {np.mean(outcome.ndcg):.4f} shown {np.mean(outcome.shown):.4f} {outcome.seconds:.0f} s"
        where = f"seed {cell.seed} {cell.attack} {cell.row}"
        print(f"{done + 1}/{len(wanted)} {where}: {told}, {left / 60:.0f} min left", file=sys.stderr, flush=True)
    return home


def measured(asked: Asked, cell: Cell, before: pd.DataFrame, cases: list[splits.EvaluationCase]) -> Outcome:
    """Train on what is left of the log and the attack; ask the real users."""
    started, target = time.monotonic(), tail_item(before, np.random.default_rng(cell.seed))
    if cell.attack != CLEAN:
        name, share = cell.attack.rsplit("-", 1)
        before = attacked(before, name, float(share), target, np.random.default_rng([cell.seed, 1]))
    log = Interactions.from_frame(before)
    recommender = _made(asked, cell)
    recommender.fit(log)
    batch = batch_histories([case.history for case in cases], log.vocabulary, 50)
    ranked = metrics.rank(
        lambda start, stop: recommender.score(batch.slice(start, stop)), log.vocabulary, cases, K, mask_seen=True
    )
    ndcg = metrics.per_user(ranked, log.vocabulary, cases, (K,))[f"ndcg@{K}"]
    shown = (ranked.items == log.vocabulary.index[target]).any(axis=1)
    return Outcome(ndcg.tolist(), shown.tolist(), time.monotonic() - started)


def _made(asked: Asked, cell: Cell) -> Recommender:
    if cell.row in REFERENCES:
        return make(cell.row, {}, Situation())
    params = {**SMALL, **OFF, "epochs": asked.epochs, **DEFENCES[cell.row]}
    return make(asked.encoder, params, Situation(length=20), cell.seed)


def show(asked: Asked, home: Path) -> dict[str, Any]:
    """Print both tables from what cells there are; the same as data."""
    rng, clean, hurt = np.random.default_rng(0), [], []
    for row in (*DEFENCES, *REFERENCES):
        found = _together(asked, home, (CLEAN, row))[0]
        if found:
            clean.append({"row": row, "seeds": len(found), **_ndcg(found, rng), **_against(asked, home, row, rng)})
    for attack in [f"{name}-{share:g}" for name in asked.attacks for share in SHARES]:
        for row in (*REFERENCES, *asked.defences):
            found, calm = _together(asked, home, (attack, row), (CLEAN, row))
            if found:
                hurt.append(
                    {
                        "attack": attack,
                        "row": row,
                        "seeds": len(found),
                        **_ndcg(found, rng),
                        **_ratio("to_clean", found, calm, rng),
                        "shown_before": _shown(calm),
                        "shown": _shown(found),
                    }
                )
    _print(clean, hurt)
    return {"set": asked.set, "encoder": asked.encoder, "clean": clean, "attacked": hurt}


def _print(clean: list[dict[str, Any]], hurt: list[dict[str, Any]]) -> None:
    print(f"{'clean data':<16} {'seeds':>5} {'NDCG@10':>24} {'to none':>24}")
    for one in clean:
        other = _span(one, "to_none") if "to_none" in one else ""
        print(f"{one['row']:<16} {one['seeds']:>5} {_span(one, 'ndcg'):>24} {other:>24}")
    print(f"\n{'attack':<16} {'row':<13} {'seeds':>5} {'NDCG@10':>24} {'to clean':>24} {'shown before, after':>20}")
    for one in hurt:
        spread = f"{one['shown_before']:.2%} {one['shown']:.2%}"
        figures = f"{_span(one, 'ndcg'):>24} {_span(one, 'to_clean'):>24} {spread:>20}"
        print(f"{one['attack']:<16} {one['row']:<13} {one['seeds']:>5} {figures}")


def _span(one: dict[str, Any], name: str) -> str:
    return f"{one[name]:.4f} [{one[name + '_low']:.4f}, {one[name + '_high']:.4f}]"


def _together(asked: Asked, home: Path, *wanted: tuple[str, str]) -> list[list[Outcome]]:
    """The outcomes of each wanted (attack, row), of the seeds that all of them have."""
    paths = [[Cell(seed, *one).path(home) for one in wanted] for seed in asked.seeds]
    whole = [row for row in paths if all(path.exists() for path in row)]
    return [
        [msgspec.json.decode(row[place].read_bytes(), type=Outcome) for row in whole] for place in range(len(wanted))
    ]


def _mean(found: list[Outcome]) -> np.ndarray:
    """float64 [users]: NDCG@10 of each user, the mean over seeds."""
    return np.mean([one.ndcg for one in found], axis=0)


def _ndcg(found: list[Outcome], rng: np.random.Generator) -> dict[str, float]:
    values = _mean(found)
    low, high = metrics.intervals({"x": values}, rng, RESAMPLES)["x"]
    return {"ndcg": float(values.mean()), "ndcg_low": low, "ndcg_high": high}


def _ratio(name: str, ours: list[Outcome], theirs: list[Outcome], rng: np.random.Generator) -> dict[str, float]:
    value, low, high = metrics.mean_ratio(_mean(ours), _mean(theirs), rng, RESAMPLES)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _against(asked: Asked, home: Path, row: str, rng: np.random.Generator) -> dict[str, float]:
    ours, none = _together(asked, home, (CLEAN, row), (CLEAN, "none"))
    return _ratio("to_none", ours, none, rng) if ours and row not in {"none", *REFERENCES} else {}


def _shown(found: list[Outcome]) -> float:
    return float(np.mean([one.shown for one in found]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--set", default="movielens-1m", choices=list(SETS))
    parser.add_argument("--encoder", default="transformer", choices=NEURAL)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--users", type=int, default=1_000, help="real users that are learned from")
    parser.add_argument("--cases", type=int, default=4_000, help="real users that are asked")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--attacks", default=",".join(ATTACKS))
    parser.add_argument("--defences", default=",".join(FIRST), help="those measured under attack")
    parser.add_argument("--out", type=Path, default=Path(".coldstream/robustness"), help="where results are kept")
    parser.add_argument("--show", action="store_true", help="only print what is kept")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if not given.show and given.data is None:
        parser.error("give --data FOLDER, or --show")
    memory.keep(memory.TRAINING)
    seeds = tuple(int(one) for one in given.seeds.split(","))
    attacks, defences = tuple(given.attacks.split(",")), tuple(given.defences.split(","))
    asked = Asked(
        given.data or Path(), given.out, given.set, given.encoder, seeds, given.users, given.cases, given.epochs,
        attacks, defences,
    )  # fmt: skip
    home = asked.out / f"{asked.set}-{asked.encoder}-{asked.users}-{asked.epochs}" if given.show else run(asked)
    told = show(asked, home)
    if given.json:
        print(json.dumps(told))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
