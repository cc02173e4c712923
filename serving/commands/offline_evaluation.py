"""`coldstream evaluate`: recommenders tuned and measured on a file of events, or on a data set by name."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl

from models.data.item_features import ItemFeatures
from models.data.profiles import ProfileHistory
from models.data.splits import SplitProtocol
from models.domains.preset import DomainPreset, preset_of, read_preset
from models.errors import TrainingError
from models.evaluation import metrics as evaluation
from models.evaluation import report
from models.evaluation.experiment import Experiment, ExperimentPlan, Progress, TunedRecommender, best_of
from models.evaluation.report import EvaluationReport, RecommenderResults
from models.recommenders import registry
from models.recommenders.registry import DEFAULT_MEMBERS
from serving.commands.data_loading import open_source
from serving.commands.progress import training
from stream.errors import ColdstreamError
from stream.sources.columns import parse_map
from stream.sources.source import Source

LEAST_EVENTS = 100


class EvaluationRequest(msgspec.Struct, frozen=True):
    """What an evaluation is asked for. Exactly one of `events` (a file) and `source` (NAME or NAME:PATH) is given."""

    events: Path | None = None
    source: str | None = None
    mapping: str | None = None
    users: Path | None = None
    items: Path | None = None
    domain: str = "shop"
    split: str = "leave-one-out"
    recommender: str = "auto"
    seen: str = "auto"
    trials: int = 12
    minutes: float = 4.0
    sample: int | None = None
    seed: int = 0
    min_count: int = 1
    tuned: Path | None = None
    preset: DomainPreset | None = None
    """What weighs kinds of events; without it the shipped preset of the data set's domain."""


def evaluate(asked: EvaluationRequest, predictions: Path | None = None) -> EvaluationReport:
    """Tune, fit and measure; `predictions` gets each test user's 20 best of each recommender.

    Raises:
        ColdstreamError: something asked for does not exist, or the events are too few.
    """
    names = names_of(asked)
    with training() as progress:
        source, frame, experiment = prepared(asked, progress)
        tuned = [experiment.tune(name) for name in names]
        if len(tuned) > 1:
            members = [one for one in tuned if one.name in DEFAULT_MEMBERS or asked.recommender != "all"]
            tuned.append(experiment.blend(members))
        figures, lists = [], []
        for one in tuned:
            found, ranked = _figures(experiment, one, _labels(source.users, "user_id", "segment"))
            figures.append(found)
            lists.append(_lists(experiment, one.name, ranked))
            progress(f"test {one.name}", 1.0, {"ndcg@10": found.metrics["ndcg@10"]})
    if predictions is not None:
        _write(pl.concat(lists), predictions)
    notes = [f"Each recommender was tuned with at most {asked.trials} trials and {asked.minutes:g} minutes."]
    if asked.sample is not None:
        notes.append(f"At most {asked.sample:,} users, drawn with the seed, are asked in each part.")
    return EvaluationReport(
        source.name,
        len(frame),
        int(frame["user_id"].nunique()),
        int(frame["item_id"].nunique()),
        len(experiment.test.cases),
        str(experiment.plan.protocol),
        asked.seed,
        experiment.masked,
        best_of(tuned).name if len(tuned) > 1 else None,
        figures,
        notes,
        int(time.time() * 1000),
    )


def prepared(asked: EvaluationRequest, progress: Progress) -> tuple[Source, pd.DataFrame, Experiment]:
    """The data set that is asked for, its interactions, and an experiment on them."""
    protocol, masked = SplitProtocol.parse(asked.split), _masked(asked.seen)
    source = _opened(asked)
    frame = frame_of(source)
    if len(frame) < LEAST_EVENTS:
        raise TrainingError(
            f"{source.name}: {len(frame)} events are too few to evaluate on; give {LEAST_EVENTS} or more"
        )
    categories = _labels(source.items, "item_id", "category")
    preset = asked.preset or preset_of(source.domain)
    weighed: dict[str, Any] = {"weights": preset.weights, "recency_ms": preset.recency_ms}
    plan = ExperimentPlan(
        protocol, asked.seed, asked.trials, asked.minutes, asked.sample, masked, asked.min_count, **weighed
    )
    defaults = read_preset(asked.tuned).tuned_params if asked.tuned is not None else {}
    people = ProfileHistory.from_users(user for users in source.profiles() for user in users)
    offered = catalogue_of(source)
    experiment = Experiment(frame, plan, progress, categories or None, defaults, offered, profiles=people)
    return source, frame, experiment


def names_of(asked: EvaluationRequest) -> Sequence[str]:
    """The recommenders that are tuned: all of them, the usual members of a blend, or those that are named."""
    return list(DEFAULT_MEMBERS) if asked.recommender in {"auto", "blend"} else registry.parse_names(asked.recommender)


def frame_of(source: Source) -> pd.DataFrame:
    """A source's interactions as training knows them: user_id, item_id, kind, value, at, category, in time order."""
    return source.events.select("user_id", "item_id", "kind", "value", "at", "category").to_pandas()


def catalogue_of(source: Source) -> ItemFeatures | None:
    """What a source says of its items: categories, titles, and which of them could be offered before anyone took them.

    None where it says nothing. Items that only the events know are not offered: that they come is what is asked for.
    """
    told = source.items.select(pl.any_horizontal(pl.col("title", "category").is_not_null()).any()).item()
    if not source.listed and not told:
        return None
    items = [one for part in source.catalogue() for one in part]
    return ItemFeatures.from_items(items, source.listed)


def _figures(
    experiment: Experiment, tuned: TunedRecommender, profiles: dict[str, str]
) -> tuple[RecommenderResults, evaluation.RankedLists]:
    started = time.monotonic()
    recommender = experiment.fit(tuned)
    values, ranked = experiment.measured(recommender)
    side = experiment.test
    popularity = np.bincount(side.log.items, minlength=len(side.log.vocabulary)).astype(np.float32)
    metrics = evaluation.aggregate(values, ranked, side.log.vocabulary)
    spread = evaluation.intervals(values, np.random.default_rng(experiment.plan.seed))
    shown = {name: column for name, column in values.items() if name in {"ndcg@10", "hr@10", "recall@10"}}
    parts = evaluation.segments(shown, side.cases, side.log.vocabulary, popularity, profiles or None)
    curve = tuned.curve or next((one.curve for one in tuned.members if one.curve), [])
    spent = tuned.seconds + time.monotonic() - started
    found = RecommenderResults(
        tuned.name,
        recommender.describe(),
        metrics,
        spread,
        parts,
        curve if tuned.name != "blend" else [],
        tuned.ndcg,
        tuned.trials,
        spent,
    )
    return found, ranked


def _lists(experiment: Experiment, name: str, ranked: evaluation.RankedLists) -> pl.DataFrame:
    """Long form: recommender, user_id, rank (from 1), item_id, hit, targets (the user's, each once).

    A user to whom nothing is shown has one row, without rank and item.
    """
    item_ids, cases = experiment.test.log.vocabulary.item_ids, experiment.test.cases
    rows, ranks = np.nonzero(ranked.items >= 0)
    items = [item_ids[place] for place in ranked.items[rows, ranks]]
    wanted = [set(case.targets) for case in cases]
    hits = [item in wanted[row] for row, item in zip(rows, items, strict=True)]
    shown = {"row": rows, "rank": ranks.astype(np.int32) + 1, "item_id": items, "hit": hits}
    users = {"user_id": [case.user_id for case in cases], "targets": [case.targets for case in cases]}
    lists = pl.DataFrame({"row": np.arange(len(cases)), **users}).join(
        pl.DataFrame(shown, schema_overrides={"item_id": pl.String, "hit": pl.Boolean}),
        on="row",
        how="left",
        maintain_order="left_right",
    )
    return lists.select(
        pl.lit(name).alias("recommender"), "user_id", "rank", "item_id", pl.col("hit").fill_null(value=False), "targets"
    )


def _write(lists: pl.DataFrame, path: Path) -> None:
    aside = path.with_name(f".{path.name}.aside")
    try:
        lists.write_parquet(aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise ColdstreamError(f"--predictions {path}: cannot be written: {error}") from error


def _opened(asked: EvaluationRequest) -> Source:
    from stream.sources.table import KIND, TableOptions, open_table

    if (asked.events is None) == (asked.source is None):
        raise ColdstreamError(
            "give --events FILE (with --map where columns are not named as fields), or --source NAME[:PATH]"
        )
    if asked.source is not None:
        return open_source(asked.source)
    assert asked.events is not None
    columns = parse_map(asked.mapping) if asked.mapping is not None else None
    return open_table(asked.events, columns, asked.domain, asked.users, asked.items, kind=KIND, form=TableOptions())


def _masked(seen: str) -> bool | None:
    known: dict[str, bool | None] = {"auto": None, "keep": False, "mask": True}
    if seen not in known:
        raise ColdstreamError(f"--seen {seen}: give auto, keep (what a user took may come again) or mask")
    return known[seen]


def _labels(table: pl.DataFrame, key: str, label: str) -> dict[str, str]:
    if label not in table.columns or not table.height:
        return {}
    known = table.select(key, label).drop_nulls()
    return dict(zip(known[key].to_list(), known[label].to_list(), strict=True))


def summary(found: EvaluationReport) -> dict[str, Any]:
    """What `--json` prints."""
    return dict(msgspec.to_builtins(found))


def table(found: EvaluationReport) -> str:
    """What the command prints where nobody asked for JSON."""
    lines = [f"{'recommender':<18} {'NDCG@10':>24} {'HR@10':>8} {'MRR@10':>8} {'coverage':>9} {'trials':>6} {'s':>6}"]
    for one in report.ranked(found):
        low, high = one.intervals["ndcg@10"]
        spread = f"{one.metrics['ndcg@10']:.4f} [{low:.4f}, {high:.4f}]"
        rest = f"{one.metrics['hr@10']:8.4f} {one.metrics['mrr@10']:8.4f} {one.metrics['coverage@10']:9.4f}"
        lines.append(f"{one.recommender:<18} {spread:>24} {rest} {one.trials:6d} {one.seconds:6.0f}")
    return "\n".join(lines)
