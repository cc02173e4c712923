"""The public data sets of the benchmarks, and their interactions as tables."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import pandas as pd

from models.data.vocabulary import PREFERENCE_WEIGHTS

if TYPE_CHECKING:
    from models.data.item_features import ItemFeatures
    from stream.sources.source import Source


class BenchmarkData(msgspec.Struct, frozen=True):
    """A data set: its source and where that lies in the folder of all of them, its split, the encoder that is tried,
    and the share of users that is taken."""

    source: str
    place: str | None
    protocol: str
    encoder: str
    share: float = 1.0

    def open(self, folder: Path) -> "Source":
        from stream.sources.named import open_named

        return open_named(self.source, folder / self.place if self.place else None)


DATA_SETS: Final[dict[str, BenchmarkData]] = {
    "movielens-1m": BenchmarkData("movielens-1m", "ml-1m", "leave-one-out", "transformer"),
    "beauty": BenchmarkData("amazon", "amazon-2014-5core/Beauty.parquet", "leave-one-out", "dnn"),
    "online-retail": BenchmarkData("online-retail", "uci-online-retail", "last-days:14", "dnn"),
    "globo": BenchmarkData("globo", "globo", "last-share:0.05", "transformer", 0.1),
    "complete-journey": BenchmarkData("complete-journey", None, "last-days:7", "dnn"),
}


def table_of(source: "Source", share: float) -> pd.DataFrame:
    """The interactions that speak for items, of a share of the users that does not depend on the seed."""
    from serving.commands.offline_evaluation import frame_of

    frame = frame_of(source)
    frame = frame[frame["kind"].map(PREFERENCE_WEIGHTS).fillna(0.0) > 0]
    users = np.sort(frame["user_id"].unique())
    if share < 1:
        kept = np.random.default_rng(0).choice(users, round(share * len(users)), replace=False)
        frame = frame[frame["user_id"].isin(kept)]
    return frame.reset_index(drop=True)


def categories_of(source: "Source") -> dict[str, str]:
    """The categories of those items that have one."""
    return dict(source.items.select("item_id", "category").drop_nulls().iter_rows())


def users_of(name: str, most: int) -> pd.DataFrame:
    """The interactions of at most so many users of a data set (NAME or NAME:PATH), drawn with one seed."""
    from stream.sources.named import open_named

    kind, _, path = name.partition(":")
    frame = table_of(open_named(kind, Path(path) if path else None), 1.0)
    users = np.sort(frame["user_id"].unique())
    if len(users) <= most:
        return frame
    kept = np.random.default_rng(0).choice(users, most, replace=False)
    return frame[frame["user_id"].isin(kept)].reset_index(drop=True)


def opened(
    data: Path, name: str, *, catalogue: bool = False
) -> "tuple[pd.DataFrame, dict[str, str], ItemFeatures | None]":
    """A set's interactions, categories of its items, and its catalogue on request."""
    packed = data / f"{name}.parquet"
    if packed.exists():
        if catalogue:
            raise SystemExit(f"{packed}: a packed set has no catalogue; leave out --catalogue")
        return pd.read_parquet(packed), json.loads(packed.with_suffix(".json").read_text("utf-8")), None
    from serving.commands.offline_evaluation import catalogue_of

    source = DATA_SETS[name].open(data)
    items = catalogue_of(source) if catalogue else None
    return table_of(source, DATA_SETS[name].share), categories_of(source), items
