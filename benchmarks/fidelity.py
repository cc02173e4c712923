"""How real what each synthesizer generates looks, next to its ceiling and Markov: `coldstream synthesize --report` on
public sets, in tables.

python -m benchmarks.fidelity --data FOLDER [--sets movielens-1m,beauty] [--synthesizers markov,walk] [--users 3000]
                              [--items 4000] [--seconds 120] [--epochs 3] [--seed 0] [--out FOLDER] [--show]

Each synthesizer's figures are kept in OUT/SET/NAME.json, so a run goes on where it was; a file that is deleted is
computed again. Users are drawn first, and events of rare items left out (`--items`: a recommender of the utility test
inverts a matrix of items by items). A fifth of the users is what synthetic ones are compared with, another fifth gives
the ceiling, the others are learned from. `--seconds` limits each fit. `--show` only prints what is kept, as Markdown.
OUT/SET/tables has the compared events, which `benchmarks/fidelity_libraries.py` reads.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pandas as pd

from benchmarks.data_sets import DATA_SETS, opened
from benchmarks.opponents import TITLES, titles_of
from models.data.item_features import ItemFeatures
from models.evaluation.report_page import ReportPage, ReportTable, markdown_page, number
from models.evaluation.synthesis import BASELINE, SynthesisExperiment, SynthesisPlan, first_events
from models.evaluation.synthesis_report import (
    DISCRIMINATOR_AUC,
    LOOSE,
    LOOSE_SHARE,
    STRICT,
    STRICT_SHARE,
    UTILITY,
    VARIETY_SHARE,
    Ceiling,
    GeneratorResults,
    verdicts,
)
from models.synthesizers import registry
from models.synthesizers.base import MAX_EVENTS
from models.synthesizers.histories import Histories
from stream.errors import ColdstreamError
from stream.files import write_atomically

QUICK: Final = ("markov", "walk", "block-model", "knn-copy", "popularity-draw", "text", "article-gan")
"""The synthesizers whose fits take seconds."""
ASPECTS: Final = (
    *("items", "pairs", "transitions", "lengths", "gaps"),
    *("coverage", "tail-share", "distinct-sequences"),
)
SET_FILE: Final = "set.json"


class SetFigures(msgspec.Struct, frozen=True):
    """What was compared on a set, and the ceiling of its figures."""

    events: int
    users: int
    items: int
    compared: int
    seed: int
    ceiling: Ceiling


class KeptResults(msgspec.Struct, frozen=True):
    """The figures of a synthesizer, or why there are none; the limit of its fit."""

    name: str
    seconds: float
    results: GeneratorResults | None = None
    failure: str = ""


def part_of(frame: pd.DataFrame, users: int, items: int, seed: int) -> pd.DataFrame:
    """The events of at most `users` users, drawn with the seed, with their `items` most frequent items."""
    everyone = np.sort(frame["user_id"].unique())
    drawn = np.random.default_rng(seed).choice(everyone, min(users, len(everyone)), replace=False)
    part = frame[frame["user_id"].isin(drawn)]
    popular = part["item_id"].value_counts().index[:items]
    return part[part["item_id"].isin(popular)].reset_index(drop=True)


def run(options: argparse.Namespace, name: str) -> None:
    """Compute what is missing of a set."""
    folder = options.out / name
    missing = [name for name in options.synthesizers.split(",") if not (folder / f"{name}.json").is_file()]
    if not missing:
        return
    frame, _, features = opened(options.data, name, catalogue=True)
    if (options.data / TITLES.get(name, "none")).is_file():
        features = titles_of(options.data / TITLES[name])
    frame = part_of(frame, options.users, options.items, options.seed)
    plan = SynthesisPlan(generators={}, seed=options.seed, seconds=options.seconds, epochs=options.epochs)
    complete(folder, frame, plan, missing, features)


def complete(
    folder: Path,
    frame: pd.DataFrame,
    plan: SynthesisPlan,
    names: Sequence[str],
    features: ItemFeatures | None = None,
) -> None:
    """Compute and keep the figures of synthesizers."""
    experiment = SynthesisExperiment(frame, plan, lambda *_: None, features)
    keep_set(experiment, frame, folder)
    for name in names:
        print(f"  {time.strftime('%H:%M:%S')} {folder.name} {name}", file=sys.stderr, flush=True)
        keep(folder / f"{name}.json", evaluated(experiment, name, folder / "tables"))


def keep_set(experiment: SynthesisExperiment, frame: pd.DataFrame, folder: Path) -> None:
    """Keep the ceiling and the real events, or check that kept ones are of the same users."""
    sizes = (len(frame), int(frame["user_id"].nunique()), int(frame["item_id"].nunique()))
    sizes = (*sizes, len(experiment.held_out), experiment.plan.seed)
    if (folder / SET_FILE).is_file():
        kept = kept_set(folder)
        if (kept.events, kept.users, kept.items, kept.compared, kept.seed) != sizes:
            raise SystemExit(
                f"{folder} holds figures of {kept.users} users and seed {kept.seed}; "
                f"give these as --users and --seed, or another --out"
            )
        return
    for table, histories in (("real", experiment.held_out), ("ceiling", experiment.public)):
        write_table(experiment, histories, folder / "tables" / f"{table}.parquet")
    learned = first_events(Histories.from_interactions(experiment.learned), MAX_EVENTS)
    write_table(experiment, learned.take(np.arange(len(experiment.held_out))), folder / "tables" / "learned.parquet")
    keep(folder / SET_FILE, SetFigures(*sizes, experiment.ceiling()))


def evaluated(experiment: SynthesisExperiment, name: str, tables: Path) -> KeptResults:
    """The figures of a synthesizer; its events are written to `tables`."""
    seconds = experiment.plan.seconds or 0.0
    try:
        results = experiment.evaluate(
            name, lambda histories: write_table(experiment, histories, tables / f"{name}.parquet")
        )
    except ColdstreamError as error:
        return KeptResults(name, seconds, failure=str(error))
    return KeptResults(name, seconds, results)


def write_table(experiment: SynthesisExperiment, histories: Histories, path: Path) -> None:
    """Events as `coldstream synthesize --out` writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    histories.frame(experiment.learned.vocabulary).to_parquet(path, index=False)


def keep(path: Path, value: msgspec.Struct) -> None:
    """Write a value as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(value)) + b"\n")


def kept_set(folder: Path) -> SetFigures:
    """What `keep_set` wrote."""
    return msgspec.json.decode((folder / SET_FILE).read_bytes(), type=SetFigures)


def kept_results(folder: Path) -> list[KeptResults]:
    """What is kept of the synthesizers of a set: the baseline first, the others by name."""
    files = [path for path in sorted(folder.glob("*.json")) if path.name not in {SET_FILE, "libraries.json"}]
    kept = [msgspec.json.decode(path.read_bytes(), type=KeptResults) for path in files]
    return sorted(kept, key=lambda row: row.name != BASELINE)


def page_of_set(name: str, figures: SetFigures, kept: Sequence[KeptResults]) -> ReportPage:
    """The tables of a set."""
    results = [row.results for row in kept if row.results is not None]
    size = f"{figures.events:,} events, {figures.users:,} users, {figures.items:,} items; seed {figures.seed}"
    failures = [f"- `{row.name}` failed: {row.failure}" for row in kept if row.failure]
    facts = [f"{size}; {figures.compared:,} users are compared.", *failures]
    return ReportPage(name, facts, [], [fidelity_table(figures.ceiling, results), use_table(figures.ceiling, results)])


def fidelity_table(ceiling: Ceiling, results: Sequence[GeneratorResults]) -> ReportTable:
    """Aspects as shares of the ceiling and AUCs of discriminators; bold where the goal is reached."""
    head = ["synthesizer", *ASPECTS, "features AUC", "sequence AUC"]
    first = ["ceiling", *(number(ceiling.fidelity[aspect]) for aspect in ASPECTS)]
    rows = [[*first, auc_cell(ceiling.feature_auc), auc_cell(ceiling.sequence_auc)]]
    for row in results:
        shares = [share_cell(aspect, row.fidelity[aspect], ceiling.fidelity[aspect]) for aspect in ASPECTS]
        rows.append([f"`{row.name}`", *shares, auc_cell(row.feature_auc), auc_cell(row.sequence_auc)])
    return ReportTable("Fidelity: shares of the ceiling, and AUC of discriminators", head, rows)


def use_table(ceiling: Ceiling, results: Sequence[GeneratorResults]) -> ReportTable:
    """Utility, privacy, times, and the uses that a synthesizer is good enough for."""
    head = ["synthesizer", "utility", "of popularity", "attack AUC", "found at 1%", "copies", "fit s", "users/s", "use"]
    rows = []
    for row in results:
        worst = max(attack.auc for attack in row.attacks)
        exposed = max(attack.tpr_at_1_percent for attack in row.attacks)
        popularity = row.utility.synthetic / max(row.utility.popularity, 1e-12)
        times = [f"{row.fit_seconds:.1f}", f"{row.users_per_second:,.0f}"]
        passed = ", ".join(verdict.use for verdict in verdicts(row, ceiling) if verdict.passed) or "none"
        figures = [bold(f"{row.utility.ratio:.2f}", row.utility.ratio >= UTILITY), f"{popularity:.2f}"]
        privacy = [f"{worst:.3f}", f"{exposed:.1%}", f"{row.copies:.1%}"]
        rows.append([f"`{row.name}`", *figures, *privacy, *times, passed])
    return ReportTable("Utility as a share of real events and of popularity, privacy, times", head, rows)


def share_cell(aspect: str, value: float, ceiling: float) -> str:
    """A figure as a share of its ceiling."""
    share = value / max(ceiling, 1e-12)
    goal = STRICT_SHARE if aspect in STRICT else LOOSE_SHARE if aspect in LOOSE else VARIETY_SHARE
    return bold(f"{share:.2f}", share >= goal)


def auc_cell(value: float | None) -> str:
    """A discriminator's AUC."""
    return "" if value is None else bold(f"{value:.3f}", value <= DISCRIMINATOR_AUC)


def bold(text: str, reached: bool) -> str:
    """The text, bold where the goal is reached."""
    return f"**{text}**" if reached else text


def agreement(folder: Path) -> str:
    """The rank correlations that `benchmarks/fidelity_libraries.py` kept, in Markdown; empty without them."""
    path = folder / "libraries.json"
    if not path.is_file():
        return ""
    rows = [[str(cell) for cell in row] for row in json.loads(path.read_bytes())["agreement"]]
    head = ["ours", "library", "figure", "rank correlation", "synthesizers", "largest difference"]
    return markdown_page(ReportPage("Libraries", [], [], [ReportTable("Agreement", head, rows)])).partition("\n## ")[2]


def show(folder: Path) -> None:
    """The tables of a set, in Markdown."""
    print(markdown_page(page_of_set(folder.name, kept_set(folder), kept_results(folder))).replace("\n#", "\n##"))
    print(agreement(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(), help="the folder that holds the data sets")
    parser.add_argument("--out", type=Path, default=Path(".coldstream/fidelity"), help="where results are kept")
    parser.add_argument("--sets", default=",".join(DATA_SETS))
    parser.add_argument("--synthesizers", default=",".join(QUICK))
    parser.add_argument("--users", type=int, default=3_000, help="at most so many users of each set")
    parser.add_argument("--items", type=int, default=4_000, help="at most so many items, the most frequent ones")
    parser.add_argument("--seconds", type=float, default=120.0, help="what a fit may take")
    parser.add_argument("--epochs", type=int, default=3, help="of the sequence discriminator; 0 leaves it out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="only print what is kept")
    options = parser.parse_args()
    for name in options.synthesizers.split(","):
        registry.synthesizer_class(name)
    for name in options.sets.split(","):
        if not options.show:
            run(options, name)
        if (options.out / name / SET_FILE).is_file():
            show(options.out / name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
