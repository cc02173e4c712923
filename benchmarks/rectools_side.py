"""RecTools' recommenders, tuned and fitted in an environment of their own; `benchmarks.recommenders` calls this.

python rectools_side.py --fit F --tune T --whole W --users U --model NAME --trials N --minutes M --out OUT.parquet

`fit` and `whole` are Parquet with user_id, item_id, at (epoch ms), weight in time order; `tune` has held-out targets
of the tuning users (user_id, item_id), `users` whom to predict for (user_id). Test targets are never given to it.
Minutes are of processor time, or of the wall. Parameters are sought by NDCG@10 on `tune`; for each of them also whether
what a user took is left out. The winner is fitted on `whole`, SASRec for the epochs that were best while tuning. SASRec
learns one sequence of a user an epoch, so its epochs are short: it is given ten without a gain, each judged by the
first 600 of the tuning users. On a processor it begins with 64 factors and 32 sampled negatives: on MovieLens-1M's part
an epoch then takes 8 to 12 seconds of processor time; with the full softmax and 128 factors it takes 33 to 41, with 256
negatives over a minute. On a GPU it begins with RecTools' defaults: 256 factors, four heads and the full softmax.
"""

import argparse
import json
import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

MODELS = ("popular", "itemknn", "ease", "ials", "sasrec")
EASE_ITEMS = 15_000
PATIENCE = 10
WATCHED = 600
"""Tuning users who are asked after each epoch."""
TUNING_USERS = 3_000
CLOCKS = {"processor": time.process_time, "wall": time.monotonic}


@dataclass
class BestTrial:
    """The best so far: its parameters, its NDCG@10 on the tuning users, and whether it leaves out what was taken."""

    ndcg: float = -1.0
    params: dict[str, Any] = field(default_factory=dict)
    filter_viewed: bool = False


def ndcg(recommended: pd.DataFrame, targets: pd.DataFrame, k: int = 10) -> float:
    """Mean over the users of `targets`; binary gains, ideal min(k, targets)."""
    relevant = targets.drop_duplicates()
    sizes = relevant.groupby("user_id").size()
    hits = recommended[recommended["rank"] <= k].merge(relevant, on=["user_id", "item_id"])
    gains = (1 / np.log2(hits["rank"] + 1)).groupby(hits["user_id"]).sum()
    ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))[np.minimum(sizes.to_numpy(), k) - 1]
    return float((gains.reindex(sizes.index).fillna(0.0).to_numpy() / ideal).mean())


def dataset_of(frame: pd.DataFrame) -> Any:
    from rectools.dataset import Dataset

    table = frame[["user_id", "item_id", "weight"]].assign(datetime=pd.to_datetime(frame["at"], unit="ms"))
    # events of one user at one time keep the order they came in: RecTools sorts by time alone
    tied = table.groupby(["user_id", "datetime"]).cumcount()
    return Dataset.construct(table.assign(datetime=table["datetime"] + pd.to_timedelta(tied, unit="us")))


def build(name: str, params: dict[str, Any], seed: int, threads: int, device: str = "cpu") -> Any:
    """An unfitted RecTools model. A GPU has no deterministic form of some of SASRec's steps."""
    from implicit.als import AlternatingLeastSquares
    from implicit.nearest_neighbours import BM25Recommender, CosineRecommender, TFIDFRecommender
    from rectools import models

    if name == "popular":
        days = params["days"]
        return models.PopularModel(params["popularity"], period=timedelta(days=days) if days else None)
    if name == "itemknn":
        if params["kind"] == "bm25":
            inner: Any = BM25Recommender(params["K"], K1=params["K1"], B=params["B"], num_threads=threads)
        else:
            kind = CosineRecommender if params["kind"] == "cosine" else TFIDFRecommender
            inner = kind(params["K"], num_threads=threads)
        return models.ImplicitItemKNNWrapperModel(inner)
    if name == "ease":
        return models.EASEModel(params["regularization"])
    if name == "ials":
        inner = AlternatingLeastSquares(**params, random_state=seed, num_threads=threads, use_gpu=False)
        return models.ImplicitALSWrapperModel(inner)
    return models.SASRecModel(**params, epochs=1, deterministic=device == "cpu", recommend_torch_device=device)


def space(name: str, trial: Any, longest: int, gpu: bool = False) -> dict[str, Any]:
    """What is sought; the first trial is what RecTools or `implicit` take by default, or near it on a processor."""
    first = trial.number == 0
    if name == "popular":
        windows = [0, 1, 3, 7, 14, 30, 90]
        return {
            "days": 0 if first else trial.suggest_categorical("days", windows),
            "popularity": trial.suggest_categorical("popularity", ["n_users", "n_interactions", "sum_weight"]),
        }
    if name == "itemknn":
        kind = trial.suggest_categorical("kind", ["cosine", "tfidf", "bm25"])
        params = {"kind": kind, "K": 50 if first else trial.suggest_int("K", 10, 300, log=True)}
        more = {"K1": trial.suggest_float("K1", 0.1, 3.0), "B": trial.suggest_float("B", 0.0, 1.0)}
        return {**params, **more} if kind == "bm25" else params
    if name == "ease":
        return {"regularization": 500.0 if first else trial.suggest_float("regularization", 1.0, 5_000.0, log=True)}
    if name == "ials":
        return {
            "factors": 64 if first else trial.suggest_int("factors", 32, 256, log=True),
            "regularization": 0.01 if first else trial.suggest_float("regularization", 1e-3, 3.0, log=True),
            "alpha": 1.0 if first else trial.suggest_float("alpha", 1.0, 50.0, log=True),
            "iterations": 15 if first else trial.suggest_int("iterations", 5, 30),
        }
    losses = ["sampled_softmax", "gBCE", "softmax"] if gpu else ["sampled_softmax", "gBCE"]
    begin = {"n_heads": 4, "n_factors": 256, "loss": "softmax"} if gpu else {"n_factors": 64, "loss": "sampled_softmax"}
    shape = {
        "n_heads": trial.suggest_categorical("n_heads", [1, 2, 4]),
        "n_factors": 0 if first else trial.suggest_categorical("n_factors", [64, 128, 256]),
        "n_blocks": 2 if first else trial.suggest_int("n_blocks", 1, 3),
        "dropout_rate": 0.2 if first else trial.suggest_float("dropout_rate", 0.1, 0.5),
        "lr": 1e-3 if first else trial.suggest_float("lr", 3e-4, 5e-3, log=True),
        "loss": "" if first else trial.suggest_categorical("loss", losses),
    }
    return {"session_max_len": longest, **shape, **(begin if first else {}), "n_negatives": 256 if gpu else 32}


def recommend(model: Any, data: Any, users: np.ndarray, k: int, filter_viewed: bool) -> pd.DataFrame:
    """user_id, item_id, rank; users that the data lacks get nothing."""
    known = users[np.isin(users, data.user_id_map.external_ids)]
    return model.recommend(known, data, k, filter_viewed=filter_viewed)[["user_id", "item_id", "rank"]]


def judged(model: Any, data: Any, targets: pd.DataFrame) -> tuple[float, bool]:
    """The better NDCG@10 of leaving out what was taken and of keeping it, and which of the two it was."""
    users = targets["user_id"].unique()
    both = {viewed: ndcg(recommend(model, data, users, 10, viewed), targets) for viewed in (True, False)}
    best = max(both, key=lambda viewed: both[viewed])
    return both[best], best


def tune(options: argparse.Namespace, data: Any, targets: pd.DataFrame, longest: int) -> tuple[BestTrial, int, float]:
    """The best parameters within trials and minutes; how many trials, how many seconds."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    clock = CLOCKS[options.clock]
    best, started = BestTrial(), clock()
    until = started + 60 * options.minutes

    def objective(trial: Any) -> float:
        params = space(options.model, trial, longest, options.device != "cpu")
        model = build(options.model, params, options.seed, options.threads, options.device)
        if options.model == "sasrec":
            few = targets[targets["user_id"].isin(targets["user_id"].unique()[:WATCHED])]
            value, viewed, epochs = train(model, data, lambda: judged(model, data, few), until, clock)
            params = {**params, "best_epochs": epochs}
        else:
            model.fit(data)
            value, viewed = judged(model, data, targets)
        if value > best.ndcg:
            best.ndcg, best.params, best.filter_viewed = value, params, viewed
        print(f"{options.model} trial {trial.number}: NDCG@10 {value:.4f} {params}", flush=True)
        return value

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=options.seed))

    def spent(study: Any, _trial: Any) -> None:
        if clock() >= until:
            study.stop()

    study.optimize(objective, n_trials=options.trials, callbacks=[spent])
    return best, len(study.trials), clock() - started


def train(
    model: Any, data: Any, judge: Callable[[], tuple[float, bool]], until: float, clock: Callable[[], float]
) -> tuple[float, bool, int]:
    """Epoch by epoch until nothing is gained or the time is over: the best NDCG@10, its filter, its epoch (from 1)."""
    best, viewed, at, epoch = -1.0, False, 0, 0
    while epoch == 0 or (clock() < until and epoch - at < PATIENCE):
        model.fit_partial(data, min_epochs=1, max_epochs=1)
        epoch += 1
        value, filtered = judge()
        if value > best:
            best, viewed, at = value, filtered, epoch
    return best, viewed, at


def earlier(file: Path) -> tuple[BestTrial, int, float]:
    """What a run with another seed found."""
    params = json.loads(file.read_text("utf-8"))["params"]
    viewed = params.pop("filter_viewed")
    return BestTrial(0.0, params, viewed), 0, 0.0


def final(options: argparse.Namespace, best: BestTrial, data: Any) -> Any:
    params = {name: value for name, value in best.params.items() if name != "best_epochs"}
    model = build(options.model, params, options.seed, options.threads, options.device)
    if options.model == "sasrec":
        epochs = best.params["best_epochs"]
        model.fit_partial(data, min_epochs=epochs, max_epochs=epochs)
    else:
        model.fit(data)
    return model


def quiet(threads: int) -> None:
    """Say only what this script says."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", str(threads))
    warnings.filterwarnings("ignore")
    for name in ("pytorch_lightning", "lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("fit", "tune", "whole", "users", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--found", type=Path, help="what an earlier run wrote: its parameters are taken, none sought")
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=list(CLOCKS), default="processor", help="what minutes are counted by")
    parser.add_argument(
        "--device", default="cpu", help="where SASRec recommends; it trains on a GPU where there is one"
    )
    options = parser.parse_args()
    quiet(options.threads)
    frames = {name: pd.read_parquet(getattr(options, name)) for name in ("fit", "tune", "whole", "users")}
    items = frames["whole"]["item_id"].nunique()
    if options.model == "ease" and items > EASE_ITEMS:
        print(f"ease: {items} items ask for a dense inverse of {items}x{items}; more than {EASE_ITEMS} are left out")
        return 3
    if options.model == "sasrec":
        import lightning_fabric
        import torch

        torch.set_num_threads(options.threads)
        lightning_fabric.seed_everything(options.seed, verbose=False)
    targets = frames["tune"]
    users = targets["user_id"].unique()
    if len(users) > TUNING_USERS:
        chosen = np.random.default_rng(options.seed).choice(users, TUNING_USERS, replace=False)
        targets = targets[targets["user_id"].isin(chosen)]
    longest = int(np.clip(np.percentile(frames["fit"].groupby("user_id").size(), 95), 10, 50))
    best, trials, spent = (
        earlier(options.found) if options.found else tune(options, dataset_of(frames["fit"]), targets, longest)
    )
    clock = CLOCKS[options.clock]
    whole, started = dataset_of(frames["whole"]), clock()
    model = final(options, best, whole)
    fitted = clock() - started
    lists = recommend(model, whole, frames["users"]["user_id"].to_numpy(), options.k, best.filter_viewed)
    aside = options.out.with_suffix(".aside")
    lists.to_parquet(aside)
    aside.replace(options.out)
    import implicit
    import rectools

    figures = {
        "model": options.model,
        "seed": options.seed,
        "params": {**best.params, "filter_viewed": best.filter_viewed},
        "tuning": {"ndcg@10": best.ndcg, "trials": trials, "seconds": spent},
        "fit_seconds": fitted,
        "versions": {"rectools": rectools.__version__, "implicit": implicit.__version__},
    }
    options.out.with_suffix(".json").write_text(json.dumps(figures, indent=2, default=str), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
