"""Metrics of an experiment's arms: a value for each user, number of known events and arm, from the kept ranks."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import polars as pl

from models.arrays import Float64
from models.evaluation.bootstrap import Comparison, compare_pairs
from models.evaluation.cold_users import HORIZONS, SAME_TARGET
from models.evaluation.cold_values import METRICS, PRIMARY, K, UserValues
from models.experiments.results import COLD, UnitResults
from models.experiments.run import Unit

NEXT: Final = "next ndcg@10"
SAME: Final = "same ndcg@10"
ANY_K: Final = -1
"""The only number of known events of values that are taken over all of them, as those of warm users."""
Key = tuple[str, int]


def horizon_metric(horizon: int) -> str:
    """The metric of the event so many places after the known ones."""
    return NEXT if horizon == 1 else f"ndcg@10 at {horizon}"


def user_values(
    parts: Iterable[tuple[Unit, UnitResults]],
    ks: Sequence[int] | None,
    *,
    scenario: str = "",
    group: str = COLD,
) -> UserValues:
    """The users' values over all units, the mean over seeds; without `ks` over all numbers of known events together.

    An arm that a unit lacks has no values of that unit's users.
    """
    tables, shown = [], []
    inside = (pl.col("scenario") == scenario) & (pl.col("group") == group)
    for unit, results in parts:
        ranks, lists = results.ranks.filter(inside), results.lists.filter(inside)
        if ranks.height:
            seed = pl.lit(unit.seed).alias("seed")
            tables.append(_measured(ranks, lists, ks is None).with_columns(seed))
            shown.append(results.shown.filter(inside))
    columns = list(ks) if ks is not None else [ANY_K]
    if not tables:
        return UserValues([], columns, [], _metrics())
    table = pl.concat(tables).drop("seed").group_by("user_id", "k", "arm", maintain_order=True).mean()
    values = UserValues(
        table["user_id"].unique(maintain_order=True).to_list(),
        columns,
        table["arm"].unique(maintain_order=True).to_list(),
        _metrics(),
    )
    _fill(values, table.filter(pl.col("k").is_in(columns)))
    for part in shown:
        for k, arm, items in part.group_by("k", "arm").agg("item_id").iter_rows():
            values.shown.setdefault((ANY_K if ks is None else k, arm), set()).update(items)
    return values


def compared(
    values: UserValues, pairs: Sequence[tuple[str, str, int, str]], rng: np.random.Generator
) -> list[Comparison]:
    """The ratio of two arms for each (arm, other arm, k, metric); p-values are not corrected."""
    keys = [((arm, k, metric), (other, k, metric)) for arm, other, k, metric in pairs]
    columns = {key: values.column(*key) for pair in keys for key in pair}
    return compare_pairs(columns, keys, rng)


def _metrics() -> list[str]:
    return [*METRICS, *(horizon_metric(horizon) for horizon in range(2, HORIZONS + 1))]


def _measured(ranks: pl.DataFrame, lists: pl.DataFrame, all_ks: bool) -> pl.DataFrame:
    """user_id, k, arm, a column for each metric, and `tail`."""
    near, rank, horizon = pl.col("horizon") <= HORIZONS, pl.col("rank").cast(pl.Float64), pl.col("horizon")
    gain = pl.when(rank < K).then(1.0 / (rank + 2.0).log(2.0)).otherwise(0.0)
    keys = ["user_id", "k", "arm"]
    at = [gain.filter(horizon == h).mean().alias(horizon_metric(h)) for h in range(2, HORIZONS + 1)]
    table = ranks.group_by(keys, maintain_order=True).agg(
        gain.filter(near).mean().alias(PRIMARY),
        gain.filter(horizon == 1).mean().alias(NEXT),
        gain.filter(horizon == SAME_TARGET + 1 - pl.col("k")).mean().alias(SAME),
        (rank < K).cast(pl.Float64).filter(near).mean().alias("hr@10"),
        (1.0 / (rank + 1.0)).filter(near).mean().alias("mrr"),
        *at,
    )
    own = lists.select(*keys, pl.col("recall").cast(pl.Float64).alias("recall@20"), pl.col("tail").cast(pl.Float64))
    table = table.join(own, on=keys, how="left", maintain_order="left")
    return table.with_columns(pl.lit(ANY_K).cast(pl.Int16).alias("k")) if all_ks else table


def _fill(values: UserValues, table: pl.DataFrame) -> None:
    places = [
        _codes(table["user_id"], values.users),
        _codes(table["k"], values.ks),
        _codes(table["arm"], values.arms),
    ]
    for metric in values.values:
        values.values[metric][tuple(places)] = _floats(table[metric])
    values.tail[tuple(places)] = _floats(table["tail"])


def _codes(column: pl.Series, names: Sequence[str] | Sequence[int]) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(names)}
    return column.replace_strict(numbers, return_dtype=pl.Int64).to_numpy()


def _floats(column: pl.Series) -> Float64:
    values: Float64 = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return values
