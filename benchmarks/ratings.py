"""What it does to rankings when few stars count for nothing, or for less; and what a head that learns stars is worth.

python -m benchmarks.ratings --data FOLDER [--users 1500] [--stars 2.5,3.5] [--json]
python -m benchmarks.ratings --data FOLDER --head [--weights 0,.1,.5] [--epochs 8] [--seeds 0,1] [--json]

MovieLens-1M, users drawn with one seed; each user's last film of at least so many stars is held out, so that what is
asked for is liked in every row. `left out`: ratings below are no evidence at all, neither in training nor in histories.
`scaled`: in histories they weigh as a view does. Both are compared with every rating counting the same, by NDCG@10 over
the full catalogue, paired by user, with a 95% interval by a Poisson bootstrap over users. Recommenders have the
parameters of the `video` preset; nothing is drawn at random in them.

`--head`: the dense encoder with a second head that learns stars, by the head's weight in the loss, and trained for
stars alone (`mse`); each user's last rating is held out. Asked are NDCG@10 and the root mean square error in stars,
beside what needs no network: the mean, and the damped offsets of item and user on it.
"""

import argparse
import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from benchmarks.data_sets import DATA_SETS
from benchmarks.profiles import drawn
from models.data import splits
from models.data.interactions import Interactions
from models.domains.preset import preset_of
from models.evaluation import metrics
from models.recommenders.base import TuningContext
from models.recommenders.registry import create

NAMES: Final = ("item-knn", "ease", "sequential-rules")
WAYS: Final = {"left out": "dislike", "scaled": "view"}
"""The kind that a rating of few stars is taken for."""
K: Final = 10
RESAMPLES: Final = 2_000


def compared(frame: pd.DataFrame, stars: float) -> list[dict[str, Any]]:
    """A line for each recommender and way."""
    home, low = preset_of("video"), frame["value"] < stars
    judged = frame.assign(kind=frame["kind"].where(~low, WAYS["left out"]))
    before, after = splits.split(judged, splits.SplitProtocol("leave-one-out"), 0, home.weights)
    plain = frame.loc[before.index]
    lines = []
    for name in NAMES:
        usual = ranks_of(name, plain, after)
        for way, kind in WAYS.items():
            ranks_without_low = ranks_of(
                name, plain.assign(kind=plain["kind"].where(~low.loc[plain.index], kind)), after
            )
            users = sorted(usual.keys() & ranks_without_low.keys())
            ours, theirs = (np.array([ranks[user] for user in users]) for ranks in (ranks_without_low, usual))
            gained = metrics.mean_ratio(ours, theirs, np.random.default_rng(0))
            figures = {"usual": float(theirs.mean()), "ndcg@10": float(ours.mean()), "ratio": gained}
            lines.append({"stars": stars, "recommender": name, "way": way, "users": len(users), **figures})
    return lines


def of_heads(frame: pd.DataFrame, weights: list[float], epochs: int, seeds: list[int]) -> list[dict[str, Any]]:
    """A line for each way to expect stars: RMSE over users' held-out ratings, mean of the seeds, and NDCG@10."""
    from models.recommenders.neural.recommender import Neural, Params

    home = preset_of("video")
    before, after = splits.split(frame, splits.SplitProtocol("leave-one-out"), 0, home.weights)
    log = Interactions.from_frame(before, kind_weights=home.weights)
    cases = [
        case
        for case in splits.evaluation_cases(before, after, 50, None, 0, home.weights)
        if case.targets[0] in log.vocabulary.index
    ]
    batch = splits.batch_cases(cases, log.vocabulary, 50)
    stars = dict(zip(zip(after["user_id"], after["item_id"], strict=True), after["value"], strict=True))
    truth = np.array([stars[case.user_id, case.targets[0]] for case in cases], np.float64)
    places = np.array([log.vocabulary.index[case.targets[0]] for case in cases])
    lines = [_told(name, truth, [predicted], None) for name, predicted in offsets(before, cases).items()]
    usual = None
    for name, settings in {
        **{f"head {weight:g}": {"values": weight} for weight in weights},
        "stars alone": {"loss": "mse"},
    }.items():
        expected, ranked = [], []
        for seed in seeds:
            model = Neural(Params(encoder="dnn", baskets=False, epochs=epochs, seed=seed, **settings))
            model.fit(log)
            if model.params.valued:
                expected.append(model.values(batch)[np.arange(len(cases)), places])
            lists = metrics.rank(
                lambda start, stop, model=model: model.score(batch.slice(start, stop)),
                log.vocabulary,
                cases,
                K,
                mask_seen=True,
            )
            ranked.append(metrics.per_user(lists, log.vocabulary, cases, (K,))[f"ndcg@{K}"])
        mean = np.mean(ranked, axis=0)
        usual = mean if usual is None else usual
        line = _told(name, truth, expected, mean)
        lines.append({**line, "ratio": metrics.mean_ratio(mean, usual, np.random.default_rng(0))})
    return lines


def offsets(before: pd.DataFrame, cases: list[splits.EvaluationCase], damped: float = 10.0) -> dict[str, np.ndarray]:
    """Expected stars of each case's target: the mean; with the item's offset; with the user's too (each damped)."""
    rated = before[before["value"].notna()]
    mean = float(rated["value"].mean())
    by_item = (rated["value"] - mean).groupby(rated["item_id"]).agg(["sum", "count"])
    item = by_item["sum"] / (by_item["count"] + damped)
    left = rated["value"] - mean - rated["item_id"].map(item)
    by_user = left.groupby(rated["user_id"]).agg(["sum", "count"])
    user = by_user["sum"] / (by_user["count"] + damped)
    items = np.array([item.get(case.targets[0], 0.0) for case in cases])
    users = np.array([user.get(case.user_id, 0.0) for case in cases])
    flat = np.full(len(cases), mean)
    return {"mean": flat, "mean and item": flat + items, "mean, item and user": flat + items + users}


def _told(name: str, truth: np.ndarray, expected: list[np.ndarray], ndcg: np.ndarray | None) -> dict[str, Any]:
    line: dict[str, Any] = {"way": name, "cases": len(truth)}
    if expected:
        squares = np.mean([(estimate - truth) ** 2 for estimate in expected], axis=0)
        rng = np.random.default_rng(0)
        draws = [squares[rng.integers(0, len(squares), len(squares))].mean() for _ in range(RESAMPLES)]
        line["rmse"] = [float(value) ** 0.5 for value in (squares.mean(), *np.quantile(draws, [0.025, 0.975]))]
    return line if ndcg is None else {**line, "ndcg@10": float(ndcg.mean())}


def ranks_of(name: str, before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    """NDCG@10 by user of a recommender that learned from `before`."""
    home = preset_of("video")
    log = Interactions.from_frame(before, kind_weights=home.weights)
    cases = splits.evaluation_cases(before, after, 50, None, 0, home.weights)
    recommender = create(name, home.params().get(name, {}), TuningContext())
    recommender.fit(log)
    batch = splits.batch_cases(cases, recommender.vocabulary, 50)
    ranked = metrics.rank(
        lambda start, stop: recommender.score(batch.slice(start, stop)),
        recommender.vocabulary,
        cases,
        K,
        mask_seen=True,
    )
    values = metrics.per_user(ranked, recommender.vocabulary, cases, (K,))[f"ndcg@{K}"]
    return {case.user_id: float(value) for case, value in zip(cases, values, strict=True)}


def _shown(line: dict[str, Any]) -> str:
    rmse = "RMSE {:.4f} [{:.4f}, {:.4f}]".format(*line["rmse"]) if "rmse" in line else ""
    ndcg = "NDCG@10 {:.4f}, {:.3f} [{:.3f}, {:.3f}]".format(line["ndcg@10"], *line["ratio"]) if "ratio" in line else ""
    return f"{line['way']:<20} {rmse:<32} {ndcg}".rstrip()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of all data sets")
    parser.add_argument("--users", type=int, default=1_500)
    parser.add_argument("--stars", default="2.5,3.5", help="below so many a rating counts for nothing, or for less")
    parser.add_argument("--head", action="store_true", help="expected stars instead")
    parser.add_argument(
        "--weights", default="0,.1,.5", help="of the head in the loss; the first is what others are held to"
    )
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    frame, _ = drawn(DATA_SETS["movielens-1m"].open(arguments.data), arguments.users)
    if arguments.head:
        weights, seeds = (
            [float(weight) for weight in arguments.weights.split(",")],
            [int(seed) for seed in arguments.seeds.split(",")],
        )
        for line in of_heads(frame, weights, arguments.epochs, seeds):
            print(json.dumps(line) if arguments.json else _shown(line))
        return
    lines = [line for stars in arguments.stars.split(",") for line in compared(frame, float(stars))]
    if arguments.json:
        print(json.dumps(lines))
        return
    print("| stars below | recommender | way | NDCG@10, all alike | NDCG@10 | ratio | 95% |")
    print("|---|---|---|---|---|---|---|")
    for line in lines:
        ratio, low, high = line["ratio"]
        figures = f"{line['usual']:.4f} | {line['ndcg@10']:.4f} | {ratio:.3f} | {low:.3f} to {high:.3f}"
        print(f"| {line['stars']:g} | {line['recommender']} | {line['way']} | {figures} |")


if __name__ == "__main__":
    main()
