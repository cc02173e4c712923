"""Training sets from the archive, as of a cut in time."""

from pathlib import Path
from typing import Final

import pandas as pd
import polars as pl

from features.errors import ArchiveError

COLUMNS: Final = ("user_id", "item_id", "kind", "value", "at", "category", "partition", "offset")


def interactions(folder: Path, domain: str, until_at: int | None = None) -> pd.DataFrame:
    """Every interaction of `domain` before `until_at` (epoch ms, exclusive), each event once.

    Columns user_id, item_id, kind, value, at, category; sorted by `at`, ties in log order. `folder` is the archive's.

    Raises:
        ArchiveError: there is no archive yet.
    """
    if not any((folder / "events").glob("*.parquet")):
        raise ArchiveError(f"{folder}: no events are archived yet; is the archive process running?")
    lines = pl.scan_parquet(str(folder / "events" / "*.parquet")).filter(
        (pl.col("type") == "interaction") & (pl.col("domain") == domain)
    )
    if until_at is not None:
        lines = lines.filter(pl.col("at") < until_at)
    ordered = lines.select([*COLUMNS, "event_id"]).sort(["at", "partition", "offset"])
    unique = ordered.unique(["user_id", "event_id"], keep="first", maintain_order=True)
    return unique.drop(["partition", "offset", "event_id"]).collect().to_pandas()


def catalogue(folder: Path, domain: str) -> pd.DataFrame:
    """The newest word on every item of `domain`: id, label (the category), record (JSON)."""
    return _newest(folder, "items", domain)


def profiles(folder: Path, domain: str) -> pd.DataFrame:
    """The newest word on every user of `domain`: id, label (the segment), record (JSON)."""
    return _newest(folder, "users", domain)


def _newest(folder: Path, topic: str, domain: str) -> pd.DataFrame:
    if not any((folder / topic).glob("*.parquet")):
        return pd.DataFrame({"id": [], "label": [], "record": []})
    lines = pl.scan_parquet(str(folder / topic / "*.parquet")).filter(pl.col("domain") == domain)
    newest = lines.sort(["partition", "offset"]).unique("id", keep="last", maintain_order=True)
    return newest.select("id", "label", "record").collect().to_pandas()
