"""What it does to rankings when few stars count for nothing, or for less.

python -m benchmarks.ratings --data FOLDER [--users 1500] [--stars 2.5,3.5] [--json]

MovieLens-1M, users drawn with one seed; each user's last film of at least so many stars is held out, so that what is
asked for is liked in every row. `left out`: ratings below are no evidence at all, neither in training nor in histories.
`scaled`: in histories they weigh as a view does. Both are compared with every rating counting the same, by NDCG@10 over
the full catalogue, paired by user, with a 95% interval by a Poisson bootstrap over users. Recommenders have the
parameters of the `video` preset; nothing is drawn at random in them.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.profiles import drawn
from benchmarks.recommenders import SETS
from models import evaluation, splits
from models.domain import preset_of
from models.recommenders.candidates import Situation, make
from models.recommenders.sequences import Log

NAMES: Final = ("item-knn", "ease", "sequential-rules")
WAYS: Final = {"left out": "dislike", "scaled": "view"}
"""The kind that a rating of few stars is taken for."""
K: Final = 10


def compared(frame: pd.DataFrame, stars: float) -> list[dict[str, Any]]:
    """A line for each recommender and way."""
    home, low = preset_of("video"), frame["value"] < stars
    judged = frame.assign(kind=frame["kind"].where(~low, WAYS["left out"]))
    before, after = splits.split(judged, splits.Protocol("leave-one-out"), 0, home.weights)
    plain = frame.loc[before.index]
    lines = []
    for name in NAMES:
        usual = asked(name, plain, after)
        for way, kind in WAYS.items():
            found = asked(name, plain.assign(kind=plain["kind"].where(~low.loc[plain.index], kind)), after)
            users = sorted(usual.keys() & found.keys())
            ours, theirs = (np.array([one[user] for user in users]) for one in (found, usual))
            gained = evaluation.ratio(ours, theirs, np.random.default_rng(0))
            figures = {"usual": float(theirs.mean()), "ndcg@10": float(ours.mean()), "ratio": gained}
            lines.append({"stars": stars, "recommender": name, "way": way, "users": len(users), **figures})
    return lines


def asked(name: str, before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    """NDCG@10 by user of a recommender that learned from `before`."""
    home = preset_of("video")
    log = Log.of(before, weights=home.weights)
    cases = splits.cases(before, after, 50, None, 0, home.weights)
    made = make(name, home.params().get(name, {}), Situation())
    made.fit(log)
    batch = splits.batch(cases, made.vocabulary, 50)
    ranked = evaluation.rank(
        lambda start, stop: made.score(batch.rows(start, stop)), made.vocabulary, cases, K, mask_seen=True
    )
    values = evaluation.per_user(ranked, made.vocabulary, cases, (K,))[f"ndcg@{K}"]
    return {case.user_id: float(value) for case, value in zip(cases, values, strict=True)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of all data sets")
    parser.add_argument("--users", type=int, default=1_500)
    parser.add_argument("--stars", default="2.5,3.5", help="below so many a rating counts for nothing, or for less")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    frame, _ = drawn(SETS["movielens-1m"].open(given.data), given.users)
    lines = [line for stars in given.stars.split(",") for line in compared(frame, float(stars))]
    if given.json:
        print(json.dumps(lines))
        return
    print("| stars below | recommender | way | NDCG@10, all alike | NDCG@10 | ratio | 95% |")
    print("|---|---|---|---|---|---|---|")
    for one in lines:
        ratio, low, high = one["ratio"]
        figures = f"{one['usual']:.4f} | {one['ndcg@10']:.4f} | {ratio:.3f} | {low:.3f} to {high:.3f}"
        print(f"| {one['stars']:g} | {one['recommender']} | {one['way']} | {figures} |")


if __name__ == "__main__":
    main()
