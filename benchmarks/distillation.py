"""Does an encoder that learned from a blend with soft injection answer new users as well as that blend?

python -m benchmarks.distillation --data FOLDER [--set beauty] [--users 5000] [--epochs 5] [--encoder dnn] [--out FILE]

One cold-user fold. The teacher is the blend of counting recommenders and of sequential rules with the walk's events two
and three ahead; its weights are fitted on tuning users. Students are one encoder, trained on the same events for as
many epochs: alone, from the teacher, and from the blend without injection. Prefix sampling is on for all of them.
Nothing is tuned. No clock: an encoder cannot read it. Values of users are kept in `--out`; `--show` prints them again.
"""

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.data_sets import DATA_SETS, opened
from benchmarks.printing import print_stage
from models.arrays import Float64
from models.data.interactions import Interactions
from models.evaluation.bootstrap import compare, intervals, ratio_text
from models.evaluation.cold_ranking import rank_episodes
from models.evaluation.cold_users import FoldPlan
from models.evaluation.cold_values import PRIMARY, UserValues
from models.evaluation.opponent import FittedFold, Opponent, OpponentPlan
from models.injection.soft import SoftInjection
from models.recommenders.base import Scorer
from models.recommenders.blend import BlendScorer
from models.recommenders.registry import create
from models.synthesizers.walk import Walk

KS: Final = (1, 2, 3)
NEXT: Final = "next ndcg@10"
HOST: Final = "sequential-rules"
MEMBERS: Final = ("item-knn", HOST, "svd-filter", "user-knn", "first-events")
STEPS: Final = (2, 3)
WEIGHT: Final = (1.0,) * 5
BLEND: Final = "blend"
TEACHER: Final = "blend with soft injection"
ALONE: Final = "encoder alone"
FROM_TEACHER: Final = "encoder, from the blend with soft injection"
FROM_BLEND: Final = "encoder, from the blend"
ARMS: Final = (BLEND, TEACHER, ALONE, FROM_TEACHER, FROM_BLEND)
PAIRS: Final = (
    (TEACHER, BLEND),
    (FROM_TEACHER, ALONE),
    (FROM_TEACHER, TEACHER),
    (FROM_TEACHER, FROM_BLEND),
    (FROM_BLEND, ALONE),
    (FROM_BLEND, BLEND),
)


def injected(members: Mapping[str, Scorer], interactions: Interactions) -> dict[str, Scorer]:
    """The rules with the walk's expected events."""
    walk = Walk()
    walk.fit(interactions)
    return {f"soft {steps} ahead": SoftInjection(members[HOST], walk, steps=steps, weight=WEIGHT) for steps in STEPS}


def teachers(opponent: Opponent, fitted: FittedFold) -> dict[str, Scorer]:
    """The blends with and without injected members, weighted on the fold's tuning users."""
    names, blends = list(fitted.evidence.names), dict[str, Scorer]()
    for label, chosen in ((BLEND, list(MEMBERS)), (TEACHER, names)):
        weights = opponent.blend(fitted.evidence, fitted.horizons, chosen)[:, [names.index(name) for name in chosen]]
        blends[label] = BlendScorer([fitted.test[name] for name in chosen], weights)
    return blends


def student(options: argparse.Namespace, opponent: Opponent, log: Interactions, teacher: Scorer | None) -> Scorer:
    """A trained encoder."""
    params = {"epochs": options.epochs, "prefixes": 0.5, "blocks": 1, "length": 20}
    if teacher is not None:
        params |= {"distill": options.weight, "distill_temperature": options.temperature}
    encoder: Any = create(options.encoder, params, opponent.context)
    encoder.teacher = teacher
    encoder.fit(log)
    trained: Scorer = encoder
    return trained


def run(options: argparse.Namespace) -> None:
    """The arms one after another; what is done is kept."""
    frame, categories, catalogue = opened(options.data, options.set, catalogue=True)
    folds = FoldPlan(ks=KS, most_users=options.users, tuning_users=options.tuning_users)
    plan = OpponentPlan(members=MEMBERS, folds=folds, half_lives_ms=(), by_horizon=False)
    opponent = Opponent(frame, plan, print_stage, catalogue=catalogue, categories=categories or None, further=injected)
    fitted = opponent.fitted(opponent.folds.fold(0))
    blends, episodes = teachers(opponent, fitted), fitted.fold.test.cold
    users = [*dict.fromkeys(episode.user_id for episode in episodes)]
    kept: dict[str, Float64] = {}
    given = {BLEND: None, TEACHER: None, ALONE: None, FROM_TEACHER: blends[TEACHER], FROM_BLEND: blends[BLEND]}
    for arm, teacher in given.items():
        if arm not in options.arms and arm not in blends:
            continue
        started = time.monotonic()
        scorer = blends[arm] if arm in blends else student(options, opponent, fitted.training, teacher)
        values = UserValues(users, KS, [arm])
        ranked = rank_episodes({arm: scorer}, {}, episodes, masked=True, length=folds.length)
        values.add(ranked, episodes)
        kept |= {f"{arm}\n{view}": values.values[view][:, :, 0] for view in (PRIMARY, NEXT)}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(options.out, **kept)  # type: ignore[arg-type]  # its stubs take no such mapping
        print_stage(f"{arm}: {time.monotonic() - started:.0f} s", 1.0, {})
        show(options.out)


def show(file: Path) -> None:
    """The tables, in Markdown: means with intervals, and ratios to the teacher and to the encoder alone."""
    with np.load(file) as kept:
        values = {name: kept[name] for name in kept.files}
    done = [arm for arm in ARMS if f"{arm}\n{PRIMARY}" in values]
    rng = np.random.default_rng(0)
    for view in (PRIMARY, NEXT):
        columns = {f"{arm}\n{k}": values[f"{arm}\n{view}"][:, n] for arm in done for n, k in enumerate(KS)}
        bounds = intervals(columns, rng)
        users = int((~np.isnan(next(iter(columns.values())))).sum())
        print(f"\n{view}, {users} users\n\n| | " + " | ".join(f"k = {k}" for k in KS) + " |\n|---|" + "---|" * len(KS))
        for arm in done:
            cells = []
            for name in (f"{arm}\n{k}" for k in KS):
                low, high = bounds[name]
                cells.append(f"{np.nanmean(columns[name]):.4f} [{low:.4f}, {high:.4f}]")
            print(f"| {arm} | " + " | ".join(cells) + " |")
        for ours, theirs in PAIRS:
            if ours in done and theirs in done:
                top, bottom = ([columns[f"{arm}\n{k}"] for k in KS] for arm in (ours, theirs))
                ratios = [ratio_text(pair) for pair in compare(top, bottom, rng)]
                print(f"| {ours} / {theirs} | " + " | ".join(ratios) + " |", flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--set", default="beauty", choices=list(DATA_SETS))
    parser.add_argument("--users", type=int, default=5_000, help="cold users of all five folds")
    parser.add_argument("--tuning-users", type=int, default=500)
    parser.add_argument("--encoder", default="dnn", choices=("dnn", "cnn", "rnn", "transformer"))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--weight", type=float, default=1.0, help="of the divergence from the teacher")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--arms", default=ARMS, nargs="+", help="students that are trained, by name")
    parser.add_argument("--out", type=Path, default=Path(".coldstream/distillation.npz"))
    parser.add_argument("--show", action="store_true", help="only print what is kept")
    options = parser.parse_args()
    if not options.show:
        run(options)
    show(options.out)


if __name__ == "__main__":
    main()
