"""Training sets from the archive, as of a cut in time."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

import msgspec
import pandas as pd
import polars as pl

from features.archive import parts
from features.catalogue import ItemRow, item_row, merge
from features.errors import ArchiveError
from stream.events import Item
from stream.topics import EVENTS

if TYPE_CHECKING:
    from feast import FeatureStore

COLUMNS: Final = ("user_id", "item_id", "kind", "value", "at", "category", "partition", "offset")
ORDER_COLUMNS: Final = ("partition", "offset", "event_id")
"""Position and id of an interaction: they decide order and duplicates."""


def interactions(folder: Path, domain: str, until_at: int | None = None) -> pd.DataFrame:
    """Every interaction of `domain` before `until_at` (epoch ms, exclusive), each event once.

    Columns user_id, item_id, kind, value, at, category; sorted by `at`, ties in log order. `folder` is the archive's.

    Raises:
        ArchiveError: there is no archive yet.
    """
    if not any((folder / "events").glob("*.parquet")):
        raise ArchiveError(f"{folder}: no events are archived yet; is the archive process running?")
    lines = scan_topic(folder, "events").filter((pl.col("type") == "interaction") & (pl.col("domain") == domain))
    if until_at is not None:
        lines = lines.filter(pl.col("at") < until_at)
    return in_training_order(lines.select([*COLUMNS, "event_id"])).drop(ORDER_COLUMNS).collect().to_pandas()


def scan_topic(folder: Path, topic: str) -> pl.LazyFrame:
    """Every archived row of a topic, as of now, without copies of forwarded events; at least one part must exist.

    The newest part of each partition grows by being replaced, and Polars opens a path more than once: so those are
    opened here and do not change while they are read.
    """
    paths = parts(folder, topic)
    newest = set({path.stem.rsplit("-", 1)[0]: path for path in paths}.values())
    opened: list[IO[bytes]] = [path.open("rb") for path in paths if path in newest]
    lines = [pl.scan_parquet(opened)]
    if len(newest) < len(paths):
        lines.append(pl.scan_parquet([path for path in paths if path not in newest]))
    rows = pl.concat(lines)
    return rows.filter(pl.col("forwarded_from").is_null()) if topic == EVENTS else rows


def in_training_order(lines: pl.LazyFrame) -> pl.LazyFrame:
    """Interactions by `at`, ties in log order, each event of a user once."""
    in_order = lines.sort(["at", "partition", "offset"])
    return in_order.unique(["user_id", "event_id"], keep="first", maintain_order=True)


def catalogue(folder: Path, domain: str) -> pd.DataFrame:
    """Every item of `domain` as its updates say together: id, record (JSON of a `CatalogueEntry`)."""
    rows: dict[str, ItemRow] = {}
    for item_id, offset, record in _updates(folder, "items", domain):
        row, before = item_row(msgspec.json.decode(record, type=Item), offset), rows.get(item_id)
        rows[item_id] = row if before is None else merge(before, row)
    records = [msgspec.json.encode(row.record()).decode() for row in rows.values()]
    return pd.DataFrame({"id": list(rows), "record": records}, dtype=object)


def _updates(folder: Path, topic: str, domain: str) -> Iterator[tuple[str, int, str]]:
    """Id, offset and JSON of each update, in log order."""
    if not any((folder / topic).glob("*.parquet")):
        return
    lines = scan_topic(folder, topic).filter(pl.col("domain") == domain).sort(["partition", "offset"])
    yield from lines.select("id", "offset", "record").collect().iter_rows()


def training_set(feast: "FeatureStore", domain: str, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` [user_id, at, ...] with the columns state and record: each user as known strictly before `at` (epoch ms).

    This is Feast's point-in-time join over the offline store (`features.offline`). Feast drops equal rows, and rows of
    users of whom nothing was known yet; here they stay, the latter with missing values.
    """
    keys = ["user_id", "at"]
    entities = rows[keys].drop_duplicates()
    entities["event_timestamp"] = pd.to_datetime(entities["at"] - 1, unit="ms", utc=True)
    features = [f"{domain}_activity:state", f"{domain}_profile:record"]
    history = feast.get_historical_features(entities, features).to_df()
    joined = rows[keys].merge(history[[*keys, "state", "record"]], how="left", on=keys)
    return rows.assign(state=joined["state"].to_numpy(), record=joined["record"].to_numpy())
