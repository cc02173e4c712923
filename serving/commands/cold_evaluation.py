"""`coldstream evaluate --split cold-users`: users held out whole, asked for what they took after a few events."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from models.arrays import Float64
from models.evaluation.cold_ranking import RankedEpisodes
from models.evaluation.cold_report import ColdUsersReport, SeenResults, seen_results
from models.evaluation.cold_users import HORIZONS, KNOWN, ColdUserFolds, Episode, FoldPlan
from models.evaluation.cold_values import UserValues, ndcg_of, tail_of
from models.evaluation.opponent import (
    BLEND,
    FittedFold,
    Opponent,
    OpponentPlan,
    Progress,
    counting_members,
)
from models.recommenders.live_popularity import HALF_LIVES_MS, NEWS_HALF_LIVES_MS
from models.recommenders.registry import LIVE, half_life_of, parse_names
from serving.commands.offline_evaluation import (
    EvaluationData,
    EvaluationRequest,
    masked_of,
    read_data,
    write_predictions,
)
from serving.commands.progress import training
from stream.errors import ColdstreamError

NAME: Final = "cold-users"
REPEATED: Final = 0.05
"""From this share of repeated items on, both ways to treat seen items are reported."""
MOST_KNOWN: Final = 100


def known_events(split: str) -> tuple[int, ...]:
    """The numbers of known events of `cold-users` or `cold-users:0,1,2,3,5`, ascending.

    Raises:
        ColdstreamError: something else is given.
    """
    _, colon, rest = split.partition(":")
    return parse_known(rest, f"--split {split}", f"{NAME}:0,1,2,3,5") if colon else KNOWN


def parse_known(text: str, option: str, example: str) -> tuple[int, ...]:
    """Numbers of known events of a text such as `0,1,2,3,5`, ascending; `option` and `example` are for the error.

    Raises:
        ColdstreamError: something else is given.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) <= MOST_KNOWN for part in parts):
        raise ColdstreamError(f"{option}: give numbers of known events from 0 to {MOST_KNOWN}, as in {example}")
    return tuple(sorted({int(part) for part in parts}))


def evaluate_cold_users(request: EvaluationRequest, folds: int, predictions: Path | None = None) -> ColdUsersReport:
    """Tune, fit and ask in every fold. Each arm's 20 best items of each user and k are written to `predictions`.

    Raises:
        ColdstreamError: the request cannot be met.
    """
    ks, masked = known_events(request.split), masked_of(request.seen)
    data = read_data(request)
    plan = FoldPlan(ks=ks, folds=folds, seed=request.seed, most_users=request.sample, weights=data.preset.weights)
    cold = ColdUserFolds(data.frame, plan, data.profiles)
    ways = [masked] if masked is not None else [True, False] if cold.repeat_share > REPEATED else [True]
    results, lists, warm = [], [], 0
    with training() as progress:
        for way in ways:
            label = "mask" if way else "keep"
            stage = progress if len(ways) == 1 else _labelled(progress, label)
            outcome, shown, warm = _results(request, data, plan, way, stage, keep_lists=predictions is not None)
            results.append(outcome)
            lists += [part.with_columns(pl.lit(label).alias("seen")) for part in shown]
    if predictions is not None:
        write_predictions(pl.concat(lists), predictions)
    return ColdUsersReport(
        data.source.name,
        len(data.frame),
        int(data.frame["user_id"].nunique()),
        int(data.frame["item_id"].nunique()),
        len(cold.users),
        warm,
        folds,
        request.seed,
        list(ks),
        results,
        _notes(request, data),
        int(time.time() * 1000),
    )


def _results(
    request: EvaluationRequest,
    data: EvaluationData,
    plan: FoldPlan,
    masked: bool,
    progress: Progress,
    *,
    keep_lists: bool,
) -> tuple[SeenResults, list[pl.DataFrame], int]:
    """The results of one way to treat seen items, its lists, and the number of warm users."""
    features = {"catalogue": data.catalogue, "categories": data.categories, "profiles": data.profiles}
    opponent = Opponent(data.frame, opponent_plan(request, data, plan, masked=masked), progress, **features)  # type: ignore[arg-type]
    values = UserValues(opponent.folds.users, plan.ks, opponent.arms)
    warm: list[Float64] = []
    shares: list[Float64] = []
    lists: list[pl.DataFrame] = []
    for fitted in opponent:
        test = fitted.fold.test
        ranked = opponent.ranked(fitted, test.cold, lists=True)
        counts = np.bincount(fitted.training.items, minlength=len(fitted.training.vocabulary))
        values.add(ranked, test.cold, tail_of(counts))
        if test.warm:
            warm.append(ndcg_of(opponent.ranked(fitted, test.warm, label="warm users").ranks.astype(np.float64)))
        shares.append(_shares(fitted, plan.ks))
        if keep_lists:
            lists.append(_lists(ranked, test.cold))
    warm_values = np.concatenate(warm) if warm else np.zeros((0, len(opponent.arms)))
    rows = np.mean(shares, axis=0)
    results = seen_results(
        "mask" if masked else "keep",
        values,
        warm_values,
        {name: rows[:, place].tolist() for place, name in enumerate(opponent.member_names)},
        singles=opponent.member_names,
        items=int(data.frame["item_id"].nunique()),
        seed=request.seed,
    )
    return results, lists, len(warm_values)


def opponent_plan(request: EvaluationRequest, data: EvaluationData, plan: FoldPlan, *, masked: bool) -> OpponentPlan:
    """What the opponent is on the requested data: its members, the clock, and the horizons that the domain serves.

    Raises:
        ColdstreamError: no member but the clock is named.
    """
    usual = request.recommender in {"auto", "blend"}
    names = counting_members() if usual else parse_names(request.recommender)
    members = tuple(name for name in names if name not in {LIVE, "fresh"} and half_life_of(name) is None)
    if not members:
        raise ColdstreamError(f"--recommender {request.recommender}: the clock is a member already; name others")
    news = data.preset.freshness is not None
    return OpponentPlan(
        members=members,
        folds=plan,
        half_lives_ms=NEWS_HALF_LIVES_MS if news else HALF_LIVES_MS,
        masked=masked,
        trials=request.trials,
        minutes=request.minutes,
        defaults=data.defaults,
        served=(1,) if news else tuple(range(1, HORIZONS + 1)),
        min_count=request.min_count,
        recency_ms=data.preset.recency_ms,
        live_kinds=data.preset.popularity.kinds,
    )


def _shares(fitted: FittedFold, ks: Sequence[int]) -> Float64:
    """float64 [ks, members]: the blend's weights at each k, over probabilities of one scale."""
    from models.recommenders.blend import bucket_of

    rows = fitted.blends[BLEND][bucket_of(np.array(ks, np.int64))] * fitted.evidence.scales
    shares: Float64 = rows / rows.sum(axis=1, keepdims=True)
    return shares


def _lists(ranked: RankedEpisodes, episodes: Sequence[Episode]) -> pl.DataFrame:
    """Long form: recommender, user_id, k, rank (from 1), item_id, hit, targets (of the next five events)."""
    assert ranked.lists is not None
    item_ids = np.array(ranked.vocabulary.item_ids, object)
    rows, arms, ranks = np.nonzero(ranked.lists >= 0)
    near = [
        [item for item, horizon in zip(episode.targets, episode.horizons, strict=True) if horizon <= HORIZONS]
        for episode in episodes
    ]
    shown = pl.DataFrame(
        {
            "recommender": np.array(ranked.arms, object)[arms].tolist(),
            "row": rows,
            "rank": ranks.astype(np.int32) + 1,
            "item_id": item_ids[ranked.lists[rows, arms, ranks]].tolist(),
        },
        schema_overrides={"recommender": pl.String, "item_id": pl.String},
    )
    users = pl.DataFrame(
        {
            "row": np.arange(len(episodes)),
            "user_id": [episode.user_id for episode in episodes],
            "k": [episode.k for episode in episodes],
            "targets": near,
        },
        schema_overrides={"targets": pl.List(pl.String)},
    )
    joined = shown.join(users, on="row", how="left", maintain_order="left")
    hit = pl.col("targets").list.contains(pl.col("item_id")).alias("hit")
    return joined.select("recommender", "user_id", "k", "rank", "item_id", hit, "targets")


def _labelled(progress: Progress, label: str) -> Progress:
    def report(stage: str, done: float, figures: dict[str, float]) -> None:
        progress(f"{label}, {stage}", done, figures)

    return report


def _notes(request: EvaluationRequest, data: EvaluationData) -> list[str]:
    tuned = "their own or the preset's parameters"
    if request.trials > 1:
        tuned = f"at most {request.trials} trials and {request.minutes:g} minutes in each fold, on users held out of it"
    notes = [
        f"Recommenders have {tuned}; weights are fitted on users that are held out of each fold's training users.",
        "Popularity at the moment of the request counts training users' events before it.",
    ]
    if request.sample is not None:
        notes.append(f"At most {request.sample:,} cold users, sampled with the seed.")
    if data.preset.freshness is not None:
        notes.append("The blend's weights are fitted for the next event, which a domain with freshness serves.")
    return notes
