"""Metrics from kept ranks, against values by hand; the choice of an arm on tuning users."""

import math

import numpy as np
import polars as pl
import pytest

from features.activity import History
from models.data.vocabulary import Vocabulary
from models.evaluation.cold_ranking import MISSED, SHOWN, RankedEpisodes
from models.evaluation.cold_users import Episode
from models.evaluation.cold_values import PRIMARY, UserValues
from models.experiments.measures import ANY_K, NEXT, SAME, horizon_metric, user_values
from models.experiments.results import UnitResults, together, unit_results, with_choice
from models.experiments.run import Unit

ITEMS = [f"i{number}" for number in range(30)]


def episode(user: str, k: int, targets: list[str], horizons: list[int]) -> Episode:
    return Episode(user, k, History(), targets, [0] * len(targets), horizons, frozenset())


def ranked_by(episodes: list[Episode], ranks: dict[str, list[int]]) -> RankedEpisodes:
    """Arms with these ranks of every question; the lists show the items in their order, or backwards for arm b."""
    rows = [row for row, own in enumerate(episodes) for _ in own.targets]
    horizons = [horizon for own in episodes for horizon in own.horizons]
    lists = np.stack([np.tile(order[:SHOWN], (len(episodes), 1)) for order in (np.arange(30), np.arange(30)[::-1])], 1)
    table = np.array(list(ranks.values()), np.int32).T
    arms = np.array(rows, np.int64), np.array(horizons, np.int64)
    return RankedEpisodes(tuple(ranks), Vocabulary.from_items(ITEMS), *arms, table, lists.astype(np.int32))


def kept(seed_ranks: dict[str, list[int]]) -> UnitResults:
    own = [episode("u", 1, ["i0", "i1", "i25"], [1, 2, 5]), episode("v", 1, ["i3"], [1])]
    tail = np.arange(30) >= 6
    return unit_results(ranked_by(own, seed_ranks), own, tail=tail, predictions=True)


def test_values_by_hand() -> None:
    values = user_values([(Unit(0, 0), kept({"a": [0, 1, 9, 12], "b": [0, 0, 0, MISSED]}))], [1])
    discounted = [1 / math.log2(rank + 2) for rank in (0, 1, 9)]
    assert values.users == ["u", "v"]
    assert values.column("a", 1) == pytest.approx([sum(discounted) / 3, 0.0])
    assert values.column("a", 1, NEXT) == pytest.approx([1.0, 0.0])
    assert values.column("a", 1, horizon_metric(2))[0] == pytest.approx(discounted[1])
    assert math.isnan(values.column("a", 1, horizon_metric(2))[1])
    assert values.column("a", 1, SAME)[0] == pytest.approx(discounted[2])
    assert values.column("a", 1, "hr@10") == pytest.approx([1.0, 0.0])
    assert values.column("b", 1, "mrr")[1] == pytest.approx(0.0, abs=1e-8)
    assert values.column("a", 1, "recall@20") == pytest.approx([2 / 3, 1.0])
    assert values.column("b", 1, "recall@20") == pytest.approx([1 / 3, 0.0])
    assert values.coverage("a", 1, 30) == pytest.approx(1 / 3)
    assert values.tail[:, 0, 0] == pytest.approx([0.4, 0.4])
    assert values.tail[:, 0, 1] == pytest.approx([1.0, 1.0])


def test_a_user_counts_once_with_the_mean_over_seeds() -> None:
    parts = [(Unit(0, seed), kept({"a": [rank, 0, 0, 0], "b": [0, 0, 0, 0]})) for seed, rank in ((0, 0), (1, MISSED))]
    values = user_values(parts, [1])
    assert values.users == ["u", "v"]
    assert values.column("a", 1, NEXT) == pytest.approx([0.5, 1.0])


def test_groups_and_scenarios_stay_apart() -> None:
    own = [episode("w", 23, ["i4"], [1])]
    warm = unit_results(ranked_by(own, {"a": [0], "b": [3]}), own, group="warm")
    other = unit_results(ranked_by(own, {"a": [5], "b": [5]}), own, scenario="share=0.01")
    part = [(Unit(0, 0), together([kept({"a": [0, 1, 9, 12], "b": [0, 0, 0, 0]}), warm, other], {}))]
    assert user_values(part, [1]).users == ["u", "v"]
    values = user_values(part, None, group="warm")
    assert values.column("a", ANY_K).tolist() == [1.0]
    assert user_values(part, [23], scenario="share=0.01").users == ["w"]
    assert user_values(part, [1], scenario="none").users == []


def test_the_chosen_arm_is_another_one_at_each_k() -> None:
    own = [episode("u", k, ["i0"], [1]) for k in (0, 1)]
    results = unit_results(ranked_by(own, {"a": [0, 1], "b": [2, 3]}), own, predictions=True)
    chosen = with_choice(results, "A1", {0: "b", 1: "a"})
    ranks = chosen.ranks.filter(pl.col("arm") == "A1").sort("k")
    assert ranks["rank"].to_list() == [2, 1]
    assert chosen.predictions is not None
    lines = chosen.predictions.filter((pl.col("arm") == "A1") & (pl.col("rank") == 1)).sort("k")
    assert lines["item_id"].to_list() == ["i29", "i0"]
    values: UserValues = user_values([(Unit(0, 0), chosen)], [0, 1])
    assert values.mean("A1", 0, PRIMARY) == values.mean("b", 0, PRIMARY)
