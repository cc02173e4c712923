"""What an experiment keeps: the rank of every target, what every list showed, and the lists themselves."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from models.arrays import Bool, Float32, Int64
from models.evaluation.cold_ranking import SHOWN, RankedEpisodes
from models.evaluation.cold_users import HORIZONS, Episode
from models.evaluation.cold_values import K

COLD: Final = "cold"
WARM: Final = "warm"
TABLES: Final = ("ranks", "lists", "shown", "predictions")


class UnitResults(msgspec.Struct, kw_only=True):
    """The results of one unit of work, in long form; `scenario` is a text such as `share=0.01`, empty where none is.

    `ranks`: group (`cold` or `warm`), scenario, user_id, k, horizon, arm, rank (0 is the best). `lists`: group,
    scenario, user_id, k, arm, recall (share of the distinct targets in the first 20), tail (share of the tail in the
    first 10). `shown`: group,
    scenario, k, arm, item_id of the users' first 10. `predictions`: group, scenario, arm, user_id,
    k, rank (from 1), item_id of the first 20, or None. `facts`: anything else, as JSON values.
    """

    ranks: pl.DataFrame
    lists: pl.DataFrame
    shown: pl.DataFrame
    predictions: pl.DataFrame | None = None
    facts: dict[str, Any] = {}

    def write(self, folder: Path) -> None:
        """Write each table as Parquet, and the facts as JSON."""
        for name in TABLES:
            table: pl.DataFrame | None = getattr(self, name)
            if table is not None:
                table.write_parquet(folder / f"{name}.parquet")
        (folder / "facts.json").write_bytes(msgspec.json.encode(self.facts))

    @classmethod
    def read(cls, folder: Path) -> "UnitResults":
        """The results that `write` wrote, without predictions."""
        tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in TABLES[:3]}
        return cls(**tables, facts=msgspec.json.decode((folder / "facts.json").read_bytes()))


def unit_results(
    ranked: RankedEpisodes,
    episodes: Sequence[Episode],
    *,
    group: str = COLD,
    scenario: str = "",
    tail: Bool | None = None,
    predictions: bool = False,
) -> UnitResults:
    """The results of ranked episodes with lists; `tail` bool [items]: whether an item is outside the popular ones."""
    assert ranked.lists is not None
    labels = [pl.lit(group).alias("group"), pl.lit(scenario).alias("scenario")]
    users = pl.Series([episode.user_id for episode in episodes], dtype=pl.String)
    ks = np.array([episode.k for episode in episodes], np.int16)
    names, count = pl.Series(ranked.arms, dtype=pl.String), len(ranked.arms)

    def keys(rows: Int64, arms: Int64) -> dict[str, Any]:
        return {"user_id": users.gather(rows), "k": ks[rows], "arm": names.gather(arms)}

    rows, arms = np.repeat(ranked.episodes, count), np.tile(np.arange(count), len(ranked.episodes))
    horizons = np.repeat(ranked.horizons, count).astype(np.int16)
    ranks = pl.DataFrame({**keys(rows, arms), "horizon": horizons, "rank": ranked.ranks.reshape(-1)})
    each, arms = np.repeat(np.arange(len(episodes)), count), np.tile(np.arange(count), len(episodes))
    recall, tails = _recall(ranked, episodes), _tail_shares(ranked, tail)
    lists = pl.DataFrame({**keys(each, arms), "recall": recall.reshape(-1), "tail": tails.reshape(-1)})
    rows, arms, places = np.nonzero(ranked.lists >= 0)
    items = pl.Series(ranked.vocabulary.item_ids, dtype=pl.String).gather(ranked.lists[rows, arms, places])
    lines = pl.DataFrame({**keys(rows, arms), "rank": places.astype(np.int16) + 1, "item_id": items})
    shown = lines.filter(pl.col("rank") <= K).select("k", "arm", "item_id").unique(maintain_order=True)
    return UnitResults(
        ranks=ranks.select(*labels, "user_id", "k", "horizon", "arm", "rank"),
        lists=lists.select(*labels, "user_id", "k", "arm", "recall", "tail"),
        shown=shown.select(*labels, "k", "arm", "item_id"),
        predictions=lines.select(*labels, "arm", "user_id", "k", "rank", "item_id") if predictions else None,
    )


def together(parts: Sequence[UnitResults], facts: dict[str, Any]) -> UnitResults:
    """The results of several groups and scenarios of one unit."""
    tables: dict[str, Any] = {}
    for name in TABLES:
        of_parts = [table for part in parts if (table := getattr(part, name)) is not None]
        tables[name] = pl.concat(of_parts) if of_parts else None
    return UnitResults(**tables, facts=facts)


def with_choice(results: UnitResults, name: str, chosen: Mapping[int, str]) -> UnitResults:
    """The results with one more arm `name`: at each k (cold users) the arm that was chosen on tuning users.

    Warm users have the choice of the largest k.
    """
    last = chosen[max(chosen)]
    cold = pl.col("k").replace_strict(dict(chosen), default=None, return_dtype=pl.String)

    def added(table: pl.DataFrame | None) -> pl.DataFrame | None:
        if table is None:
            return None
        chosen_arm = pl.when(pl.col("group") == COLD).then(cold).otherwise(pl.lit(last))
        return pl.concat([table, table.filter(pl.col("arm") == chosen_arm).with_columns(pl.lit(name).alias("arm"))])

    tables: dict[str, Any] = {table: added(getattr(results, table)) for table in TABLES}
    return UnitResults(**tables, facts=results.facts)


def _recall(ranked: RankedEpisodes, episodes: Sequence[Episode]) -> Float32:
    """float32 [episodes, arms]: the share of the distinct items of horizons 1 to 5 in the lists."""
    assert ranked.lists is not None
    index = ranked.vocabulary.index
    recall = np.zeros(ranked.lists.shape[:2], np.float32)
    for row, episode in enumerate(episodes):
        near = {item for item, h in zip(episode.targets, episode.horizons, strict=True) if h <= HORIZONS}
        targets = [index[item] for item in near if item in index]
        recall[row] = np.isin(ranked.lists[row, :, :SHOWN], targets).sum(axis=1) / max(1, len(near))
    return recall


def _tail_shares(ranked: RankedEpisodes, tail: Bool | None) -> Float32:
    """float32 [episodes, arms]: the share of the tail in the first ten; nan where the tail is not known."""
    assert ranked.lists is not None
    top = ranked.lists[:, :, :K]
    if tail is None:
        return np.full(top.shape[:2], np.nan, np.float32)
    counts = (tail[top] & (top >= 0)).sum(axis=2) / np.maximum((top >= 0).sum(axis=2), 1)
    shares: Float32 = counts.astype(np.float32)
    return shares
