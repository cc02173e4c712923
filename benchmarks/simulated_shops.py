"""A ranker trained on simulated shops alone, on the first day of real ones: against A0, and trained on own users.

python -m benchmarks.simulated_shops --data FOLDER [--sets beauty,online-retail] [--shares 0.01,0.05] [--shops 200]
                                     [--users 300] [--out FOLDER] [--show]

Of a fold of cold users (`models.evaluation.cold_users`) a share of the training users is the whole shop. A0 are the
counting recommenders and their blend, whose weights are fitted on users beyond the share. The network sees nothing but
scale-free features (popularity, co-occurrence, lift, order, age, category, titles), trained on simulated shops once, or
on questions about the shop's own users. Both also join A0's blend. NDCG@10 over horizons 1 to 5, one fold, 95%.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.data_sets import opened
from benchmarks.opponents import REPEATS, TITLES, titles_of
from models.evaluation.bootstrap import ratio_text
from models.evaluation.cold_ranking import rank_episodes
from models.evaluation.cold_users import FoldPlan
from models.evaluation.cold_values import UserValues
from models.evaluation.opponent import BLEND, Opponent, OpponentPlan
from models.experiments.augmentation import YoungShop
from models.experiments.simulated_shops_ranker import (
    FeatureRanker,
    RankingNetwork,
    own_questions,
    simulated_questions,
    train,
)

MEMBERS: Final = (
    "popularity",
    "first-events",
    "item-knn",
    "sequential-rules",
    "rp3beta",
    "svd-filter",
    "user-knn",
    "content-knn",
)
KS: Final = (1, 2, 3, 5)
SIMULATED: Final = "trained on simulated shops"
OWN: Final = "trained on own users"
OWN_QUESTIONS: Final = 3_000


def run_set(chosen: argparse.Namespace, name: str, network: RankingNetwork) -> None:
    """The shares of a set."""
    frame, categories, catalogue = opened(chosen.data, name, catalogue=True)
    if (chosen.data / TITLES.get(name, "none")).is_file():
        catalogue = titles_of(chosen.data / TITLES[name])
    folds = FoldPlan(ks=KS, most_users=5 * chosen.users, tuning_users=100)
    plan = OpponentPlan(members=MEMBERS, folds=folds, masked=name not in REPEATS, by_horizon=False)
    opponent = Opponent(frame, plan, catalogue=catalogue, categories=categories or None)
    fold = opponent.folds.fold(0)
    for share in chosen.shares:
        started = time.monotonic()
        shop = YoungShop(opponent, fold, share, 0)
        values = values_of(shop, network)
        path = chosen.out / f"{name}-{share:g}.npz"
        facts = {"arms": values.arms, "events": len(shop.real), "users": shop.real.user_count}
        np.savez_compressed(path, facts=json.dumps(facts), **values.values)
        print(f"{path.stem}: {time.monotonic() - started:.0f} s", flush=True)


def values_of(shop: YoungShop, network: RankingNetwork) -> UserValues:
    """The users' values of A0, of both rankers alone, and of A0's blend with each."""
    shop.strongest()
    own = train(own_questions(shop.real, OWN_QUESTIONS, np.random.default_rng(0)))
    rankers = {SIMULATED: FeatureRanker(SIMULATED, network, shop.real), OWN: FeatureRanker(OWN, own, shop.real)}
    members = {**shop.members, **rankers}
    opponent, plan = shop.opponent, shop.opponent.plan
    evidence, horizons = opponent.evidence(members, shop.fold.tuning)
    blends = {BLEND: opponent.blend(evidence, horizons, list(shop.members))}
    blends |= {f"{BLEND}, {name}": opponent.blend(evidence, horizons, [*shop.members, name]) for name in rankers}
    ranked = rank_episodes(members, blends, shop.cold, masked=plan.masked, length=plan.folds.length)
    values = UserValues([*dict.fromkeys(episode.user_id for episode in shop.cold)], KS, ranked.arms)
    values.add(ranked, shop.cold)
    return values


def show(file: Path) -> None:
    """A share's table: every arm, and ratios to A0."""
    with np.load(file) as part:
        facts: dict[str, Any] = json.loads(str(part["facts"]))
        users = len(part["ndcg@10"])
        values = UserValues([str(number) for number in range(users)], KS, facts["arms"])
        values.values = {name: part[name] for name in part.files if name != "facts"}
    tried = [arm for arm in values.arms if SIMULATED in arm or OWN in arm]
    best = {k: values.best([arm for arm in values.arms if arm not in tried], k) for k in KS}
    rng = np.random.default_rng(0)
    print(f"\n### {file.stem}: {facts['events']:,} events, {facts['users']:,} users; {users:,} cold users\n")
    print("| | " + " | ".join(f"k = {k}" for k in KS) + " |\n|---|" + "---|" * len(KS))
    for arm in values.arms:
        print(f"| {arm} | " + " | ".join(f"{values.mean(arm, k):.4f}" for k in KS) + " |")
    print("| A0 | " + " | ".join(best[k] for k in KS) + " |")
    for arm in tried:
        ratios = values.compare(dict.fromkeys(KS, arm), best, rng)
        print(f"| {arm} to A0 | " + " | ".join(ratio_text(ratios[k]) for k in KS) + " |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the folder that holds the data sets")
    parser.add_argument("--out", type=Path, default=Path(".coldstream/simulated-shops"), help="where values are kept")
    parser.add_argument("--sets", default="beauty,online-retail")
    parser.add_argument("--shares", type=lambda text: [float(part) for part in text.split(",")], default=[0.01, 0.05])
    parser.add_argument("--shops", type=int, default=200, help="simulated shops that the network is trained on")
    parser.add_argument("--users", type=int, default=300, help="at most so many cold users of the fold")
    parser.add_argument("--show", action="store_true", help="only print what is kept")
    chosen = parser.parse_args()
    if not chosen.show:
        chosen.out.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        questions = simulated_questions(chosen.shops, np.random.default_rng(0))
        network = train(questions)
        print(f"{len(questions):,} questions of {chosen.shops} shops: {time.monotonic() - started:.0f} s", flush=True)
        for name in chosen.sets.split(","):
            run_set(chosen, name, network)
    for file in sorted(chosen.out.glob("*.npz")):
        show(file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
