"""`coldstream evaluate`: tune and measure recommenders on a file of events or a named data set."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import polars as pl
import typer

from features.catalogue import item_row, profile_row
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
from serving.commands.experiment_options import ExperimentOptions
from serving.commands.progress import training
from serving.domain_presets import preset_for
from serving.settings import Settings
from stream.errors import ColdstreamError
from stream.files import replacing
from stream.sources.source import Source
from stream.sources.table_options import TableOptions

LEAST_EVENTS = 100


class EvaluationRequest(ExperimentOptions, frozen=True):
    """The options of an experiment, how its files are read, and what is tuned for how long."""

    table: TableOptions = TableOptions()
    domain: str = "shop"
    recommender: str = "auto"
    trials: int = 12
    minutes: float = 4.0
    tuned: Path | None = None
    preset: DomainPreset | None = None
    """Gives the kind weights; None: the shipped preset of the data set's domain."""


def evaluation_request(
    settings: Settings, experiment: ExperimentOptions, table: TableOptions, domain: str | None, **tuning: Any
) -> EvaluationRequest:
    """The request of a command line; `domain` is its option, `tuning` are further fields. Raises PresetError."""
    preset = preset_for(settings, settings.domain) if experiment.events is not None or domain is not None else None
    options = msgspec.structs.asdict(experiment)
    return EvaluationRequest(**options, **tuning, table=table, domain=settings.domain, preset=preset)


def evaluate(request: EvaluationRequest, predictions: Path | None = None) -> EvaluationReport:
    """Tune, fit and measure. Each test user's 20 best items of each recommender are written to `predictions`.

    Raises:
        ColdstreamError: a requested data set or recommender does not exist, or there are too few events.
    """
    names = names_of(request)
    with training() as progress:
        source, frame, experiment = prepared(request, progress)
        without_text = [name for name in names if not _has_text_for(name, experiment)]
        names = [name for name in names if name not in without_text] or names
        tuned = [experiment.tune(name) for name in names]
        if len(tuned) > 1:
            members = [
                tuned_recommender
                for tuned_recommender in tuned
                if tuned_recommender.name in DEFAULT_MEMBERS or request.recommender != "all"
            ]
            tuned.append(experiment.blend(members))
        figures, lists = [], []
        for tuned_recommender in tuned:
            results, ranked = _figures(experiment, tuned_recommender, _labels(source.users, "user_id", "segment"))
            figures.append(results)
            lists.append(_lists(experiment, tuned_recommender.name, ranked))
            progress(f"test {tuned_recommender.name}", 1.0, {"ndcg@10": results.metrics["ndcg@10"]})
    if predictions is not None:
        write_predictions(pl.concat(lists), predictions)
    notes = [f"Each recommender was tuned with at most {request.trials} trials and {request.minutes:g} minutes."]
    if without_text:
        notes.append(f"Items have neither titles nor categories, which {', '.join(without_text)} would read.")
    if request.sample is not None:
        notes.append(f"At most {request.sample:,} users, sampled with the seed, are evaluated in each split.")
    return EvaluationReport(
        source.name,
        len(frame),
        int(frame["user_id"].nunique()),
        int(frame["item_id"].nunique()),
        len(experiment.test.cases),
        str(experiment.plan.protocol),
        request.seed,
        experiment.masked,
        best_of(tuned).name if len(tuned) > 1 else None,
        figures,
        notes,
        int(time.time() * 1000),
        source.report,
    )


class EvaluationData(msgspec.Struct):
    """The requested data set: its interactions, preset, catalogue, and what else recommenders read of it."""

    source: Source
    frame: pd.DataFrame
    preset: DomainPreset
    categories: dict[str, str] | None
    catalogue: ItemFeatures | None
    profiles: ProfileHistory
    defaults: Mapping[str, dict[str, Any]]


def read_data(request: EvaluationRequest) -> EvaluationData:
    """Read the requested data set.

    Raises:
        ColdstreamError: it does not exist, or has too few events.
    """
    source = _opened(request)
    frame = frame_of(source)
    if len(frame) < LEAST_EVENTS:
        raise TrainingError(
            f"{source.name}: {len(frame)} events are too few to evaluate on; give {LEAST_EVENTS} or more"
        )
    people = ProfileHistory.from_users(profile_row(user, 0).record() for part in source.profiles() for user in part)
    return EvaluationData(
        source,
        frame,
        request.preset or preset_of(source.domain),
        _labels(source.items, "item_id", "category") or None,
        catalogue_of(source),
        people,
        read_preset(request.tuned).tuned_params if request.tuned is not None else {},
    )


def prepared(request: EvaluationRequest, progress: Progress) -> tuple[Source, pd.DataFrame, Experiment]:
    """The requested data set, its interactions, and an experiment on them."""
    protocol, masked = SplitProtocol.parse(request.split), masked_of(request.seen)
    data = read_data(request)
    preset = data.preset
    weighed = {"weights": preset.weights, "recency_ms": preset.recency_ms, "live_kinds": preset.popularity.kinds}
    plan = ExperimentPlan(
        protocol,
        request.seed,
        request.trials,
        request.minutes,
        request.sample,
        masked,
        request.min_count,
        **weighed,  # type: ignore[arg-type]
    )
    experiment = Experiment(
        data.frame, plan, progress, data.categories, data.defaults, data.catalogue, profiles=data.profiles
    )
    return data.source, data.frame, experiment


def names_of(request: EvaluationRequest) -> Sequence[str]:
    """The recommenders to tune: all, the usual members of a blend, or those that the request names."""
    return (
        list(DEFAULT_MEMBERS) if request.recommender in {"auto", "blend"} else registry.parse_names(request.recommender)
    )


def _has_text_for(name: str, experiment: Experiment) -> bool:
    return experiment.situation.item_text or not registry.spec(name).needs_item_text


def frame_of(source: Source) -> pd.DataFrame:
    """A source's interactions in the layout of training: user_id, item_id, kind, value, at, category, in time order."""
    return source.events.select("user_id", "item_id", "kind", "value", "at", "category").to_pandas()


def catalogue_of(source: Source) -> ItemFeatures | None:
    """A source's item features: categories, titles, and which items could be recommended before their first event.

    None if the source has no item data. Items that appear only in events are excluded: they are what is predicted.
    """
    has_item_data = source.items.select(pl.any_horizontal(pl.col("title", "category").is_not_null()).any()).item()
    if not source.listed and not has_item_data:
        return None
    items = [item_row(item, 0).record() for part in source.catalogue() for item in part]
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
    curve = tuned.curve or next((member.curve for member in tuned.members if member.curve), [])
    spent = tuned.seconds + time.monotonic() - started
    results = RecommenderResults(
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
    return results, ranked


def _lists(experiment: Experiment, name: str, ranked: evaluation.RankedLists) -> pl.DataFrame:
    """Long form: recommender, user_id, rank (from 1), item_id, hit, targets (the user's, each once).

    A user without recommendations has a single row without rank and item.
    """
    item_ids, cases = experiment.test.log.vocabulary.item_ids, experiment.test.cases
    rows, ranks = np.nonzero(ranked.items >= 0)
    items = [item_ids[place] for place in ranked.items[rows, ranks]]
    target_sets = [set(case.targets) for case in cases]
    hits = [item in target_sets[row] for row, item in zip(rows, items, strict=True)]
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


def write_predictions(lists: pl.DataFrame, path: Path) -> None:
    """Write the lists as Parquet. Raises ColdstreamError."""
    try:
        with replacing(path) as temporary:
            lists.write_parquet(temporary)
    except OSError as error:
        raise ColdstreamError(f"--predictions {path}: cannot be written: {error}") from error


def _opened(request: EvaluationRequest) -> Source:
    source = _read(request)
    typer.echo(source.report.table(), err=True)
    return source


def _read(request: EvaluationRequest) -> Source:
    from stream.sources.table import open_table

    if (request.events is None) == (request.source is None):
        raise ColdstreamError(
            "give --events FILE (with --map where columns are not named as fields), or --source NAME[:PATH]"
        )
    if request.source is not None:
        if request.table.describe_file():
            raise ColdstreamError(
                "--map, --items, --kind, --delimiter and their like describe a file of your own: give --events FILE, "
                "or leave them out with --source"
            )
        return open_source(request.source, request.table.cleaning)
    assert request.events is not None
    return open_table(request.events, request.table, domain=request.domain)


def masked_of(seen: str) -> bool | None:
    """Whether seen items are masked; None where the data decide. Raises ColdstreamError."""
    known: dict[str, bool | None] = {"auto": None, "keep": False, "mask": True}
    if seen not in known:
        raise ColdstreamError(f"--seen {seen}: give auto, keep (what a user took may come again) or mask")
    return known[seen]


def _labels(table: pl.DataFrame, key: str, label: str) -> dict[str, str]:
    if label not in table.columns or not table.height:
        return {}
    known = table.select(key, label).drop_nulls()
    return dict(zip(known[key].to_list(), known[label].to_list(), strict=True))


def summary(evaluation_report: EvaluationReport) -> dict[str, Any]:
    """The report as `--json` prints it."""
    return dict(msgspec.to_builtins(evaluation_report))


def table(evaluation_report: EvaluationReport) -> str:
    """The report as a text table, printed without `--json`."""
    lines = [f"{'recommender':<18} {'NDCG@10':>24} {'HR@10':>8} {'MRR@10':>8} {'coverage':>9} {'trials':>6} {'s':>6}"]
    for results in report.ranked(evaluation_report):
        low, high = results.intervals["ndcg@10"]
        spread = f"{results.metrics['ndcg@10']:.4f} [{low:.4f}, {high:.4f}]"
        rest = f"{results.metrics['hr@10']:8.4f} {results.metrics['mrr@10']:8.4f} {results.metrics['coverage@10']:9.4f}"
        lines.append(f"{results.recommender:<18} {spread:>24} {rest} {results.trials:6d} {results.seconds:6.0f}")
    return "\n".join(lines)
