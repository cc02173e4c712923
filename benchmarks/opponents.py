"""What blends and members are worth for cold users: today's blend before and after, on five public sets.

python -m benchmarks.opponents --data FOLDER [--sets beauty,movielens-1m] [--folds 0,1,2,3,4] [--seen mask|keep]
                               [--users N] [--trials 1] [--out FOLDER] [--show] [--json]

Users with six or more events are cold in one of five folds. Before: item-kNN, sequential rules, EASE (and personal
where items repeat), weights by histories of 0-2, 3-5, 6-10, 11-20 and more events, found by 400 random draws, no clock.
After: every counting recommender, a row of weights for each number of events, and popularity at the moment of the
request. Between them one change at a time, then members one by one on top of the clock and first events. Encoders are
left out on both sides. Weights are fitted on training users who are held out of the fit, and all blends get the same
cases. With `--trials 1` recommenders have their default parameters; with more they are tuned on those users. Warm users
(20 or more events) are asked for their last event.

Per-user values of each fold stay in `--out`; a run that was cut off goes on, and `--show` prints what is there. Ratios
have 95% intervals over users (paired bootstrap, 10,000 draws).
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.data_sets import DATA_SETS, opened
from benchmarks.printing import print_stage
from features.catalogue import CatalogueEntry
from models.arrays import Float64
from models.data.item_features import ItemFeatures
from models.evaluation.bootstrap import Comparison, compare, ratio_text
from models.evaluation.cold_users import FoldPlan
from models.evaluation.cold_values import PRIMARY, UserValues
from models.evaluation.opponent import (
    BLEND,
    FittedFold,
    Opponent,
    OpponentPlan,
    counting_members,
    spread_weights,
)
from models.recommenders.blend_weights import Evidence, fit_weights
from models.recommenders.live_popularity import HALF_LIVES_MS, NEWS_HALF_LIVES_MS

TODAY: Final = ("personal", "item-knn", "sequential-rules", "ease")
KS: Final = (0, 1, 2, 3, 4, 5)
REPEATS: Final = ("complete-journey", "online-retail")
NEWS: Final = ("globo",)
TITLES: Final = {"beauty": "amazon-2014-5core/Beauty.items.parquet"}
"""Titles that are kept apart from the events."""
EDGES_BEFORE: Final = (3, 6, 11, 21)
LENGTHS: Final = (0, 1, 2, 3, 4, 5, 6, 11, 21)
"""A length of each of today's buckets."""
BEFORE: Final = "before"
PER_K: Final = "before, weights per k"
NO_CLOCK: Final = "all members, no clock"
ADDED: Final = (BEFORE, PER_K, NO_CLOCK)
CLOCK: Final = "before, weights per k, clock"
FIRST_EVENTS: Final = f"{CLOCK}, first-events"
FURTHER: Final = ("rp3beta", "svd-filter", "user-knn", "content-knn", "ials")
"""Members whose gains are shown one by one."""
VIEWS: Final = (PRIMARY, "next ndcg@10", "same ndcg@10")
DRAWS: Final = 400
SHRINK: Final = 200.0


def weights_before(evidence: Evidence, rng: np.random.Generator) -> Float64:
    """float64 [buckets, members]: the search that blends had: random draws, then draws near the best."""
    places = np.searchsorted(EDGES_BEFORE, evidence.lengths, side="right")
    overall = _searched(evidence, rng, DRAWS, None)
    rows = []
    for bucket in range(len(EDGES_BEFORE) + 1):
        inside = np.flatnonzero(places == bucket)
        if len(inside) < 30:
            rows.append(overall)
            continue
        share = len(inside) / (len(inside) + SHRINK)
        rows.append(share * _searched(evidence.of(inside), rng, DRAWS // 2, overall) + (1 - share) * overall)
    table: Float64 = np.array(rows)[np.searchsorted(EDGES_BEFORE, LENGTHS, side="right")]
    return table


def _searched(evidence: Evidence, rng: np.random.Generator, tries: int, start: Float64 | None) -> Float64:
    members = len(evidence.names)
    evidence = evidence.of(np.unique(evidence.cases))
    best = start if start is not None else np.full(members, 1 / members)
    if not len(evidence):
        return best
    value = float(evidence.ndcg(best).mean())
    for number in range(tries):
        if number < members:
            weights = np.eye(members)[number]
        elif number < tries // 2 and start is None:
            weights = rng.dirichlet(np.full(members, 0.5))
        else:
            weights = (best + 1e-3) * np.exp(rng.normal(0, 0.7, members))
            weights = weights / weights.sum()
        reached = float(evidence.ndcg(weights).mean())
        if reached > value:
            best, value = weights, reached
    return best


def blends_of(opponent: Opponent, fitted: FittedFold) -> tuple[dict[str, Float64], dict[str, float]]:
    """The weights of every blend over all members, and the seconds of both searches on the same cases."""
    served = fitted.evidence.of(np.flatnonzero(np.isin(fitted.horizons, (0, *opponent.plan.served))))
    names, seed = list(fitted.evidence.names), fitted.fold.number
    today = [name for name in names if name in TODAY]
    no_clock = [name for name in names if not name.startswith("live-")]
    started = time.process_time()
    before = weights_before(served.only(today), np.random.default_rng(seed))
    between = time.process_time()
    per_k = fit_weights(served.only(today), np.random.default_rng(seed))
    seconds = {"search before": between - started, "search after": time.process_time() - between}
    clock = [*today, *(name for name in names if name.startswith("live-"))]
    added = {NO_CLOCK: no_clock, CLOCK: clock, FIRST_EVENTS: [*clock, "first-events"]}
    added |= {_with(name): [*clock, "first-events", name] for name in FURTHER if name in names}
    blends = {BEFORE: spread_weights(before, today, names), PER_K: spread_weights(per_k, today, names)}
    for arm, members in added.items():
        blends[arm] = spread_weights(fit_weights(served.only(members), np.random.default_rng(seed)), members, names)
    return {**blends, **fitted.blends}, seconds


def _with(member: str) -> str:
    return f"{FIRST_EVENTS}, {member}"


def run_set(chosen: argparse.Namespace, name: str, masked: bool) -> None:
    """The folds of a set that are not there yet."""
    folder = chosen.out / f"{name}-{'mask' if masked else 'keep'}"
    folder.mkdir(parents=True, exist_ok=True)
    pending = [fold for fold in chosen.folds if not (folder / f"{fold}.npz").exists()]
    if not pending:
        return
    frame, categories, catalogue = opened(chosen.data, name, catalogue=True)
    if (chosen.data / TITLES.get(name, "none")).is_file():
        catalogue = titles_of(chosen.data / TITLES[name])
    opponent = opponent_of(chosen, name, masked, frame, categories, catalogue)
    for number in pending:
        started = time.monotonic()
        fitted = opponent.fitted(opponent.folds.fold(number))
        blends, seconds = blends_of(opponent, fitted)
        arms = [*opponent.member_names, *blends]
        cold, warm = fitted.fold.test.cold, fitted.fold.test.warm
        values = UserValues([*dict.fromkeys(episode.user_id for episode in cold)], KS, arms)
        values.add(opponent.ranked(fitted, cold, blends), cold)
        ranks = opponent.ranked(fitted, warm, blends, label="warm users").ranks if warm else np.zeros((0, len(arms)))
        weights = fitted.evidence.scales * fitted.blends[BLEND]
        facts = {
            "arms": arms,
            "events": len(frame),
            "users": int(frame["user_id"].nunique()),
            "items": int(frame["item_id"].nunique()),
            "seconds": time.monotonic() - started,
            **seconds,
            "members": list(fitted.evidence.names),
            "weights": (weights / weights.sum(axis=1, keepdims=True))[:6].tolist(),
        }
        arrays = {view: values.values[view] for view in VIEWS}
        np.savez_compressed(folder / f"{number}.npz", facts=json.dumps(facts), warm=ranks, **arrays)
        print(
            f"{folder.name} fold {number}: {len(values.users)} cold, {len(warm)} warm, {facts['seconds']:.0f} s",
            flush=True,
        )


def titles_of(file: Path) -> ItemFeatures:
    """Titles from a file [item_id, title]; items without events stay unknown."""
    rows = pd.read_parquet(file)
    items = [
        CatalogueEntry(item_id=str(item), title=str(title), at=0)
        for item, title in zip(rows.iloc[:, 0], rows["title"], strict=True)
    ]
    return ItemFeatures.from_items(items, 0)


def opponent_of(
    chosen: argparse.Namespace,
    name: str,
    masked: bool,
    frame: Any,
    categories: dict[str, str],
    catalogue: ItemFeatures | None,
) -> Opponent:
    """The set's opponent: every counting recommender that is registered, and the clock."""
    plan = OpponentPlan(
        members=tuple(counting_members()),
        folds=FoldPlan(ks=KS, seed=0, most_users=chosen.users, tuning_users=chosen.tuning_users),
        half_lives_ms=NEWS_HALF_LIVES_MS if name in NEWS else HALF_LIVES_MS,
        masked=masked,
        trials=chosen.trials,
        minutes=chosen.minutes,
        served=(1,) if name in NEWS else (1, 2, 3, 4, 5),
        by_horizon=False,
    )
    return Opponent(frame, plan, print_stage, catalogue=catalogue, categories=categories or None)


def figures_of(folder: Path) -> dict[str, Any]:
    """A set's means and ratios, over the folds that are there."""
    files = sorted(folder.glob("*.npz"))
    parts = [np.load(file) for file in files]
    facts = [json.loads(str(part["facts"])) for part in parts]
    arms = [arm for arm in facts[0]["arms"] if all(arm in fact["arms"] for fact in facts)]
    columns = [[fact["arms"].index(arm) for arm in arms] for fact in facts]
    values = {
        view: np.concatenate([part[view][:, :, own] for part, own in zip(parts, columns, strict=True)])
        for view in VIEWS
    }
    warm = np.concatenate([part["warm"][:, own] for part, own in zip(parts, columns, strict=True)])
    gains = np.where(warm < 10, 1 / np.log2(np.minimum(warm, 10) + 2.0), 0.0)
    rng = np.random.default_rng(0)
    ratios = {view: _ratios(values[view], arms, BEFORE, BLEND, rng) for view in VIEWS}
    ratios |= {f"{arm} to {BEFORE}": _ratios(values[PRIMARY], arms, BEFORE, arm, rng) for arm in (PER_K, NO_CLOCK)}
    ratios["no clock to clock"] = _ratios(values[PRIMARY], arms, NO_CLOCK, BLEND, rng)
    steps = [(FIRST_EVENTS, CLOCK), *((_with(name), FIRST_EVENTS) for name in FURTHER)]
    for arm, base in (step for step in steps if set(step) <= set(arms)):
        member = arm.rpartition(", ")[2]
        ratios[f"with {member} to without"] = _ratios(values[PRIMARY], arms, base, arm, rng)
    harm = compare([gains[:, arms.index(BLEND)]], [gains[:, arms.index(BEFORE)]], rng) if len(gains) else []
    return {
        "set": folder.name,
        "folds": [int(file.stem) for file in files],
        **{key: facts[0][key] for key in ("events", "users", "items")},
        "members": facts[-1]["members"],
        "cold users": len(values[PRIMARY]),
        "warm users": len(warm),
        "means": {
            view: {arm: np.nanmean(values[view][:, :, n], axis=0).tolist() for n, arm in enumerate(arms)}
            for view in VIEWS
        },
        "warm": {arm: float(gains[:, n].mean()) if len(gains) else float("nan") for n, arm in enumerate(arms)},
        "warm ratio": harm[0] if harm else None,
        "ratios": ratios,
        "weights": facts[-1]["weights"],
        "seconds": {
            key: float(np.mean([fact[key] for fact in facts])) for key in ("seconds", "search before", "search after")
        },
    }


def _ratios(values: Float64, arms: list[str], base: str, arm: str, rng: np.random.Generator) -> list[Comparison]:
    """An arm to a base at each k."""
    ours, others = arms.index(arm), arms.index(base)
    return compare([values[:, k, ours] for k in range(len(KS))], [values[:, k, others] for k in range(len(KS))], rng)


def show(figures: dict[str, Any]) -> None:
    """A set's tables, in Markdown."""
    size = f"{figures['events']:,} events, {figures['users']:,} users, {figures['items']:,} items"
    folds = f"folds {', '.join(str(fold) for fold in figures['folds'])} of 5"
    people = f"{figures['cold users']:,} cold users, {figures['warm users']:,} warm"
    print(f"\n### {figures['set']}\n\n{size}; {folds}: {people}.\n")
    print("| | " + " | ".join(f"k = {k}" for k in KS) + " | warm |\n|---|" + "---|" * (len(KS) + 1))
    for arm, row in figures["means"][PRIMARY].items():
        print(f"| {arm} | " + " | ".join(f"{value:.4f}" for value in row) + f" | {figures['warm'][arm]:.4f} |")
    print("\n| ratio | " + " | ".join(f"k = {k}" for k in KS) + " | warm |\n|---|" + "---|" * (len(KS) + 1))
    for label, ratios in figures["ratios"].items():
        last = ratio_text(figures["warm ratio"]) if label == PRIMARY and figures["warm ratio"] else ""
        print(f"| {label} | " + " | ".join(ratio_text(ratio) for ratio in ratios) + f" | {last} |")
    print("\nShares of the blend (over scaled probabilities):\n")
    print("| | " + " | ".join(f"k = {k}" for k in KS) + " |\n|---|" + "---|" * len(KS))
    for number, member in enumerate(figures["members"]):
        print(f"| {member} | " + " | ".join(f"{row[number]:.2f}" for row in figures["weights"]) + " |")
    print("\n" + ", ".join(f"{key} {value:.0f} s" for key, value in figures["seconds"].items()) + " a fold.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--out", type=Path, default=Path(".coldstream/opponents"), help="where values are kept")
    parser.add_argument("--sets", default=",".join(DATA_SETS))
    parser.add_argument("--folds", default="0,1,2,3,4")
    parser.add_argument("--seen", choices=("mask", "keep"), help="items of the history (mask; keep where items repeat)")
    parser.add_argument("--users", type=int, help="at most so many cold users, drawn with the seed")
    parser.add_argument("--tuning-users", type=int, default=800, help="of a fold, held out of the fit")
    parser.add_argument("--trials", type=int, default=1, help="to tune each recommender in each fold; 1: its defaults")
    parser.add_argument("--minutes", type=float, default=4.0, help="to tune each recommender in each fold")
    parser.add_argument("--show", action="store_true", help="only print what is kept")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    chosen.folds = [int(fold) for fold in chosen.folds.split(",")]
    sets = chosen.sets.split(",")
    for name in [] if chosen.show else sets:
        run_set(chosen, name, chosen.seen == "mask" if chosen.seen else name not in REPEATS)
    folders = [folder for name in sets for folder in sorted(chosen.out.glob(f"{name}-*")) if any(folder.glob("*.npz"))]
    for folder in folders:
        figures = figures_of(folder)
        if chosen.json:
            from msgspec import to_builtins

            print(json.dumps(to_builtins(figures)))
        else:
            show(figures)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
