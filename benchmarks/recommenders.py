"""Ours beside RecTools': the same splits, the same trials and processor time for every recommender, several seeds.

python -m benchmarks.recommenders --data FOLDER --rectools PYTHON [--sets beauty,globo] [--seeds 0,1,2]
                                  [--minutes 1] [--neural-minutes 6] [--sasrec-minutes 6] [--catalogue]

`--rectools` is a Python with `rectools[torch]`, `optuna` and `pyarrow<20` in an environment of its own (it asks for an
older numpy). Minutes are of processor time, so that other load on the machine takes nothing from either side: as many
for each counting recommender of both sides, and as many for each neural one, unless `--sasrec-minutes` give theirs
more. Everything is tuned with the first seed; with the others what draws random numbers (encoders, SASRec, iALS, and a
blend with such a member) is fitted anew with the parameters found. Per user NDCG@10 of each recommender is kept in
`--out`: a run that was cut off goes on where it stopped. What the table calls `auto` is what won on the tuning cases,
a candidate or the blend; test cases are looked at once. Without `--catalogue` both sides see ids, ours categories
too; with it ours also read titles and offer items of the catalogue that nobody took yet. The ratio is of `auto` to the
best of theirs on the test cases, which is theirs by hindsight.

On a machine with a GPU: `--pack FOLDER` writes the sets as Parquet, `--data FOLDER` reads them there without what
opens the sources. `--only encoder,rectools-sasrec` are the two that a GPU trains, each to its end; `--clock wall`
counts minutes of the wall, since a GPU's work is no processor time; `--device cuda` is where theirs recommends, and
lets it begin with RecTools' own defaults (ours computes where Keras' backend does: KERAS_BACKEND=jax).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

from benchmarks.data_sets import DATA_SETS, opened
from models.data.splits import SplitProtocol
from models.data.vocabulary import PREFERENCE_WEIGHTS
from models.evaluation import metrics
from models.evaluation.experiment import Experiment, ExperimentPlan, TunedRecommender, best_of
from models.recommenders.blend import Blend
from models.recommenders.registry import create, is_neural, neural_names, tuned_params
from serving.process import memory

THEIRS: Final = ("popular", "itemknn", "ease", "ials", "sasrec")
COUNTING: Final = ("popularity", "personal", "item-knn", "sequential-rules", "ease")
RANDOM: Final = ("ials", "sasrec", "blend", *neural_names())
"""What gives other figures with another seed."""
RESAMPLES: Final = 2_000


CLOCKS: Final = {"processor": time.process_time, "wall": time.monotonic}


class ComparisonOptions(msgspec.Struct, frozen=True):
    """What the command line says."""

    data: Path
    rectools: Path | None
    out: Path
    sets: tuple[str, ...]
    seeds: tuple[int, ...]
    trials: int
    minutes: float
    neural_minutes: float
    sasrec_minutes: float
    most: int
    catalogue: bool = False
    only: tuple[str, ...] = ()
    clock: str = "processor"
    device: str = "cpu"

    def asks(self, name: str) -> bool:
        """Whether `name` is wanted; the whole comparison is, unless `--only` names parts of it."""
        return not self.only or name in self.only


def pack(options: ComparisonOptions, folder: Path) -> None:
    """Write each set as Parquet, and its categories."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in options.sets:
        frame, categories, _ = opened(options.data, name)
        (folder / f"{name}.json").write_text(json.dumps(categories), "utf-8")
        frame.to_parquet(folder / f"{name}.parquet", compression="zstd")
        print(f"{folder / name}.parquet: {len(frame):,} events", flush=True)


def run_set(options: ComparisonOptions, name: str, seed: int) -> None:
    """Every recommender on one data set with one seed; what is in `out` already is not done again."""
    folder = options.out / name / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    theirs = THEIRS if options.rectools else ()
    pending = [
        their for their in theirs if options.asks(f"rectools-{their}") and not _done(folder, f"rectools-{their}")
    ]
    ours = [
        recommender
        for recommender in (*COUNTING, DATA_SETS[name].encoder)
        if options.asks("encoder" if is_neural(recommender) else recommender)
    ]
    if options.only:
        ours = [our for our in ours if not _done(folder, our)]
    ours_left = bool(ours) if options.only else not _done(folder, "auto")
    if not pending and not ours_left:
        return
    _alike(options, folder)
    frame, categories, offered = opened(options.data, name, catalogue=options.catalogue)
    protocol, clock = SplitProtocol.parse(DATA_SETS[name].protocol), CLOCKS[options.clock]
    plan = ExperimentPlan(protocol, seed, options.trials, options.minutes, options.most, tested=len(frame), clock=clock)
    experiment = Experiment(frame, plan, _say, categories or None, catalogue=offered)
    size = {"events": len(frame), "users": int(frame["user_id"].nunique()), "items": int(frame["item_id"].nunique())}
    facts = {
        **size,
        "cases": len(experiment.test.cases),
        "masked": experiment.masked,
        "split": DATA_SETS[name].protocol,
    }
    facts |= {"catalogue": offered is not None} if options.catalogue else {}
    (folder / "facts.json").write_text(json.dumps(facts), "utf-8")
    print(f"{name} seed {seed}: {facts}", flush=True)
    first = folder.with_name(str(options.seeds[0]))
    if ours_left:
        if folder == first:
            tune_ours(options, experiment, folder, ours)
        else:
            refit_ours(experiment, first, folder, ours, blended=not options.only)
    if pending:
        run_theirs(options, experiment, first, folder, pending)


def tune_ours(options: ComparisonOptions, experiment: Experiment, folder: Path, names: Sequence[str]) -> None:
    """Tune, blend, choose on the tuning cases; then measure each of them on the test cases.

    Parts of the comparison are measured alone, without a blend.
    """
    names = [name for name in names if not (name == "personal" and experiment.masked)]
    minutes = dict.fromkeys(neural_names(), options.neural_minutes)
    tuned = [experiment.tune(name, minutes=minutes.get(name)) for name in names]
    chosen = ""
    if not options.only:
        tuned.append(experiment.blend(tuned))
        chosen = best_of(tuned).name
    for result in tuned:
        figures = {"tuning": result.ndcg, "trials": result.trials, "tuning_seconds": result.seconds}
        _measured(experiment, result, folder, chosen, figures)


def refit_ours(experiment: Experiment, first: Path, folder: Path, names: Sequence[str], blended: bool) -> None:
    """What was found with the first seed, fitted with this one; what draws nothing has the figures it had."""
    figures = {file.stem: json.loads(file.read_text()) for file in first.glob("*.json")}
    tuned = [TunedRecommender(name, figures[name]["params"], np.zeros(0)) for name in names if name in figures]
    chosen = figures["auto"]["chosen"] if blended else ""
    if blended:
        members = [
            create(result.name, tuned_params(result.name, result.params), experiment.situation, 0) for result in tuned
        ]
        mixed = Blend(members, np.array(figures["blend"]["params"]["weights"]))
        tuned.append(TunedRecommender("blend", {}, np.zeros(0), recommender=mixed, members=list(tuned)))
    for result in tuned:
        if result.name in RANDOM:
            _measured(experiment, result, folder, chosen, {})
        else:
            _again(first, folder, result.name, chosen)


def run_theirs(
    options: ComparisonOptions, experiment: Experiment, first: Path, folder: Path, names: Sequence[str]
) -> None:
    """Hand the same parts to RecTools' side; what it predicts is judged here."""
    with tempfile.TemporaryDirectory() as text:
        place = Path(text)
        columns = ["user_id", "item_id", "at", "weight"]
        for part, rows in (("fit", experiment.fitted), ("whole", experiment.before)):
            rows.assign(weight=rows["kind"].map(PREFERENCE_WEIGHTS))[columns].to_parquet(place / f"{part}.parquet")
        pairs = [(case.user_id, item) for case in experiment.tuning.cases for item in case.targets]
        pd.DataFrame(pairs, columns=["user_id", "item_id"]).to_parquet(place / "tune.parquet")
        users = [case.user_id for case in experiment.test.cases]
        pd.DataFrame({"user_id": users}).to_parquet(place / "users.parquet")
        for model in names:
            name = f"rectools-{model}"
            if folder != first and model not in RANDOM:
                if _done(first, name):
                    _again(first, folder, name)
                continue
            out = place / f"{model}.parquet"
            command = [str(options.rectools), str(Path(__file__).with_name("rectools_side.py")), "--model", model]
            for part in ("fit", "tune", "whole", "users"):
                command += [f"--{part}", str(place / f"{part}.parquet")]
            command += ["--out", str(out), "--seed", str(experiment.plan.seed), "--trials", str(options.trials)]
            command += ["--minutes", str(options.sasrec_minutes if model == "sasrec" else options.minutes)]
            command += ["--clock", options.clock, "--device", options.device]
            if folder != first:
                command += ["--found", str(first / f"{name}.json")]
            variables = {**memory.allocator_variables(memory.TRAINING), **os.environ}
            done = subprocess.run(command, env=variables, check=False)
            if done.returncode == 3:
                continue
            done.check_returncode()
            _keep(folder, name, experiment, judged(experiment, out), json.loads(out.with_suffix(".json").read_text()))


def judged(experiment: Experiment, predictions: Path) -> np.ndarray:
    """NDCG@10 of each test case by our own metrics, from lists in Parquet (user_id, item_id, rank)."""
    side = experiment.test
    rows = {case.user_id: number for number, case in enumerate(side.cases)}
    index = side.log.vocabulary.index
    items = np.full((len(rows), 20), -1, np.int64)
    lists = pd.read_parquet(predictions)[["user_id", "item_id", "rank"]]
    for user, item, rank in lists.itertuples(index=False):
        if rank <= items.shape[1] and item in index:
            items[rows[user], rank - 1] = index[item]
    ranked = metrics.RankedLists(items, np.full(len(rows), np.nan), 20)
    return metrics.per_user(ranked, side.log.vocabulary, side.cases, (10,))["ndcg@10"]


def show(out: Path) -> dict[str, Any]:
    """Print a table for each data set in `out`; the same as data."""
    figures: dict[str, Any] = {}
    for home in sorted(path for path in out.iterdir() if path.is_dir()):
        names = sorted({file.stem for file in home.glob("*/*.parquet")})
        values = {name: _per_user(home, name) for name in names}
        ours = [value for value in values if is_neural(value) or value == "auto"]
        if not ours:
            continue
        shown = "auto" if "auto" in ours else ours[0]
        rng = np.random.default_rng(0)
        rows = []
        for name in sorted(names, key=lambda row: -values[row][0].mean()):
            column, seeds = values[name]
            low, high = metrics.intervals({"x": column.to_numpy()}, rng, RESAMPLES)["x"]
            rows.append({"name": name, "ndcg@10": float(column.mean()), "low": low, "high": high, "seeds": seeds})
        theirs = [row["name"] for row in rows if str(row["name"]).startswith("rectools-")]
        facts = json.loads(next(home.glob("*/facts.json")).read_text())
        figures[home.name] = {"facts": facts, "rows": rows}
        print(f"\n{home.name}: {facts}")
        for row in rows:
            spread = ", ".join(f"{seed:.4f}" for seed in row["seeds"])
            print(f"  {row['name']:<20} {row['ndcg@10']:.4f} [{row['low']:.4f}, {row['high']:.4f}]  seeds {spread}")
        if theirs:
            both = pd.concat({"ours": values[shown][0], "theirs": values[theirs[0]][0]}, axis=1).dropna()
            value, low, high = metrics.mean_ratio(both["ours"].to_numpy(), both["theirs"].to_numpy(), rng, RESAMPLES)
            figures[home.name]["ratio"] = {"of": shown, "to": theirs[0], "value": value, "low": low, "high": high}
            print(f"  {shown} / {theirs[0]}: {value:.3f} [{low:.3f}, {high:.3f}]")
    return figures


def _per_user(home: Path, name: str) -> tuple[pd.Series, list[float]]:
    """NDCG@10 of each user, the mean over the seeds that asked it, and the mean of each seed."""
    parts = [pd.read_parquet(file) for file in sorted(home.glob(f"*/{name}.parquet"))]
    whole = pd.concat(parts).groupby("user_id")["ndcg"].mean()
    return whole, [float(part["ndcg"].mean()) for part in parts]


def _keep(folder: Path, name: str, experiment: Experiment, values: np.ndarray, figures: dict[str, Any]) -> None:
    users = [case.user_id for case in experiment.test.cases]
    aside = folder / f".{name}.aside"
    pd.DataFrame({"user_id": users, "ndcg": values}).to_parquet(aside)
    (folder / f"{name}.json").write_text(json.dumps(figures, default=str), "utf-8")
    aside.replace(folder / f"{name}.parquet")
    print(f"  {name:<20} NDCG@10 {values.mean():.4f}", flush=True)


def _measured(
    experiment: Experiment, tuned: TunedRecommender, folder: Path, chosen: str, figures: dict[str, Any]
) -> None:
    started = time.process_time()
    recommender = experiment.fit(tuned)
    values, _ = experiment.measured(recommender)
    figures = {"params": recommender.describe(), **figures, "fit_seconds": time.process_time() - started}
    _keep(folder, tuned.name, experiment, values["ndcg@10"], figures)
    if tuned.name == chosen:
        _keep(folder, "auto", experiment, values["ndcg@10"], {"chosen": chosen})


def _again(first: Path, folder: Path, name: str, chosen: str | None = None) -> None:
    for end in ("parquet", "json"):
        shutil.copy(first / f"{name}.{end}", folder / f"{name}.{end}")
        if name == chosen:
            shutil.copy(first / f"auto.{end}", folder / f"auto.{end}")


def _alike(options: ComparisonOptions, folder: Path) -> None:
    """Stop where a data set's results were made with a catalogue and go on without, or the other way round."""
    for file in folder.parent.glob("*/facts.json"):
        had = "catalogue" in json.loads(file.read_text())
        if had != options.catalogue and any(file.parent.glob("*.parquet")):
            cure = "name --catalogue again" if had else "leave out --catalogue"
            raise SystemExit(
                f"{file.parent}: was made {'with' if had else 'without'} a catalogue; {cure}, or another --out"
            )


def _done(folder: Path, name: str) -> bool:
    return (folder / f"{name}.parquet").exists()


def _say(stage: str, done: float, figures: dict[str, float]) -> None:
    if done >= 1 and sys.stderr.isatty():
        print(f"    {stage} {figures}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the data sets")
    parser.add_argument("--rectools", type=Path, help="a Python with rectools[torch]; left out: ours alone")
    parser.add_argument("--out", type=Path, default=Path(".coldstream/recommenders"), help="where results are kept")
    parser.add_argument("--sets", default=",".join(DATA_SETS))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=1.0, help="of processor time, to tune a counting recommender")
    parser.add_argument("--neural-minutes", type=float, default=6.0, help="of processor time, to tune a neural one")
    parser.add_argument("--sasrec-minutes", type=float, help="of processor time, for theirs (neural minutes)")
    parser.add_argument("--most", type=int, default=3_000, help="tuning cases")
    parser.add_argument("--catalogue", action="store_true", help="ours read titles, and offer items nobody took yet")
    parser.add_argument("--only", default="", help="encoder, ease, ..., rectools-sasrec, ... (everything)")
    parser.add_argument("--clock", choices=list(CLOCKS), default="processor", help="what minutes are counted by")
    parser.add_argument("--device", default="cpu", help="where theirs recommends: cpu, cuda")
    parser.add_argument("--pack", type=Path, help="only write the sets into this folder")
    parser.add_argument("--show", action="store_true", help="only print what is kept")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seeds = tuple(int(seed) for seed in arguments.seeds.split(","))
    sasrec = arguments.sasrec_minutes or arguments.neural_minutes
    budget = (arguments.trials, arguments.minutes, arguments.neural_minutes, sasrec, arguments.most)
    sets, only = tuple(arguments.sets.split(",")), tuple(part for part in arguments.only.split(",") if part)
    running = (arguments.catalogue, only, arguments.clock, arguments.device)
    options = ComparisonOptions(arguments.data, arguments.rectools, arguments.out, sets, seeds, *budget, *running)
    if arguments.pack is not None:
        pack(options, arguments.pack)
        return 0
    memory.configure_allocator(memory.TRAINING)
    for seed in [] if arguments.show else seeds:
        for name in options.sets:
            run_set(options, name, seed)
    figures = show(arguments.out)
    if arguments.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
